"""The task: one forward for all that is trained, masks that a seed decides, what users get, the way to a classifier."""
import json
import math
import re
import shlex
from argparse import Namespace
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import load_file
from timm.layers import resample_abs_pos_embed
from timm.task import TrainingTask

from timm_smalldata import create_task
from timm_smalldata.build.optimizer import create_optimizer, create_schedule
from timm_smalldata.config.plan import finish_stage, plan
from timm_smalldata.data.loader import Batch
from timm_smalldata.errors import UserError
from timm_smalldata.loss import masked_pixel_loss
from timm_smalldata.models.positions import sincos_positions
from timm_smalldata.task import MAETask
from timm_smalldata.utils.random import seed_step

V = json.loads((Path(__file__).parents[1] / 'vectors' / 'mae.json').read_text())
VIT = dict(img_size=32, patch_size=8, depth=2, num_classes=0)
FLAGS = ['--model', 'test_vit', '--model-kwargs', 'patch_size=8', 'depth=2']


def make_task(name='test_vit', model=VIT, **kwargs):
    torch.manual_seed(0)
    return MAETask(timm.create_model(name, **model), verbose=False, **kwargs)


def make_batch(step=0):
    generator = torch.Generator().manual_seed(1)
    return Batch([torch.randn(3, 3, 32, 32, generator=generator)], torch.arange(3), torch.arange(3), 0, step)


# --- a step ---------------------------------------------------------------------------------------------------------

def test_the_mask_is_a_function_of_the_seed_and_forward_draws_nothing():
    task, batch = make_task(), make_batch()
    seed_step(7, 0, 2, 5)
    images, visible = task.mix(batch)
    assert images is batch.views[0] and visible.shape == (3, 4) and not torch.equal(visible[0], visible[1])
    torch.rand(3)  # whatever ran before
    seed_step(7, 0, 2, 5)
    assert torch.equal(task.mix(batch)[1], visible)
    seed_step(7, 1, 2, 5)
    assert not torch.equal(task.mix(batch)[1], visible)
    state = torch.random.get_rng_state()
    first, second = task(images, visible)['loss'], task(images, visible)['loss']
    assert torch.equal(first, second) and torch.equal(torch.random.get_rng_state(), state)


@pytest.mark.parametrize('norm_pix', [True, False])
def test_the_loss_is_that_of_the_masked_patches(norm_pix):
    task, images = make_task(norm_pix=norm_pix), make_batch().views[0]
    visible = torch.tensor([[0, 1, 2, 3], [4, 9, 1, 15], [8, 7, 6, 5]])
    mask = torch.ones(3, 16)
    for row, places in zip(mask, visible):
        row[places] = 0
    result = task(images, visible)
    assert list(result) == ['loss'] and result['loss'].ndim == 0
    expected = masked_pixel_loss(task.trainable_module(images, visible), images, mask, 8, norm_pix)
    assert torch.equal(result['loss'], expected)


def test_a_loop_without_mix_gets_a_mask_too():
    task, images = make_task(), make_batch().views[0]
    torch.manual_seed(3)
    loss = task(images, torch.tensor([0, 2, 1]))['loss']
    torch.manual_seed(3)
    assert torch.equal(loss, task(images, task.draw(images))['loss'])


@pytest.mark.parametrize('name, kwargs', [
    ('test_vit', VIT), ('test_vit', dict(VIT, global_pool='avg')), ('test_vit2', VIT), ('test_vit4', VIT),
    ('vit_tiny_patch16_224', dict(VIT, class_token=False, global_pool='avg')),
    ('deit_tiny_distilled_patch16_224', VIT)])
@pytest.mark.parametrize('pos_embed', ['sincos', 'learned'])
def test_everything_that_is_trained_has_a_gradient(name, kwargs, pos_embed):
    task = make_task(name, kwargs, pos_embed=pos_embed)
    task(*task.mix(make_batch()))['loss'].backward()
    without = [n for n, p in task.trainable_module.named_parameters() if p.grad is None]
    assert without == (['encoder.pos_embed'] if pos_embed == 'sincos' else [])


def test_one_graph_and_several_processes(tmp_path):
    """The compiler sees one graph; DDP finds no parameter unused (it raises in the second step otherwise)."""
    import torch.distributed as dist
    batch, visible = make_batch(), torch.tensor([[0, 1, 2, 3]] * 3)
    expected = make_task()(batch.views[0], visible)['loss']
    task = make_task()
    task.compile(backend='eager', fullgraph=True)
    dist.init_process_group('gloo', init_method=f'file://{tmp_path}/group', rank=0, world_size=1)
    try:
        assert task.prepare_distributed() is task
        for _ in range(2):
            loss = task(batch.views[0], visible)['loss']
            loss.backward()
            torch.testing.assert_close(loss, expected)
        model = task.get_eval_model()
        assert type(model) is timm.models.VisionTransformer and 'decoder' in task.get_task_state()
    finally:
        dist.destroy_process_group()


