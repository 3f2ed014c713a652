"""What a task brings along, who goes before it, and which flags do not go with it."""
import pytest

from timm_smalldata.config.plan import finish_stage, plan
from timm_smalldata.errors import UserError

CROPS = ('idmm', 'simclr', 'supcon')


def settings(*argv):
    stage = plan(list(argv))[0]
    finish_stage(stage)
    return stage.settings


@pytest.mark.parametrize('task', CROPS)
def test_published_settings(task):
    s = settings('photos', '--task', task)
    args = s.namespace()
    base = 256 if task == 'idmm' else 512
    assert (args.opt, args.lr, args.lr_base, args.lr_base_size, args.weight_decay) == ('adamw', None, 5e-4, base, 1e-3)
    assert args.opt_kwargs == dict(filter_bias_and_bn=False)
    assert (args.img_size, args.epochs, args.warmup_epochs, args.warmup_lr, args.min_lr) == (112, 800, 2, 0, 0)
    assert args.batch_size == base and args.drop_path == 0.1 and args.contrastive_dim == 256
    assert (args.color_jitter, args.color_jitter_prob, args.grayscale_prob, args.gaussian_blur_prob) == (
        [0.8, 0.8, 0.8, 0.2], 0.8, 0.2, 0.5)
    assert (args.train_crop_mode, args.scale, args.train_interpolation, args.reprob, args.hflip) == (
        'rrc', [0.14, 1.0], 'bilinear', 0.0, 0.5)
    assert s.source('weight_decay') == f'--task {task}' and not s.is_set('smoothing')
    assert (args.idmm_multicrop, args.idmm_cutmix, args.idmm_smoothing) == (True, True, 0.1)


def test_weight_decay_reaches_every_parameter():
    import timm

    from timm_smalldata.build.optimizer import create_optimizer
    from timm_smalldata.task import create_task
    task = create_task('idmm', timm.create_model('test_vit', num_classes=0), num_images=5, verbose=False)
    args = settings('photos', '--task', 'idmm').namespace()
    args.lr = 1e-3
    group, = create_optimizer(args, task.get_trainable_module()).param_groups
    assert group['weight_decay'] == 1e-3 and len(group['params']) == len(list(task.parameters()))
    args.opt_kwargs = {}  # as for a classifier: not on biases and norms
    without = {id(p) for g in create_optimizer(args, task.get_trainable_module()).param_groups
               if not g['weight_decay'] for p in g['params']}
    named = dict(task.get_trainable_module().named_parameters())
    assert id(named['backbone.norm.weight']) in without and id(named['head.weight']) not in without


def test_flags_files_and_samples_go_before_the_task(tmp_path):
    path = tmp_path / 'x.yaml'
    path.write_text('epochs: 7\ncolor-jitter: [0.4]\n')
    s = settings('photos', '-c', str(path), '--task', 'idmm', '--scale', '0.3', '1')
    assert (s.get('epochs'), s.get('color_jitter'), s.get('scale')) == (7, [0.4], [0.3, 1.0])
    assert settings('photos', '--task', 'idmm', '--time-budget', '3m').source('epochs') is None
    s = settings('--task', 'idmm')  # the sample of digits
    assert (s.get('img_size'), s.get('hflip'), s.get('batch_size')) == (32, 0.0, 32)
    assert s.get('train_crop_mode') == 'rrc' and '--train-crop-mode src (sample/digits) gives way to --task idmm' \
        in s.notes


@pytest.mark.parametrize('flags', [
    '--loss ce', '--loss balanced-bce', '--smoothing 0', '--mixup 0.8', '--cutmix 1', '--aug three-augment', '--no-aug',
    '--aa 3a', '--train-crop-mode src', '--loss-tau 1', '--aug-splits 3', '--layer-decay 0.7', '--drw-epoch 3',
    '--head-init-scale 0.1', '--freeze-backbone'])
@pytest.mark.parametrize('task', CROPS)
def test_flags_of_a_classifier_are_refused(task, flags):
    with pytest.raises(UserError) as error:
        settings('photos', '--task', task, *flags.split())
    text = str(error.value)
    assert f'does not go with --task {task}' in text and '(command line)' in text and '\n' not in text


@pytest.mark.parametrize('argv', [
    '--no-idmm-multicrop', '--idmm-smoothing 0.2', '--task simclr --no-idmm-cutmix', '--contrastive-temperature 0.1',
    '--task idmm --contrastive-temperature 0.1', '--task simclr --aug-repeats 3', '--task idmm --idmm-smoothing 1',
    '--task simclr --contrastive-temperature 0'])
def test_flags_of_a_task_do_not_go_with_others(argv):
    with pytest.raises(UserError, match='--(no-)?(idmm|contrastive|aug)'):
        settings('photos', *argv.split())


def test_what_agrees_with_the_task_is_no_contradiction():
    assert settings('photos', '--task', 'idmm', '--train-crop-mode', 'rrc').get('train_crop_mode') == 'rrc'
    assert settings('photos', '--task', 'supcon', '--no-idmm-multicrop').get('idmm_multicrop') is False


def test_a_file_below_gives_way_with_all_that_it_brought(tmp_path):
    path = tmp_path / 'x.yaml'
    path.write_text('aug: three-augment\nloss: bce\nmixup: 0.8\n')
    s = settings('photos', '-c', str(path), '--task', 'idmm')
    assert s.get('aug') is None and s.get('aa') is None and s.get('mixup') == 0.0 and not s.is_set('bce_target_thresh')
    assert s.get('color_jitter') == [0.8, 0.8, 0.8, 0.2] and s.get('train_interpolation') == 'bilinear'
    for words in ('--aug three-augment', '--loss bce', '--mixup 0.8'):
        assert any(note.startswith(words) and note.endswith('gives way to --task idmm') for note in s.notes), words


def test_a_flag_for_one_stage_is_left_out_in_the_other(tmp_path, monkeypatch):
    from timm_smalldata.config import recipe as module
    (tmp_path / 'two.yaml').write_text(
        'stages:\n- {name: look, flags: {task: idmm}}\n- {name: learn, from: look, flags: {loss: ce}}\n')
    monkeypatch.setattr(module, 'RECIPES', tmp_path)
    look, learn = plan('photos --recipe two --mixup 0.8 --idmm-smoothing 0'.split())
    finish_stage(look), finish_stage(learn)
    assert look.settings.get('mixup') == 0.0 and look.settings.get('idmm_smoothing') == 0.0
    assert learn.settings.get('mixup') == 0.8 and not learn.settings.is_set('idmm_smoothing')
    assert any('--mixup 0.8' in note for note in look.settings.notes)
    look, _ = plan('photos --recipe two --look.mixup 0.8'.split())
    with pytest.raises(UserError, match='--mixup 0.8 .* does not go with --task idmm'):
        finish_stage(look)
