"""What each loss and each augmentation preset brings along, pinned; who gives way to whom; what contradicts."""
import itertools

import pytest

from timm_smalldata.config.auto import learning_rate
from timm_smalldata.config.plan import finish_stage, plan
from timm_smalldata.errors import UserError

LOSSES = {  # smoothing, tau, threshold of bce, sum over classes, splits
    'ce': (0.1, None, None, False, 0),
    'bce': (0.0, None, 0.0, False, 0),
    'asl': (0.1, None, None, False, 0),
    'poly': (0.1, None, None, False, 0),
    'jsd': (0.1, None, None, False, 3),
    'balanced-bce': (0.0, 1.0, None, False, 0),
    'balanced-softmax': (0.0, None, None, False, 0),
    'logit-adjusted': (0.0, 1.0, None, False, 0),
    **dict.fromkeys(('focal', 'class-balanced-ce', 'class-balanced-focal', 'label-aware-smoothing', 'vector-scaling',
                     'ldam', 'lade'), (0.0, None, None, False, 0)),
}
AUGS = {  # aa, jitter, interpolation, erasing, crop, flip
    None: (None, [0.4], 'bicubic', 0.0, 'rrc', 0.5),
    'three-augment': ('3a', [0.3], 'bicubic', 0.0, 'rrc', 0.5),
    'rand-augment': ('rand-m9-mstd0.5-inc1', [0.3], 'bicubic', 0.25, 'rrc', 0.5),
    'none': (None, None, 'bicubic', 0.0, 'none', 0.0),
}


def settings(*argv):
    stage = plan(list(argv))[0]
    finish_stage(stage)
    return stage.settings


@pytest.mark.parametrize('loss, aug', itertools.product(LOSSES, AUGS))
def test_resolved_settings_of_every_loss_with_every_preset(loss, aug):
    s = settings('photos', '--loss', loss, *(['--aug', aug] if aug else []), *(['--head', 'cosine'] * (loss == 'ldam')))
    args = s.namespace()
    assert args.lade_weight == (0.1 if loss == 'lade' else None)
    assert (args.drw_epoch, args.drs_epoch, args.sampler, args.aug_repeats) == (None, None, 'instance', 0)
    assert (args.smoothing, args.loss_tau, args.bce_target_thresh, args.bce_sum, args.aug_splits) == LOSSES[loss]
    assert (args.aa, args.color_jitter, args.train_interpolation, args.reprob, args.train_crop_mode, args.hflip) \
        == AUGS[aug]
    assert (args.opt, args.weight_decay, args.lr, args.lr_base, args.lr_base_size) == ('adamw', 0.05, None, 1e-3, 256)
    assert learning_rate(args.lr_base, args.lr_base_size, args.lr_base_scale, args.opt, 1024) == 2e-3


def test_no_loss_is_left_out():
    from timm_smalldata.loss import LOSS_NAMES
    assert set(LOSSES) == set(LOSS_NAMES)


def test_three_augment_is_the_published_transform():
    from timm_smalldata.build.views import create_views
    args = settings('photos', '--aug', 'three-augment').namespace()
    args.img_size, args.scale = 224, [0.08, 1.0]
    view, _ = create_views(args, dict(mean=(.5,) * 3, std=(.5,) * 3, crop_pct=1.0, interpolation='bicubic'))
    assert (view.augment.auto_augment, view.augment.color_jitter, view.erase.prob) == ('3a', 0.3, 0.0)
    assert (view.crop.mode, view.crop.scale, view.crop.interpolation, view.crop.hflip) == (
        'rrc', (0.08, 1.0), 'bicubic', 0.5)


def test_a_flag_takes_the_place_of_what_a_loss_brings():
    s = settings('photos', '--loss', 'balanced-bce', '--smoothing', '0.1')
    assert s.get('smoothing') == 0.1 and s.source('smoothing') == 'command line'