def test_parameter_groups():
    """Biases and normalisations do not decay; the tokens do; fixed positions are not in the optimizer at all."""
    module = make_task().trainable_module
    args = Namespace(
        opt='adamw', lr=1e-3, weight_decay=0.05, momentum=0.9, opt_kwargs={}, sam_rho=0.0, sam_rho_schedule=None)
    decay = {p: group['weight_decay'] for group in create_optimizer(args, module).param_groups for p in group['params']}
    assert decay[module.encoder.cls_token] == decay[module.decoder.mask_token] == 0.05
    assert decay[module.encoder.norm.weight] == decay[module.decoder.predict.bias] == 0
    assert module.encoder.pos_embed not in decay
    learned = make_task(pos_embed='learned').trainable_module
    decay = {p: group['weight_decay'] for group in create_optimizer(args, learned).param_groups
             for p in group['params']}
    assert decay[learned.encoder.pos_embed] == 0


# --- pictures -------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize('norm_pix', [True, False])
def test_a_perfect_prediction_gives_the_image_back(norm_pix, monkeypatch):
    task = make_task(norm_pix=norm_pix)
    images = 3 * make_batch().views[0] + 1
    cut = images.unfold(2, 8, 8).unfold(3, 8, 8).permute(0, 2, 3, 4, 5, 1).reshape(3, 16, 192)
    if norm_pix:
        mean, variance = cut.mean(-1, keepdim=True), cut.var(-1, keepdim=True)
        cut = (cut - mean) / (variance + 1e-6).sqrt()
    monkeypatch.setattr(task.trainable_module, 'forward', lambda *_: cut)
    shown, seen = task.reconstruct(images)
    torch.testing.assert_close(shown, images, atol=1e-5, rtol=1e-5)
    hidden = (seen == 0).all(dim=1)
    assert hidden.float().mean() == 0.75 and torch.equal(seen[:, 0][~hidden], images[:, 0][~hidden])


def test_reconstruction_of_a_given_mask():
    task, images = make_task(), make_batch().views[0]
    task.train()
    mask = torch.ones(3, 16)
    mask[:, 5] = 0
    shown, seen = task.reconstruct(images, mask)
    assert shown.shape == seen.shape == images.shape and task.trainable_module.training and not shown.requires_grad
    for picture in (shown, seen):
        assert torch.equal(picture[..., 8:16, 8:16], images[..., 8:16, 8:16])
    assert not seen[..., :8, :].any() and not torch.allclose(shown[..., :8, :], images[..., :8, :])


# --- what is kept, what users get -----------------------------------------------------------------------------------

def test_state_holds_the_decoder_and_the_eval_model_is_a_plain_vit():
    task = make_task()
    task.setup_ema(decay=0.5)
    model = task.get_eval_model()
    assert isinstance(task, TrainingTask) and type(model) is timm.models.VisionTransformer and model.num_classes == 0
    assert task.predict(model, torch.zeros(2, 3, 32, 32))['features'].shape == (2, 64)
    with torch.no_grad():
        for parameter in task.trainable_module.parameters():
            parameter.add_(0.1)
    other = make_task()
    other.setup_ema(decay=0.5)
    for ema in (False, True):
        saved = task.get_checkpoint_state(ema=ema)
        weights, state = (saved[key + '_ema' * ema] for key in ('state_dict', 'task_state'))
        assert set(weights) == set(model.state_dict())
        other.load_checkpoint_state(weights, state, ema=ema)
    for ema in (False, True):
        ours, theirs = (t.get_trainable_module(ema=ema).state_dict() for t in (task, other))
        assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert not torch.equal(task.get_eval_model(ema=True).cls_token, model.cls_token)


def test_positions_and_weights_that_the_model_brings():
    model = timm.create_model('test_vit', **dict(VIT, num_classes=5))
    weights = {name: value.clone() for name, value in model.state_dict().items()}
    task = create_task('mae', model, verbose=False)
    assert not task.get_eval_model().state_dict().keys() & {'head.weight', 'head.bias'}
    for name, value in task.get_eval_model().state_dict().items():
        assert torch.equal(value, weights[name]) == (name != 'pos_embed'), name
    assert torch.equal(model.pos_embed[0], sincos_positions(64, (4, 4), 1))
    model = timm.create_model('test_vit', **VIT)
    before = model.pos_embed.clone()
    MAETask(model, pos_embed='learned', verbose=False)
    assert torch.equal(model.pos_embed, before) and model.pos_embed.requires_grad


