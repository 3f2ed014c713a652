"""Tools on a finished classifier: against their definitions, and beside the raw numbers of both commands."""
import json

import numpy as np
import pytest
import timm
import torch
import torch.nn.functional as F

from timm_smalldata.errors import UserError
from timm_smalldata.evaluation.posthoc import adjust_logits, fit_temperature, tau_normalise
from timm_smalldata.posthoc import tau_normalised


def test_adjusted_logits_decide_as_bayes_would_without_the_prior():
    """Two unit Gaussians at -1 and 1, prior 99 : 1: the posterior decides at log 99 / 2, the adjusted one at 0."""
    x = torch.linspace(-4, 4, 801, dtype=torch.float64)
    prior = torch.tensor([99.0, 1.0])
    logits = torch.stack([-(x + 1) ** 2 / 2, -(x - 1) ** 2 / 2], 1) + (prior / prior.sum()).log()
    first = lambda scores: float(x[scores.argmax(1) == 1].min())  # noqa: E731
    assert abs(first(logits) - np.log(99) / 2) < 0.011
    assert abs(first(adjust_logits(logits, prior))) < 0.011
    assert torch.equal(adjust_logits(logits, prior, 0.0), logits)
    assert torch.isfinite(adjust_logits(torch.zeros(1, 2), [5, 0])).all()
    with pytest.raises(ValueError, match='3 counts'):
        adjust_logits(torch.zeros(1, 2), [1, 2, 3])


def test_tau_normalised_vectors():
    weight = torch.randn(5, 7)
    assert torch.equal(tau_normalise(weight, 0.0), weight)
    torch.testing.assert_close(tau_normalise(weight, 1.0), F.normalize(weight))
    torch.testing.assert_close(tau_normalise(weight, 0.5).norm(dim=1), weight.norm(dim=1).sqrt())


def test_temperature_against_a_grid():
    generator = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(300, 4, generator=generator)
    labels = torch.multinomial((logits / 2.5).softmax(1), 1, generator=generator).squeeze(1)
    grid = torch.linspace(0.5, 10, 9501, dtype=torch.float64)
    losses = torch.stack([F.cross_entropy(logits.double() / t, labels) for t in grid])
    assert abs(fit_temperature(logits, labels) - float(grid[losses.argmin()])) < 2e-3
    assert fit_temperature(logits, logits.argmax(1)) == pytest.approx(0.01)  # all right: as sure as the limit allows
    assert fit_temperature(logits, logits.argmin(1)) == pytest.approx(100)
    with pytest.raises(ValueError, match='without images'):
        fit_temperature(logits[:0], labels[:0])


def test_a_model_with_tau_normalised_heads():
    model = timm.create_model('test_resnet', num_classes=4).eval()
    torch.nn.init.normal_(model.fc.bias)
    rescaled = tau_normalised(model, 1.0)
    x = torch.randn(2, 3, 64, 64)
    features = model.forward_head(model.forward_features(x), pre_logits=True)
    torch.testing.assert_close(rescaled(x), features @ F.normalize(model.fc.weight).T)
    assert model.fc.bias.abs().sum() > 0  # the model itself stays
    with pytest.raises(UserError, match='linear classifier'):
        tau_normalised(timm.create_model('test_resnet', num_classes=0), 1.0)


TOOLS = ['--posthoc-tau', '1', '--tau-norm', '0.5', '--temperature']


@pytest.fixture
def three(photo_folder):
    for split in ('val', 'test'):
        photo_folder(f'data/{split}')
    return photo_folder('data/train').parent


