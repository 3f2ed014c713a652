"""`--task dino` from the command line to a backbone that stock timm loads; settings, and flags that do not fit."""
import csv
import json
import math

import pytest
import timm
import torch

from timm_smalldata.config.auto import prototypes
from timm_smalldata.config.length import warmup
from timm_smalldata.config.plan import finish_stage, plan
from timm_smalldata.errors import UserError

SMALL = ['--task', 'dino', '--dino-out-dim', '64', '--dino-local-crops', '2']
VIT = [*SMALL, '--model-kwargs', 'patch_size=8']


def settings(*argv):
    stage = plan(['photos', '--task', 'dino', *argv])[0]
    finish_stage(stage)
    return stage.settings


def test_published_settings():
    s = settings()
    args = s.namespace()
    assert (args.opt, args.lr_base, args.lr_base_size, args.lr_base_scale) == ('adamw', 5e-4, 256, 'linear')
    assert (args.weight_decay, args.dino_weight_decay_end, args.clip_grad, args.drop_path) == (0.04, 0.4, 3.0, 0.1)
    assert (args.warmup_lr, args.min_lr, args.scale, args.dino_local_scale) == (0.0, 1e-6, [0.4, 1.0], [0.05, 0.4])
    assert (args.color_jitter, args.color_jitter_prob, args.grayscale_prob) == ([0.4, 0.4, 0.2, 0.1], 0.8, 0.2)
    assert (args.dino_student_temp, args.dino_warmup_teacher_temp, args.dino_teacher_temp) == (0.1, 0.04, 0.07)
    assert (args.dino_momentum, args.dino_freeze_last_layer, args.dino_local_crops) == ([0.996, 1.0], 1, 8)
    assert s.source('clip_grad') == '--task dino' and warmup(100, 'dino') == 10 and warmup(20, 'dino') == 2


def test_outputs_follow_the_images():
    assert [prototypes(n) for n in (1, 4096, 10_000, 1_281_167)] == [4096, 4096, 8192, 65536]


@pytest.mark.parametrize('flags', [
    '--loss ce', '--mixup 0.8', '--cutmix 1', '--smoothing 0.1', '--model-ema', '--aa 3a', '--train-img-sizes 32 64',
    '--gaussian-blur-prob 0.5', '--sam-rho 0.05'])
def test_flags_that_do_not_fit_are_refused(flags):
    with pytest.raises(UserError) as error:
        settings(*flags.split())
    assert 'does not go with --task dino' in str(error.value) and '\n' not in str(error.value)


@pytest.mark.parametrize('flags, words', [
    ('--dino-momentum 0.9 1.1', 'out of range'), ('--dino-local-scale 0.4 0.05', 'the smaller number comes first'),
    ('--dino-student-temp 0', 'out of range'), ('--dino-local-crops -1', 'out of range'),
    ('--dino-out-dim 1', 'out of range')])
def test_values_out_of_range(flags, words):
    with pytest.raises(UserError, match=words):
        settings(*flags.split())


def test_flags_of_dino_do_not_go_with_others():
    with pytest.raises(UserError, match='--dino-local-crops 4 .*only with dino'):
        stage = plan(['photos', '--dino-local-crops', '4'])[0]
        finish_stage(stage)


@pytest.mark.parametrize('argv', [
    VIT, [*SMALL, '--model', 'resnet10t', '--dino-local-crops', '0', '--no-dino-centering', '--no-dino-sharpening'],
    [*VIT, '--amp', '--torchcompile', 'eager', '--grad-accum-steps', '2', '--dino-freeze-last-layer', '0',
     '--no-dino-norm-last-layer', '--dino-momentum', '0', '0']])
def test_trains_to_the_end(run, photos, tmp_path, argv):
    code, out, err = run([photos, *argv])
    assert code == 0, err
    assert 'set by --task dino: ' in err and '2 global crops of 32 px' in err
    folder = tmp_path / 'runs/e'
    row, = csv.DictReader(open(folder / 'summary.csv', newline=''))
    entropy, uniform = float(row['train_teacher_entropy']), float(row['train_teacher_kl_uniform'])
    assert entropy + uniform == pytest.approx(math.log(64), rel=1e-4)
    assert entropy - 1e-4 <= float(row['train_teacher_mean_entropy']) <= math.log(64) + 1e-4
    from safetensors.torch import load_file
    exported = load_file(folder / 'model/model.safetensors')
    saved = torch.load(folder / 'last.pth.tar', weights_only=False)
    assert exported.keys() == saved['state_dict_ema'].keys()
    assert all(torch.equal(exported[name], saved['state_dict_ema'][name]) for name in exported)  # the teacher
    if '0' != argv[-1]:
        assert not all(torch.equal(exported[name], saved['state_dict'][name]) for name in exported)
    model = timm.create_model(f'local-dir:{folder / "model"}', pretrained=True).eval()
    assert model(torch.zeros(1, 3, 32, 32)).shape == (1, model.num_features)


def test_a_classifier_starts_from_the_teacher_at_another_size(run, photos, tmp_path):
    assert run([photos, *VIT, '--experiment', 'look'])[0] == 0
    code, out, err = run([
        photos, '--initial-checkpoint', 'runs/look/model', '--model-kwargs', 'patch_size=8', '--img-size', '64',
        '--lr', '0', '--min-lr', '0'])
    assert code == 0, err
    from safetensors.torch import load_file
    there, here = (load_file(tmp_path / f'runs/{name}/model/model.safetensors') for name in ('look', 'e'))
    assert here['pos_embed'].shape[1] > there['pos_embed'].shape[1]
    assert all(torch.equal(there[name], here[name]) for name in there if name != 'pos_embed')
    assert json.loads((tmp_path / 'runs/e/report.json').read_text())['num_images'] > 0


@pytest.mark.parametrize('argv, words', [
    ([*VIT, '--dino-local-size', '20'], ('Crops of 20 pixels do not consist of whole patches of 8',)),
    ([*VIT, '--img-size', '36'], ('Crops of 36 pixels', 'multiples of 8')),
    ([*SMALL, '--model', 'mixer_s16_224'], ('mixer_s16_224', 'dynamic_img_size', 'a plain ViT or a convolutional'))])
def test_bad_sizes_are_one_clear_line(run, photos, argv, words):
    code, out, err = run([photos, *argv])
    last = err.rstrip('\n').split('\n')[-1]
    assert code == 2 and last.startswith('error: ') and 'Traceback' not in err
    for word in words:
        assert word in last
