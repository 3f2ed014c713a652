"""Macro F1, AUROC and ROC curves, against definitions written out."""
import numpy as np
import pytest
import torch

from timm_smalldata.evaluation.ranking import KeepScores, ranking_metrics


def kept(logits, labels, sizes):
    watch, start = KeepScores(), 0
    for size in sizes:
        part = slice(start, start + size)
        watch(logits[part], labels[part], torch.arange(len(labels))[part])
        start += size
    return watch.parts


@pytest.fixture
def judged():
    logits, labels = torch.randn(60, 4), torch.arange(60) % 3  # class 3 has no images
    logits[range(60), labels] += 1
    return logits, labels


def test_f1_and_area_are_what_they_are_defined_to_be(judged):
    logits, labels = judged
    found = ranking_metrics(kept(logits, labels, [60]), dict(many=[0], few=[1, 3], medium=[3]))
    predicted, scores = logits.argmax(1), logits.softmax(1)
    f1, areas = [], []
    for c in range(3):
        right = int(((predicted == c) & (labels == c)).sum())
        f1.append(2 * right / int((predicted == c).sum() + (labels == c).sum()))
        own, others = scores[labels == c, c], scores[labels != c, c]
        areas.append(((own[:, None] > others[None]).float().mean()).item())  # a pair in the right order
    assert found['macro_f1'] == pytest.approx(100 * np.mean(f1))
    assert found['auroc'] == pytest.approx(100 * np.mean(areas), abs=1e-3)
    assert set(found['roc']) == {'false_positives', 'all', 'many', 'few'}  # no curve where there is no image
    for name in ('all', 'many', 'few'):
        curve = found['roc'][name]
        assert curve[0] == 0 and curve[-1] == 100 and curve == sorted(curve)
    false, true = np.array(found['roc']['false_positives']) / 100, np.array(found['roc']['many']) / 100
    assert ((true[1:] + true[:-1]) / 2 * np.diff(false)).sum() == pytest.approx(areas[0], abs=0.02)


def test_batches_processes_and_images_that_are_shown_twice_change_nothing(judged):
    logits, labels = judged
    whole = ranking_metrics(kept(logits, labels, [60]))
    shares = kept(logits, labels, [7, 20, 33])
    assert ranking_metrics([shares[2], shares[0], shares[1], shares[0]]) == whole


def test_what_cannot_be_told_is_left_out(judged):
    logits, labels = judged
    assert ranking_metrics([]) == {}
    watch = KeepScores(most=100)
    watch(logits[:20], labels[:20], torch.arange(20)), watch(logits[20:], labels[20:], torch.arange(20, 60))
    assert watch.parts == [] and watch.kept == 240
    assert ranking_metrics(kept(logits * float('nan'), labels, [60])) == {}
    one = ranking_metrics(kept(logits[labels == 0], labels[labels == 0], [20]))
    assert one['auroc'] is None and one['roc'] is None and 0 < one['macro_f1'] <= 100
