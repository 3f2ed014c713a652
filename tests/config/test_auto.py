"""The rule: what it takes from images, machine and length, and what it leaves to those who set a flag."""
import pytest

from timm_smalldata.config import auto
from timm_smalldata.config.auto import Facts, choose
from timm_smalldata.config.choice import read_choice, share_choice, write_choice
from timm_smalldata.config.length import LONG, MEDIUM, follows
from timm_smalldata.config.plan import finish_stage, plan


def settings(*argv, size=64):
    stage = plan(['photos', *argv])[0]
    finish_stage(stage)
    stage.settings.layer(dict(img_size=size), f'{auto.RULE} a test')
    return stage.settings


def test_a_short_run_is_mild_and_a_long_one_as_published():
    short, long = (follows(epochs, settings()) for epochs in (20, LONG))
    assert short['train_crop_mode'] == 'src' and short['color_jitter'] == [0.2]
    assert long['train_crop_mode'] == 'rrc' and long['scale'] == [0.3, 1.0] and long['color_jitter'] == [0.4]
    assert (short['warmup_epochs'], short['val_interval']) == (2, 1) and long['val_interval'] == 10


def test_three_augment_means_its_operations_on_fewer_images_of_a_short_run():
    s = settings('--aug', 'three-augment')
    shares = [follows(epochs, s).get('aa_prob', 1.0) for epochs in (20, MEDIUM, LONG)]
    assert shares == sorted(shares) and shares[-1] == 1 and 0 < shares[0] < 1
    colours = [follows(epochs, s)['color_jitter'][0] for epochs in (20, MEDIUM, LONG)]
    assert colours == sorted(colours) and colours[-1] == 0.3 and 0 < colours[0] < 0.3
    assert s.get('aa') == '3a' and s.get('color_jitter') == [0.3]
    for value in ('0.3', '0.2'):
        given = settings('--aug', 'three-augment', '--color-jitter', value)
        assert 'color_jitter' not in follows(20, given) and given.get('color_jitter') == [float(value)]
    assert follows(LONG, s)['scale'] == [0.08, 1.0]


@pytest.mark.parametrize('flags, dest', [
    ('--train-crop-mode rrc', 'train_crop_mode'), ('--color-jitter 0.4', 'color_jitter'), ('--aa-prob 0.5', 'aa_prob'),
    ('--warmup-epochs 1', 'warmup_epochs'), ('--val-interval 3', 'val_interval'), ('--hflip 0.5', 'hflip')])
def test_a_flag_takes_the_place_of_what_the_rule_says(flags, dest):
    s = settings(*flags.split(), *(['--aug', 'three-augment'] if 'jitter' not in flags else []))
    assert dest not in follows(20, s) and not auto.is_open(s, dest)


def test_an_area_or_a_ratio_asks_for_its_crop():
    assert follows(5, settings('--scale', '0.5', '1'))['train_crop_mode'] == 'rrc'
    assert 'scale' in follows(5, settings('--train-crop-mode', 'rrc'))
    assert 'scale' not in follows(LONG, settings('--train-crop-mode', 'rkrc'))
    assert follows(5, settings('--aug', 'none')).keys() == {'warmup_epochs', 'val_interval'}


def test_an_uneven_set_gets_a_loss_that_counts_classes_alike():
    assert choose(Facts(900, 72.0), settings())['loss'] == 'balanced-softmax'
    assert choose(Facts(900, 1.5), settings())['loss'] == 'ce'
    assert choose(Facts(900, 72.0, corrected=True), settings('--drw-epoch', '5'))['loss'] == 'ce'


def test_balanced_bce_takes_more_of_the_prior_out_in_a_short_run_on_uneven_classes():
    s = settings('--loss', 'balanced-bce')
    assert s.get('loss_tau') == 1 and 'loss_tau' not in choose(Facts(900, 1.5), s)
    assert choose(Facts(900, 72.0), s)['loss_tau'] == auto.SHORT_TAU > 1
    assert 'loss_tau' not in follows(MEDIUM - 1, s) and follows(MEDIUM, s)['loss_tau'] == 1
    given = settings('--loss', 'balanced-bce', '--loss-tau', '1')
    assert not auto.is_open(given, 'loss_tau') and 'loss_tau' not in follows(MEDIUM, given)


def test_model_and_optimizer_go_together():
    chosen = choose(Facts(900), settings())
    assert chosen['opt'] == 'muon' and chosen['model'] in [c.model for c in auto.CANDIDATES]
    assert 'opt' not in choose(Facts(900), settings('--lr', '1e-3')), 'a rate is meant for the usual optimizer'
    named = choose(Facts(900), settings('--model', 'resnet18'))
    assert not {'model', 'opt', 'drop', 'drop_path'} & set(named), 'which arguments it takes is not known'


def test_the_machine():
    slow, fast, gpu = (auto.machine(Facts(9, device=d, bfloat16=b), 64) for d, b in (
        ('cpu', False), ('cpu', True), ('cuda', True)))
    assert (slow['amp'], slow['muon_dtype'], slow['fused_attn']) == (False, 'float32', False)
    assert (fast['amp'], fast['muon_dtype'], fast['fused_attn']) == (True, 'bfloat16', False)
    assert auto.machine(Facts(9), 224)['fused_attn'] and gpu['fused_attn'] and gpu['amp'] and gpu['workers'] == 4


def test_recipes_samples_and_other_tasks_keep_what_they_say():
    for argv in (['--recipe', 'deit3', '--scale', 'cpu'], ['--task', 'dino'], ['--dataset', 'sample/digits'],
                 ['--pretrained', '--model', 'resnet18']):
        stage = plan(argv if '--dataset' in argv else ['photos', *argv])[0]
        finish_stage(stage)
        assert not auto.is_ruled(stage.settings), argv
        assert follows(100, stage.settings).get('val_interval', 1) == 1, 'the best weights are looked for every epoch'
    assert auto.is_ruled(settings())


def test_a_choice_holds_for_what_it_was_made_for(tmp_path):
    reason = dict(given=dict(seed=1, scale=(0.3, 1)), images='ab')
    assert read_choice(tmp_path, reason) is None
    write_choice(tmp_path, reason, dict(epochs=7))
    assert read_choice(tmp_path, reason) == dict(epochs=7)
    assert read_choice(tmp_path, dict(reason, images='cd')) is None
    share_choice(tmp_path, [tmp_path / 'a', tmp_path / 'b'])
    assert read_choice(tmp_path / 'b', dict(images='whatever')) == dict(epochs=7)
    (tmp_path / 'a' / 'choice.json').write_text('{"chosen_for"')
    assert read_choice(tmp_path / 'a', reason) is None
