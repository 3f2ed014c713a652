"""Tools on a finished classifier: against their definitions, and beside the raw numbers of both commands."""
import json

import numpy as np
import pytest
import timm
import torch
import torch.nn.functional as F

from timm_smalldata.build.model import check_head
from timm_smalldata.config.settings import Settings
from timm_smalldata.data.classes import ClassInfo
from timm_smalldata.engine.posthoc import METRICS, run_posthoc, tau_normalised
from timm_smalldata.errors import UserError
from timm_smalldata.evaluation.correction import adjust_logits, fit_temperature, tau_normalise
from timm_smalldata.models.cosine import set_cosine_head
from timm_smalldata.report.table import format_posthoc
from timm_smalldata.task import ClassificationTask


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


def tools(**given):
    layers = Settings()
    layers.layer(given, 'test')
    return layers.namespace()


def test_both_heads_of_a_distilled_model_are_tau_normalised():
    model = timm.create_model(
        'deit_tiny_distilled_patch16_224', img_size=32, patch_size=16, embed_dim=12, depth=1, num_heads=3,
        num_classes=4).eval()
    check_head(tools(tau_norm=1.0), model)
    rescaled = tau_normalised(model, 1.0)
    x = torch.randn(2, 3, 32, 32)
    tokens = model.forward_features(x)
    sides = [tokens[:, i] @ F.normalize(head.weight).T for i, head in enumerate((model.head, model.head_dist))]
    torch.testing.assert_close(rescaled(x), (sides[0] + sides[1]) / 2)


def test_a_classifier_that_is_not_linear_is_refused():
    model = timm.create_model('test_resnet', num_classes=4)
    set_cosine_head(model)
    check_head(tools(tau_norm=1.0), model)  # it is folded into a linear one before it is judged
    other = timm.create_model('levit_128s', num_classes=4)
    check_head(tools(posthoc_tau=1.0, temperature=True), other)
    with pytest.raises(UserError, match='linear classifier; this one, head, is NormLinear'):
        check_head(tools(tau_norm=1.0), other)


def test_a_process_without_images_takes_part():
    model = timm.create_model('test_resnet', num_classes=3)
    task = ClassificationTask(model, criterion=torch.nn.CrossEntropyLoss(), verbose=False).configure(
        classes=ClassInfo(['a', 'b', 'c'], [9, 5, 2]))
    results = run_posthoc(task, model, [], None, [9, 5, 2], posthoc_tau=1.0, tau_norm=1.0)
    assert all(values['balanced_top1'] is None for values in results.values()) and len(results) == 2


def test_table_fits_the_screen():
    row = dict.fromkeys(METRICS, 100.0)
    tool = dict(row, medium=None, ece=1.234)
    report = dict(row, posthoc=dict(logit_adjustment=dict(tool, tau=1.0), temperature=dict(tool, temperature=12.3456)))
    lines = format_posthoc(report)
    assert max(map(len, lines)) <= 100 and lines[0] == '' and len(lines) == 5
    assert lines[1].split()[-len(METRICS):] == list(METRICS)
    assert lines[2].split() == ['raw', *['100.00'] * 7]
    assert lines[4].split() == ['temperature', '12.35', '100.00', '100.00', '100.00', '-', '100.00', '1.23', '100.00']
    assert format_posthoc(row) == []


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
    from timm_smalldata.cli.eval import main
    assert main(['runs/e', *TOOLS, '--output', 'again']) == 0
    again = json.loads((tmp_path / 'again/report.json').read_text())['posthoc']
    assert again == beside
    assert main(['runs/e/model', str(three), *TOOLS, '--output', 'named']) == 0
    assert json.loads((tmp_path / 'named/report.json').read_text())['posthoc'] == beside


def test_a_resumed_run_says_the_same(run, three, tmp_path):
    def report(name):
        return {k: v for k, v in json.loads((tmp_path / f'runs/{name}/report.json').read_text()).items()
                if k != 'timing'}

    flags = [three, *TOOLS, '--epochs', '2']
    assert run([*flags, '--experiment', 'whole'])[0] == 0
    assert run([*flags, '--stop-epoch', '1'])[0] == 0
    assert run([*flags, '--resume', 'auto'])[0] == 0
    assert report('e') == report('whole') and len(report('e')['posthoc']) == 3
    code, _, err = run([*flags, '--posthoc-tau', '2', '--resume', 'auto'])  # it changes the result
    assert code == 2 and '--posthoc-tau 1.0 -> 2.0' in err


def test_bad_input(run, three, tmp_path, capsys):
    code, _, err = run([three, '--val-fraction', '0', '--posthoc-tau', '-1'])
    assert code == 2 and '--posthoc-tau' in err and 'at least 0' in err
    (three / 'val').rename(tmp_path / 'elsewhere')
    code, _, err = run([three, '--val-fraction', '0', '--temperature'])
    assert code == 2 and err.strip().splitlines()[-1].startswith('error: --temperature is fitted on validation images')
    assert run([three, '--val-fraction', '0', '--select', 'last'])[0] == 0
    from timm_smalldata.cli.eval import main
    assert main(['runs/e/model', str(three / 'test'), '--temperature']) == 2
    assert '--temperature is fitted on validation images' in capsys.readouterr().err


def test_a_temperature_is_not_judged_on_the_images_it_was_fitted_to(run, three, tmp_path, capsys):
    from timm_smalldata.cli.eval import main
    assert run([three])[0] == 0
    for argv in (['runs/e', '--split', 'val'], ['runs/e', '--split', 'all'], ['runs/e', str(three), '--split', 'val'],
                 ['runs/e', str(three), '--split', 'all']):
        assert main([*argv, '--temperature']) == 2
        assert f'cannot be judged on them (here the split {argv[-1]})' in capsys.readouterr().err
    (three / 'test').rename(tmp_path / 'elsewhere')
    code, _, err = run([three, '--temperature', '--experiment', 'two'])
    assert code == 2 and 'here the split val' in err and '--test-fraction' in err
    assert run([three, '--temperature', '--experiment', 'two', '--test-fraction', '0.2'])[0] == 0


def test_a_head_is_refused_before_the_training(run, three, tmp_path):
    code, _, err = run([three, '--model', 'levit_128s', '--img-size', '224', '--tau-norm', '1'])
    assert code == 2 and '--tau-norm rescales a linear classifier' in err
    assert not (tmp_path / 'runs/e/last.pth.tar').exists()


def test_eval_tells_that_the_training_took_the_prior_out(run, three, capsys):
    from timm_smalldata.cli.eval import main
    words = 'each correct for the uneven classes'
    for loss, twice in (('balanced-softmax', True), ('ce', False)):
        assert run([three, '--loss', loss, '--experiment', loss])[0] == 0
        for given in (['--posthoc-tau', '1'], ['--tau-norm', '1']):
            assert main([f'runs/{loss}', *given]) == 0
            assert capsys.readouterr().err.count(words) == (twice and '--posthoc-tau' in given)


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
