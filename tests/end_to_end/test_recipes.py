"""Every recipe at the scale of the sample: all stages in a row, of one epoch each; what comes out opens in timm."""
import json

import pytest
import timm
import torch

import train_smalldata
from timm_smalldata.config.plan import finish_stage, plan
from timm_smalldata.config.recipe import RECIPES, load_recipe, recipe_names
from timm_smalldata.errors import UserError

SCALED = [name for name in recipe_names() if load_recipe(name)['scales']]
SHORT = ['--epochs', '1', '--warmup-epochs', '0', '--drw-epoch', '0', '--device', 'cpu', '--imbalance-factor', '40']


def settings(*argv):
    stages = plan(list(argv))
    for stage in stages:
        finish_stage(stage)
    return [stage.settings for stage in stages]


@pytest.mark.parametrize('name', SCALED)
def test_every_stage_runs_on_the_sample(name, tmp_path, capsys):
    short = [word for word in SHORT]
    if not any(s.is_set('drw_epoch') for s in settings('--recipe', name)):
        del short[4:6]
    assert train_smalldata.main(['--recipe', name, *short, '--output', str(tmp_path), '--experiment', 'e']) == 0
    stages = plan(['--recipe', name])
    folders = [tmp_path / 'e' / stage.folder for stage in stages]
    for folder in folders:
        config = json.loads((folder / 'model' / 'config.json').read_text())
        assert config['num_classes'] == (0 if folder.name.endswith('pretrain') else 10)
        again, = plan(['-c', str(folder / 'args.yaml')])  # the same run without its recipe
        finish_stage(again)
    model = timm.create_model(f'local-dir:{folders[-1] / "model"}', pretrained=True)
    size = model.pretrained_cfg['input_size'][-1]
    with torch.no_grad():
        assert model.eval()(torch.zeros(1, 3, size, size)).shape == (1, 10)
    written = [path.stat().st_mtime_ns for path in folders[-1].glob('model/*')]
    capsys.readouterr()
    assert train_smalldata.main(['--recipe', name, *short, '--output', str(tmp_path), '--experiment', 'e']) == 0
    assert capsys.readouterr().err.count('is finished') == len(stages)  # said again, nothing is trained twice
    assert [path.stat().st_mtime_ns for path in folders[-1].glob('model/*')] == written


@pytest.mark.parametrize('name', SCALED)
def test_scales(name):
    """The paper's settings where data are named, the sample's where not, and whatever is asked for."""
    recipe = load_recipe(name)
    assert {'sample', 'cpu', 'cpu-long', 'paper'} <= set(recipe['scales'])
    for s in settings('photos', '--recipe', name):
        assert s.get('recipe_scale') == 'paper'
    for s in settings('--recipe', name):
        assert s.get('recipe_scale') == 'sample' and s.get('dataset') == 'sample/digits'
    for scale in recipe['scales']:
        for s in settings('photos', '--recipe', name, '--scale', scale):
            assert s.get('recipe_scale') == scale
    head = (RECIPES / f'{name}.yaml').read_text().split('summary:')[0]
    assert 'arXiv' in head and f'--recipe {name}' in head and 'For ' in head


def test_a_name_is_a_scale_and_numbers_are_an_area():
    pretrain, finetune, _ = settings('photos', '--recipe', 'idmm', '--scale', 'cpu', '--finetune.scale', '0.5', '1')
    assert pretrain.get('recipe_scale') == 'cpu' and finetune.get('scale') == [0.5, 1.0]
    with pytest.raises(UserError, match="no such scale: did you mean 'sample'|no such scale.*sample"):
        plan(['--recipe', 'idmm', '--scale', 'sampel'])
    with pytest.raises(UserError, match='name one with --recipe'):
        plan(['photos', '--scale', 'cpu'])
    with pytest.raises(UserError, match='one scale only'):
        plan(['photos', '--recipe', 'crt', '--scale', 'cpu'])


def test_published_settings():
    """What the papers' own commands say; a few numbers each that a slip would change."""
    pretrain, finetune, high = settings('photos', '--recipe', 'idmm')
    assert [s.get('img_size') for s in (pretrain, finetune, high)] == [112, 224, 448]
    assert [s.get('epochs') + s.get('warmup_epochs') for s in (pretrain, finetune, high)] == [800, 800, 100]
    assert high.get('lr') == 5e-5 and high.get('warmup_prefix')
    pretrain, finetune = settings('photos', '--recipe', 'livt')
    assert pretrain.get('batch_size') * pretrain.get('grad_accum_steps') == 4096
    assert pretrain.get('mae_decoder_depth') == 8
    assert (finetune.get('loss'), finetune.get('layer_decay'), finetune.get('opt_betas')) == (
        'balanced-bce', 0.75, [0.9, 0.99])
    low, high = settings('photos', '--recipe', 'deit3')
    assert (low.get('opt'), low.get('lr'), low.get('loss'), low.get('img_size')) == ('lamb', 3e-3, 'bce', 192)
    assert (high.get('opt'), high.get('lr'), high.get('loss'), high.get('img_size')) == ('adamw', 1e-5, 'ce', 224)
    assert low.get('drop_path_constant') and low.get('model_kwargs') == dict(init_values=1e-4)
    teacher, student = settings('photos', '--recipe', 'deit-lt')
    assert (teacher.get('sam_rho'), teacher.get('drw_epoch'), teacher.get('lr')) == (0.8, 160, 0.1)
    assert (student.get('epochs'), student.get('drw_epoch'), student.get('lr')) == (1200, 1100, 2.5e-4)
    teacher, student = settings('photos', '--recipe', 'deit-lt', '--scale', 'paper-imagenet-lt')
    assert teacher.get('sam_rho') is None and teacher.get('sam_rho_schedule') == '0:0.05 5:0.1 60:0.5'
    assert student.get('batch_size') * student.get('grad_accum_steps') == 2048 and not student.get('mixup_off_drw')


@pytest.mark.parametrize('length', [['--epochs', '30'], ['--time-budget', '1h'], ['--pretrain.epochs', '30']])
def test_a_length_of_your_own_holds_the_warm_up(length):
    """At the paper's scale the warm-up comes before the epochs; those that a user asks for are all there are."""
    pretrain, finetune = settings('photos', '--recipe', 'livt', *length)
    assert not pretrain.get('warmup_prefix') and not pretrain.is_set('warmup_epochs')
    assert any('the warm-up of recipe livt at scale paper gives way to' in note for note in pretrain.notes)
    assert bool(finetune.get('warmup_prefix')) == ('pretrain' in length[0])
    pretrain, _ = settings('photos', '--recipe', 'livt')
    assert (pretrain.get('epochs'), pretrain.get('warmup_epochs'), pretrain.get('warmup_prefix')) == (760, 40, True)


def test_a_teacher_of_your_own_takes_the_place_of_the_stage():
    stage, = plan(['photos', '--recipe', 'deit-lt', '--teacher', 'output/t'])
    assert stage.name == 'student' and stage.taught_by is None and stage.settings.get('teacher') == 'output/t'


def test_a_dry_run_shows_what_it_can(tmp_path, capsys):
    assert train_smalldata.main(['--recipe', 'deit-lt', '--dry-run', '--device', 'cpu', '--output', str(tmp_path)]) == 0
    assert 'its teacher is the model of stage teacher' in capsys.readouterr().err