def test_beside_the_raw_numbers(run, three, tmp_path):
    code, _, plain = run([three, '--experiment', 'plain'])
    assert code == 0 and 'beside the raw numbers' not in plain
    code, _, err = run([three, *TOOLS])
    assert code == 0
    report, bare = (json.loads((tmp_path / f'runs/{name}/report.json').read_text()) for name in ('e', 'plain'))
    beside = report.pop('posthoc')
    assert {k: v for k, v in report.items() if k != 'timing'} == {k: v for k, v in bare.items() if k != 'timing'}
    assert set(beside) == {'logit_adjustment', 'tau_norm', 'temperature'}
    assert beside['temperature']['top1'] == report['top1'] and beside['temperature']['fitted_on'] == 'val'
    for words in ('beside the raw numbers', 'logits - tau log prior 1', 'tau-normalised head 0.5', 'temperature '):
        assert words in err

    # by hand: the exported model on the test images
    from timm_smalldata.evaluation import calibration_error
    model = timm.create_model(f'local-dir:{tmp_path}/runs/e/model', pretrained=True).eval()
    transform = timm.data.create_transform((3, 32, 32), crop_pct=1.0, interpolation='bicubic',
                                           mean=model.pretrained_cfg['mean'], std=model.pretrained_cfg['std'])
    dataset = timm.data.create_dataset('', root=str(three / 'test'), transform=transform)
    images, labels = zip(*dataset)
    with torch.no_grad():
        logits = model(torch.stack(images))
    labels = torch.tensor(labels)
    adjusted = logits - torch.tensor([12.0, 8.0, 6.0]).div(26).log()
    right = (adjusted.argmax(1) == labels).float().mean().item()
    assert beside['logit_adjustment']['top1'] == pytest.approx(100 * right)
    scaled = (logits / beside['temperature']['temperature']).softmax(1)
    assert beside['temperature']['ece'] == pytest.approx(100 * calibration_error(scaled, labels)['ece'], abs=1e-3)

    # the eval command says the same of the same run, and of a model folder with named images
    from timm_smalldata.evaluation.__main__ import main
    assert main(['runs/e', *TOOLS, '--output', 'again']) == 0
    again = json.loads((tmp_path / 'again/report.json').read_text())['posthoc']
    assert again == beside
    assert main(['runs/e/model', str(three), *TOOLS, '--output', 'named']) == 0
    assert json.loads((tmp_path / 'named/report.json').read_text())['posthoc'] == beside


def test_bad_input(run, three, tmp_path, capsys):
    code, _, err = run([three, '--val-fraction', '0', '--posthoc-tau', '-1'])
    assert code == 2 and '--posthoc-tau' in err and 'at least 0' in err
    (three / 'val').rename(tmp_path / 'elsewhere')
    code, _, err = run([three, '--val-fraction', '0', '--temperature'])
    assert code == 2 and err.strip().splitlines()[-1].startswith('error: --temperature is fitted on validation images')
    assert run([three, '--val-fraction', '0', '--select', 'last'])[0] == 0
    from timm_smalldata.evaluation.__main__ import main
    assert main(['runs/e/model', str(three / 'test'), '--temperature']) == 2
    assert '--temperature is fitted on validation images' in capsys.readouterr().err


@pytest.mark.parametrize('flags, twice', [
    (['--loss', 'vector-scaling', '--sampler', 'sqrt'], '--loss vector-scaling and --sampler sqrt'),
    (['--loss', 'balanced-bce', '--posthoc-tau', '1'], '--loss balanced-bce and --posthoc-tau 1'),
    (['--sampler-power', '0.5', '--drw-epoch', '0'], '--sampler-power 0.5 and --drw-epoch 0'),
    (['--loss', 'class-balanced-ce', '--drs-epoch', '0'], '--drs-epoch 0 and --loss class-balanced-ce'),
    (['--loss', 'ce', '--sampler', 'sqrt'], ''),
    (['--loss', 'balanced-bce', '--loss-tau', '0', '--posthoc-tau', '1'], '')])
def test_a_prior_corrected_twice_is_told_once(run, three, flags, twice):
    code, _, err = run([three, *flags])
    assert code == 0 and err.count('each correct for the uneven classes') == bool(twice) and twice in err
