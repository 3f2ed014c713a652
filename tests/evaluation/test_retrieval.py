"""Image retrieval: average precision by scikit-learn, ties, chunks, and sizes that go wrong."""
import json

import pytest
import timm
import torch
from PIL import Image
from sklearn.metrics import average_precision_score
from timm.data import create_transform, resolve_model_data_config

from timm_smalldata.cli.eval import main
from timm_smalldata.evaluation import retrieval_scores


def by_sklearn(features, labels):
    features = features.double() / features.double().norm(dim=1, keepdim=True)
    values = []
    for i in range(len(labels)):
        others = [j for j in range(len(labels)) if j != i]
        right = [int(labels[j] == labels[i]) for j in others]
        values.append(average_precision_score(right, (features[others] @ features[i]).numpy()) if any(right) else None)
    return values


@pytest.mark.parametrize('chunk', [None, 1, 7])
def test_average_precision_is_that_of_scikit_learn(chunk):
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(0, 5, (30,), generator=generator)
    features = torch.randn(30, 4, generator=generator) * torch.linspace(0.1, 9, 30)[:, None]
    found = retrieval_scores(features, labels, 3, chunk)
    known = by_sklearn(features, labels)
    assert found['average_precision'].tolist() == pytest.approx(known)
    assert found['nearest'].shape == (30, 3) and not (found['nearest'] == torch.arange(30)[:, None]).any()


def test_equal_images_alone_in_a_class_and_ties():
    found = retrieval_scores(torch.ones(4, 3), torch.tensor([0, 1, 0, 2]), k=9)
    assert found['nearest'].tolist() == [[1, 2, 3], [0, 2, 3], [0, 1, 3], [0, 1, 2]]  # the earlier image first
    assert found['average_precision'].tolist() == pytest.approx([1 / 2, torch.nan, 1, torch.nan], nan_ok=True)


@pytest.mark.parametrize('features, labels, k, words', [
    (torch.zeros(1, 2), [0], 1, 'two or more images'), (torch.zeros(3, 2), [0, 1], 1, 'Expected'),
    (torch.zeros(2, 2), [0, 0], 0, 'k of at least 1'), (torch.zeros(0, 2), [], 1, 'no training image')])
def test_what_does_not_fit_is_a_value_error(features, labels, k, words):
    with pytest.raises(ValueError, match=words):
        retrieval_scores(features, torch.tensor(labels, dtype=torch.long), k)


@pytest.fixture
def model(tmp_path):
    from timm_smalldata.data.classes import ClassInfo
    from timm_smalldata.hub.export import export_model
    torch.manual_seed(0)
    built = timm.create_model('test_vit', num_classes=2, img_size=32)
    config = {**resolve_model_data_config(built), 'input_size': (3, 32, 32), 'crop_pct': 1.0}
    export_model(built, tmp_path / 'model', classes=ClassInfo(['x', 'y'], [1, 1]), data_config=config, metadata={})
    return tmp_path / 'model'


def test_any_labelled_folder(model, photos, tmp_path, capsys, monkeypatch):
    """A model of other classes, on a folder without splits; the number by stock timm and scikit-learn."""
    monkeypatch.chdir(tmp_path)
    assert main([str(model), str(photos), '--probe', 'retrieval', '--output', 'out', '--device', 'cpu']) == 0
    out, err = capsys.readouterr()
    report = json.loads((tmp_path / 'out/retrieval.json').read_text())
    files = sorted(photos.glob('*/*'))
    net = timm.create_model(f'local-dir:{model}', pretrained=True, num_classes=0).eval()
    transform = create_transform(**resolve_model_data_config(net))
    with torch.no_grad():
        features = net(torch.stack([transform(Image.open(file).convert('RGB')) for file in files]))
    labels = [file.parent.name for file in files]
    known = by_sklearn(features, labels)
    assert report['map'] == pytest.approx(100 * sum(known) / len(known), abs=1e-2)
    assert set(report['map_by_class']) == set(labels) and report['queries'] == len(files) == report['num_images']
    assert f'mean average precision                  {report["map"]:6.2f} %' in out and 'neighbours.png' in err
    with Image.open(tmp_path / 'out/neighbours.png') as picture:
        assert picture.format == 'PNG' and picture.width > 600


def test_one_image_per_class(model, tmp_path, capsys):
    for name in ('ant', 'bee'):
        (tmp_path / 'few' / name).mkdir(parents=True)
        Image.new('RGB', (32, 32), name == 'ant' and 'red' or 'blue').save(tmp_path / 'few' / name / '0.png')
    assert main([str(model), str(tmp_path / 'few'), '--probe', 'retrieval', '--device', 'cpu']) == 2
    assert 'no class of' in capsys.readouterr().err.splitlines()[-1]