@pytest.mark.parametrize('model, kwargs, words', [
    (dict(VIT, img_size=36), {}, 'whole patches of 8'),
    (VIT, dict(mask_ratio=0.95), 'leaves 0 of 16'),
    (VIT, dict(pos_embed='fixed'), 'sincos'),
    (VIT, dict(decoder_dim=48, decoder_heads=5), 'multiple of 4 and of the heads'),
    (dict(VIT, embed_dim=30), {}, 'learned'),
])
def test_sizes_that_do_not_fit(model, kwargs, words):
    with pytest.raises(ValueError, match=words):
        make_task(model=model, **kwargs)


# --- settings -------------------------------------------------------------------------------------------------------

def settings(*argv):
    stage = plan(list(argv))[0]
    finish_stage(stage)
    return stage.settings


def test_published_settings():
    found = settings('photos', '--task', 'mae')
    args = found.namespace()
    assert (args.opt, args.opt_betas, args.weight_decay) == ('adamw', [0.9, 0.95], 0.05)
    assert (args.lr_base, args.lr_base_size, args.lr_base_scale, args.warmup_lr, args.min_lr) == (
        1.5e-4, 256, 'linear', 0, 0)
    assert (args.train_crop_mode, args.scale, args.train_interpolation, args.hflip) == ('rrc', [0.2, 1], 'bicubic', 0.5)
    assert args.aa is None and args.color_jitter is None and args.reprob == 0 and args.drop_path == 0
    assert (args.mae_mask_ratio, args.mae_norm_pix, args.smoothing) == (0.75, True, None)
    assert found.source('scale') == '--task mae'
    assert settings('photos', '--task', 'mae', '--weight-decay', '0.1').get('weight_decay') == 0.1


@pytest.mark.parametrize('flags', [
    ['--loss', 'balanced-bce'], ['--mixup', '0.8'], ['--cutmix', '1'], ['--smoothing', '0.1'],
    ['--layer-decay', '0.7']])
def test_flags_of_classifiers_are_refused(flags):
    with pytest.raises(UserError, match=f'{flags[0]} {flags[1]} .*does not go with --task mae'):
        settings('photos', '--task', 'mae', *flags)


def test_flags_of_the_task_go_with_it_alone():
    with pytest.raises(UserError, match='--mae-mask-ratio 0.5 .*only with mae'):
        settings('photos', '--mae-mask-ratio', '0.5')
    with pytest.raises(UserError, match='mae-mask-ratio 1 .*out of range'):
        settings('photos', '--task', 'mae', '--mae-mask-ratio', '1')


@pytest.mark.parametrize('key, args, warmup', [
    ('mae_lr_pretrain', V['mae_lr_pretrain']['args'], 40), ('mae_lr_finetune_B', V['mae_lr_finetune_B']['args'], 5),
    ('livt_lr', {**V['livt_lr'], 'warmup_epochs': 5}, 5)])
def test_the_published_schedule_is_timms_cosine_after_a_warmup_prefix(key, args, warmup):
    values = {float(e): lr for e, lr in (V[key].get('epoch_to_lr') or V[key]['at_epoch']).items()}
    flags = settings(
        'photos', '--epochs', str(args['epochs'] - warmup), '--warmup-epochs', str(warmup), '--warmup-prefix',
        '--warmup-lr', '0', '--lr', str(args['lr']), '--min-lr', str(args['min_lr'])).namespace()
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=args['lr'])
    schedule, epochs = create_schedule(flags, optimizer, 10, 0)
    assert epochs == args['epochs']
    for epoch, lr in values.items():
        schedule.step_update(round(epoch * 10))
        assert optimizer.param_groups[0]['lr'] == pytest.approx(lr, rel=1e-5, abs=1e-14), epoch


def test_layer_decay_of_fine_tuning():
    model = timm.create_model(
        'vit_tiny_patch16_224', img_size=32, embed_dim=12, num_heads=1, depth=12, global_pool='avg', fc_norm=True)
    args = Namespace(
        opt='adamw', lr=1e-3, weight_decay=0.05, momentum=0.9, opt_kwargs={}, layer_decay=0.65,
        sam_rho=0.0, sam_rho_schedule=None)
    names = {parameter: name for name, parameter in model.named_parameters()}
    for group in create_optimizer(args, model).param_groups:
        for parameter in group['params']:
            expected = V['llrd_vitB_0.65']['mae'].get(names[parameter])
            if expected is not None:
                assert [group['lr_scale'], group['weight_decay']] == pytest.approx(expected, rel=1e-6), names[parameter]


# --- from images to features to a classifier ------------------------------------------------------------------------