def test_a_higher_source_silences_a_lower_one_with_a_line(tmp_path):
    path = tmp_path / 'x.yaml'
    path.write_text('aa: augmix-m3\nloss: bce\nepochs: 7\n')
    s = settings('photos', '-c', str(path), '--aug', 'three-augment', '--epochs', '3')
    assert (s.get('aa'), s.get('loss'), s.get('epochs'), s.get('bce_target_thresh')) == ('3a', 'bce', 3, 0.0)
    assert any('--aa' in note and 'gives way' in note for note in s.notes)
    assert any('--epochs 7' in note for note in s.notes)


def test_sample_facts_give_way_to_flags():
    s = settings('--scale', '0.5', '1')
    assert s.get('dataset') == 'sample/digits' and s.get('train_crop_mode') == 'rrc'
    assert settings().get('train_crop_mode') == 'src' and settings('--hflip', '0.5').get('hflip') == 0.5
    assert settings('--model', 'resnet18').get('model_kwargs') == {}


@pytest.mark.parametrize('argv', [
    '--aug three-augment --aa augmix-m3', '--aug three-augment --color-jitter 0.4', '--no-aug --aug three-augment',
    '--train-crop-mode src --scale 0.2 1', '--train-crop-mode src --ratio 1 1', '--epochs 3 --time-budget 3m',
    '--bce-loss --loss ce', '--loss asl --mixup 0.2', '--loss jsd --cutmix 1', '--loss ce --bce-sum',
    '--loss ce --loss-tau 2', '--loss bce --smoothing 0.1', '--aug-splits 3', '--device cpu --amp --amp-dtype float16',
    '--imbalance-factor 10 --imbalance-indices x', '--fold 1/2 --test-fraction 0.1', '--dataset sample/digits',
    '--group-column a --group-regex b', '--loss ldam', '--loss lade --mixup 0.2', '--sync-bn --device cpu'])
def test_contradictions_are_one_clear_line(argv):
    with pytest.raises(UserError) as error:
        settings('photos', *argv.split())
    assert '\n' not in str(error.value) and '--' in str(error.value)


@pytest.mark.parametrize('argv, near', [
    ('--loss balnced-bce', 'balanced-bce'), ('--aug three-augmnt', 'three-augment'), ('--recipe long-tai', 'long-tail'),
    ('--train-crop-mode rcc', 'rrc'), ('--dataset sample/digts', 'digits')])
def test_unknown_names_show_the_nearest(argv, near):
    with pytest.raises(UserError, match=near):
        stage = plan(argv.split())[0]
        finish_stage(stage)


@pytest.mark.parametrize('argv, words', [
    ('--epochs 0', 'at least 1'), ('--batch-size -4', 'at least 1'), ('--val-interval 0', 'at least 1'),
    ('--val-fraction 1.5', '1 excluded'), ('--smoothing 2 --loss ce', '1 excluded'), ('--drop-path 1', '1 excluded'),
    ('--hflip 2', 'between 0 and 1'), ('--imbalance-factor 0.01', 'at least 1'), ('--mean 0.5 0.5', '1 or 3 values'),
    ('--scale 1 0.2', 'smaller number'), ('--cutmix-minmax 0.2', '2 values'), ('--color-jitter 1 1', '1 or 3 or 4'),
    ('--workers -1', 'at least 0'), ('--opt-betas 0.9 1.5', '1 excluded'), ('--crop-pct 0', 'between 0.01 and 1'),
    ('--lr nan', 'finite'),
    ('--opt-betas 0.9', '2 or 3 values'), ('--clip-grad -1', 'at least 0'), ('--save-epochs 0', 'at least 1')])
def test_values_out_of_range_are_one_clear_line(argv, words):
    with pytest.raises(UserError, match=words) as error:
        settings('photos', *argv.split())
    assert argv.split()[0] in str(error.value)


def test_a_task_names_no_area_for_a_crop_without_one():
    stage, = plan(['--task', 'mae'])  # the digits have the simple random crop
    finish_stage(stage)
    assert (stage.settings.get('train_crop_mode'), stage.settings.get('scale')) == ('src', None)
    stage, = plan(['photos', '--task', 'mae'])
    finish_stage(stage)
    assert (stage.settings.get('train_crop_mode'), stage.settings.get('scale')) == ('rrc', [0.2, 1.0])
