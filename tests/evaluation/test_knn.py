"""Nearest neighbours: the published function's numbers, a loop over images, and what could go wrong with sizes."""
import json
import math
from pathlib import Path

import pytest
import torch

from timm_smalldata.evaluation import knn_predict

VECTORS = json.loads((Path(__file__).parents[1] / 'vectors' / 'knn.json').read_text())


def unit(degrees, lengths=1.):
    angle = torch.tensor(degrees, dtype=torch.float32) * math.pi / 180
    return torch.stack([angle.cos(), angle.sin()], 1) * lengths


@pytest.mark.parametrize('case', VECTORS['results'])
def test_the_published_numbers(case):
    k, temperature = case[1:].split('_T')
    labels, expected = torch.tensor(VECTORS['train_labels']), VECTORS['results'][case]
    lengths = torch.linspace(0.1, 30, len(labels))[:, None]  # they do not matter
    scores = knn_predict(
        unit(VECTORS['train_deg'], lengths), labels, unit(VECTORS['test_deg'], 7.), 6, int(k), float(temperature))
    assert scores.argmax(1).tolist() == expected['pred']
    torch.testing.assert_close(scores / scores.sum(1, keepdim=True), torch.tensor(expected['class_share']),
                               atol=1e-4, rtol=0)
    hits = (scores.argmax(1) == torch.tensor(VECTORS['test_labels'])).float().mean()
    assert 100 * hits.item() == pytest.approx(expected['top1'])


def reference(train, labels, test, num_classes, k, temperature):
    """Shares of the vote in double precision, image by image, neighbour by neighbour."""
    rows = []
    for x in test.double().tolist():
        found = []
        for y, label in zip(train.double().tolist(), labels.tolist()):
            lengths = math.sqrt(sum(a * a for a in x)) * math.sqrt(sum(b * b for b in y))
            found.append((sum(a * b for a, b in zip(x, y)) / lengths, label))
        votes = [0.] * num_classes
        for cosine, label in sorted(found, reverse=True)[:k]:
            votes[label] += math.exp(cosine / temperature)
        rows.append([vote / sum(votes) for vote in votes])
    return torch.tensor(rows)


@pytest.mark.parametrize('k, num_train', [(5, 40), (20, 7), (1, 1)])
@pytest.mark.parametrize('chunk', [None, 1, 4])
def test_a_loop_over_images(k, num_train, chunk):
    generator = torch.Generator().manual_seed(k)
    train, test = torch.randn(num_train, 6, generator=generator), torch.randn(9, 6, generator=generator)
    labels = torch.arange(num_train) % 3  # classes 3 and 4 have no image
    scores = knn_predict(train, labels, test, 5, k, 0.3, chunk_size=chunk)
    assert scores.shape == (9, 5) and scores.dtype == torch.float32 and (scores >= 0).all()
    assert not scores[:, 3:].any()
    torch.testing.assert_close(
        scores / scores.sum(1, keepdim=True), reference(train, labels, test, 5, k, 0.3), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16, torch.float64])
def test_computes_in_float32(dtype):
    generator = torch.Generator().manual_seed(0)
    train, test = torch.randn(30, 8, generator=generator).to(dtype), torch.randn(5, 8, generator=generator).to(dtype)
    labels = torch.arange(30) % 4
    expected = knn_predict(train.float(), labels, test.float(), 4)
    with torch.autocast('cpu', torch.bfloat16):
        scores = knn_predict(train, labels, test, 4)
    assert scores.dtype == torch.float32
    torch.testing.assert_close(scores, expected)


@pytest.mark.parametrize('temperature', [1e-6, 1e-3, 1e6])
def test_no_temperature_overflows(temperature):
    train = unit([0, 10, 20, 90])
    scores = knn_predict(train, torch.tensor([0, 1, 1, 2]), unit([0.1]), 3, 4, temperature)
    assert scores.isfinite().all() and scores.sum() > 0
    assert scores.argmax().item() == (0 if temperature < 1 else 1)  # the nearest alone, or all alike


def test_nothing_to_judge_and_features_of_zeros():
    train, labels = unit([0, 90]), torch.tensor([0, 1])
    assert knn_predict(train, labels, torch.zeros(0, 2), 2).shape == (0, 2)
    scores = knn_predict(train, labels, torch.zeros(1, 2), 2)
    assert scores[0, 0] == scores[0, 1] > 0


@pytest.mark.parametrize('change, words', [
    (dict(train_features=torch.zeros(0, 2), train_labels=torch.zeros(0, dtype=torch.long)), 'no training image'),
    (dict(train_labels=torch.tensor([0])), 'train_labels'), (dict(test_features=torch.zeros(3, 5)), 'test_features'),
    (dict(train_labels=torch.tensor([0, 2])), '0..1, got 0..2'), (dict(train_labels=torch.tensor([-1, 1])), '-1..1'),
    (dict(k=0), 'at least 1'), (dict(temperature=0.), 'positive'), (dict(temperature=math.nan), 'positive')])
def test_what_does_not_fit_is_a_value_error(change, words):
    good = dict(train_features=unit([0, 90]), train_labels=torch.tensor([0, 1]), test_features=unit([1]), num_classes=2)
    with pytest.raises(ValueError, match=words):
        knn_predict(**{**good, **change})