@pytest.mark.parametrize('extra', [
    [], ['--model-ema', '--grad-accum-steps', '2', '--clip-grad', '1', '--amp', '--mae-pos-embed', 'learned'],
    ['--torchcompile', 'eager', '--no-mae-norm-pix', '--mae-decoder-dim', '48', '--mae-decoder-depth', '1'],
    ['--train-img-sizes', '32', '48', '--mae-mask-ratio', '0.5', '--drop-path', '0.1', '--grad-checkpointing']])
def test_pretraining_from_the_command_line(run, photos, tmp_path, extra):
    code, out, err = run([photos, '--task', 'mae', *FLAGS, *extra])
    assert code == 0, err
    assert 'set by --task mae: ' in err and 'patches are visible; decoder' in err
    folder = tmp_path / 'runs/e'
    assert 0 < json.loads(out.partition('\n')[2])['all'][0]['train']['loss'] < 3
    model = timm.create_model(f'local-dir:{folder / "model"}', pretrained=True)
    assert type(model) is timm.models.VisionTransformer and model.num_classes == 0 and model.pos_embed.requires_grad
    state = torch.load(folder / 'last.pth.tar', weights_only=False)
    assert set(state['task_state']) == {'decoder'} and not any('decoder' in name for name in state['state_dict'])
    fixed = torch.equal(model.pos_embed[0], sincos_positions(64, model.patch_embed.grid_size, 1))
    assert fixed == ('learned' not in extra)


def test_fine_tuning_from_the_encoder(run, photos, tmp_path):
    code, out, err = run([photos, '--task', 'mae', *FLAGS, '--experiment', 'pre'])
    assert code == 0, err
    encoder = load_file(tmp_path / 'runs/pre/model/model.safetensors')
    tune = [photos, *FLAGS, 'global_pool=avg', 'fc_norm=True', '--loss', 'balanced-bce', '--layer-decay', '0.75',
            '--drop-path', '0.1', '--head-init-scale', '0.001', '--img-size', '48', '--initial-checkpoint']
    for start in ('runs/pre/model', 'runs/pre/last.pth.tar'):
        still = ['--lr', '0', '--warmup-lr', '0', '--min-lr', '0']
        code, out, err = run([*tune, start, *still, '--experiment', start[-3:]])
        assert code == 0, err
        begun = load_file(tmp_path / 'runs' / start[-3:] / 'model/model.safetensors')
        for name, weight in encoder.items():
            if name == 'pos_embed':  # 4 x 4 patches then, 6 x 6 now
                weight = resample_abs_pos_embed(weight, new_size=[6, 6], old_size=[4, 4], num_prefix_tokens=1)
            if not name.startswith('norm.'):  # the norm after pooling is new
                assert torch.equal(begun[name], weight), name
        assert torch.equal(begun['fc_norm.weight'], torch.ones(64))
        assert math.isclose(begun['head.weight'].std(), 2e-5, rel_tol=0.2) and not begun['head.bias'].any()
    code, out, err = run([*tune, 'runs/pre/model', '--experiment', 'tuned'])
    assert code == 0, err
    tuned = load_file(tmp_path / 'runs/tuned/model/model.safetensors')
    assert not torch.equal(tuned['pos_embed'], begun['pos_embed'])  # positions are trained again
    assert json.loads((tmp_path / 'runs/tuned/report.json').read_text())['num_images'] > 0


def test_the_page_about_it():
    section = (Path(__file__).parents[2] / 'docs/self-supervised.md').read_text().partition('## Masked autoencoder')[2]
    commands = re.search(r'```bash\n(.*?)```', section, re.S)[1].replace('\\\n', ' ').strip().splitlines()
    before, after = (settings(*shlex.split(command)[2:]) for command in commands)
    assert before.get('task') == 'mae' and after.get('task') == 'classification'
    names = {}
    exec(re.search(r'```python\n(.*?)```', section, re.S)[1], names)
    assert names['loss'].ndim == 0 and names['prediction'].shape == names['seen'].shape == (4, 3, 64, 64)


@pytest.mark.parametrize('flags, words', [
    (['--model', 'test_resnet'], 'no plain ViT tokens'),
    ([*FLAGS, '--img-size', '36'], 'whole patches of 8'),
    ([*FLAGS, '--mae-mask-ratio', '0.95'], 'leaves 0 of 16 patches'),
    ([*FLAGS, '--train-img-sizes', '32', '44'], '44 x 44'),
    ([*FLAGS, '--mae-decoder-dim', '50'], 'decoder 50 wide'),
])
def test_one_clear_line(run, photos, flags, words):
    code, out, err = run([photos, '--task', 'mae', *flags])
    line = err.strip().splitlines()[-1]
    assert code == 2 and line.startswith('error: --task mae with --model test_') and words in line
