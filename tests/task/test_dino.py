"""DINO: crops, teacher, schedules, clipping; what a checkpoint holds and what users get."""
import copy
import json
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image

from timm_smalldata.data.loader import Batch, create_loader
from timm_smalldata.data.sampler import InstanceSampler
from timm_smalldata.data.views import _transform, render
from timm_smalldata.task import DINOTask, create_task
from timm_smalldata.task.dino import VIEW, MultiCropModel, cosine, warm_temperature

V = json.loads((Path(__file__).parents[1] / 'vectors' / 'dino.json').read_text())


def make_task(name='test_vit', local_crops=2, kwargs=None, **settings):
    torch.manual_seed(0)
    sized = dict(img_size=32, patch_size=8, dynamic_img_size=True) if name == 'test_vit' else {}
    model = timm.create_model(name, num_classes=0, **{**sized, **(kwargs or {})})
    return DINOTask(
        model, out_dim=32, local_crops=local_crops, verbose=False, **settings).configure(view=VIEW.at(32))


def random_batch(task, rows=3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    views = [torch.randn(rows, 3, view.size, view.size, generator=generator) for view in task.views()]
    return Batch(views, torch.zeros(rows), torch.arange(rows), 0, 0)


def optimizer_of(task, lr=0.1):
    from timm.optim import create_optimizer_v2
    return create_optimizer_v2(task.get_trainable_module(), 'adamw', lr=lr, weight_decay=0.04)


# --- crops ----------------------------------------------------------------------------------------------------------

def test_views_are_the_published_crops():
    views = make_task(local_crops=3).views()
    assert [view.size for view in views] == [32, 32, 16, 16, 16]
    assert [view.crop.scale for view in views] == [(0.4, 1.0)] * 2 + [(0.05, 0.4)] * 3
    assert [view.augment.pillow_blur_prob for view in views] == [1.0, 0.1, 0.5, 0.5, 0.5]
    assert [view.augment.solarize_prob for view in views] == [0.0, 0.2, 0.0, 0.0, 0.0]
    assert len(make_task(local_crops=0).views()) == 2


def test_the_pipeline_is_in_the_published_order():
    crop, flip, jitter, grey, blur, solarize, _ = _transform(make_task().views()[1]).transforms
    assert 'interpolation=bicubic' in repr(crop)
    assert (flip.p, jitter.p, grey.p, blur.prob, solarize.prob) == (0.5, 0.8, 0.2, 0.1, 0.2)
    colours = jitter.transforms[0]
    assert colours.brightness == pytest.approx((0.6, 1.4)) and colours.saturation == pytest.approx((0.8, 1.2))
    assert tuple(colours.hue) == (-0.1, 0.1)
    assert (blur.name, solarize.name) == ('GaussianBlurRand', 'Solarize')


def test_blur_and_solarising_are_pillows():
    from dataclasses import replace

    from PIL import ImageFilter, ImageOps

    from timm_smalldata.data.views import Augment, Crop, ViewSpec
    image = Image.fromarray(np.random.RandomState(0).randint(0, 256, (24, 24, 3), np.uint8))
    plain = ViewSpec(24, Crop('none', hflip=0.0))
    solar = render(image, replace(plain, augment=Augment(solarize_prob=1.0)), key=1)
    assert np.array_equal(solar.permute(1, 2, 0).numpy(), np.array(ImageOps.solarize(image, 128)))
    both = render(image, replace(plain, augment=Augment(solarize_prob=1.0, pillow_blur_prob=1.0)), key=1)
    import random
    random.seed(1)
    blurred = image.filter(ImageFilter.GaussianBlur(random.uniform(0.1, 2.0)))
    assert np.array_equal(both.permute(1, 2, 0).numpy(), np.array(ImageOps.solarize(blurred, 128)))


@pytest.mark.parametrize('size, patch, expected', [(224, 16, 96), (64, 8, 24), (32, 4, 12), (32, 16, 16)])
def test_local_crops_are_three_sevenths_in_whole_patches(size, patch, expected):
    task = make_task(kwargs=dict(img_size=size, patch_size=patch)).configure(view=VIEW.at(size))
    assert task.views()[-1].size == expected


def test_sizes_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match='Crops of 20 pixels do not consist of whole patches of 8'):
        make_task(local_size=20).views()
    with pytest.raises(ValueError, match='Crops of 30 pixels'):
        make_task().configure(view=VIEW.at(30)).views()
    with pytest.raises(ValueError, match='images of 32 pixels only, but a crop has 16: .*dynamic_img_size=True'):
        make_task(kwargs=dict(dynamic_img_size=False)).views()
    assert len(make_task(local_crops=0, kwargs=dict(dynamic_img_size=False)).views()) == 2


def test_batches_hold_views_of_two_sizes():
    class Source:
        targets = [0, 1, 0, 1]

        def __len__(self):
            return 4

        def read(self, index):
            return Image.fromarray(np.full((40, 50, 3), 60 * index, np.uint8)), self.targets[index]

    task = make_task()
    batch = next(iter(create_loader(Source(), InstanceSampler(4, seed=0), task.views(), 2, seed=0)))
    assert [tuple(view.shape) for view in batch.views] == [(2, 3, 32, 32)] * 2 + [(2, 3, 16, 16)] * 2
    input, target = task.mix(batch)
    assert all(map(torch.equal, input, batch.views)) and task(input, target)['loss'].isfinite()


def test_one_pass_of_the_backbone_for_each_size():
    shapes = []

    class Backbone(torch.nn.Module):
        def forward(self, x):
            shapes.append(list(x.shape))
            return x.mean((2, 3))

    vector = V['multicrop_wrapper']
    values = [row for row in vector['out_col0'][::2]]
    views = [torch.full(shape, value) for shape, value in zip(vector['in_shapes'], values)]
    out = MultiCropModel(Backbone(), torch.nn.Identity())(views)
    assert shapes == vector['backbone_calls'] and list(torch.cat(out).shape) == vector['out_shape']
    assert torch.cat(out)[:, 0].tolist() == vector['out_col0']


def test_local_crops_see_interpolated_positions():
    from timm.layers import resample_abs_pos_embed
    task = make_task().eval()
    backbone = task.trainable_module.backbone
    torch.nn.init.normal_(backbone.pos_embed)
    image = torch.randn(1, 3, 16, 16)
    small = timm.create_model('test_vit', num_classes=0, img_size=16, patch_size=8).eval()
    state = backbone.state_dict()
    prefix = 0 if backbone.no_embed_class else backbone.num_prefix_tokens
    state['pos_embed'] = resample_abs_pos_embed(state['pos_embed'], (2, 2), num_prefix_tokens=prefix)
    small.load_state_dict(state)
    torch.testing.assert_close(backbone(image), small(image))
    assert not torch.allclose(small(image), timm.create_model(
        'test_vit', num_classes=0, img_size=16, patch_size=8).eval()(image), atol=1e-3)
    backbone(image)[0, 0].backward()  # the sum of normalised features is constant
    assert backbone.pos_embed.grad.any()


# --- teacher --------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize('name', ['test_vit', 'resnet18'])
def test_a_step(name):
    task = make_task(name).train()
    batch = random_batch(task)
    result = task(*task.mix(batch))
    assert all(value.ndim == 0 for value in result.values())
    assert not any(value.requires_grad for key, value in result.items() if key != 'loss')
    result['loss'].backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in task.trainable_module.parameters()
               if p.requires_grad)
    assert all(p.grad is None and not p.requires_grad for p in task.trainable_module_ema.parameters())
    assert not task.criterion.center.any()
    task.after_step(0)
    assert task.criterion.center.any()


def test_the_centre_moves_once_an_update():
    task, answers = make_task().train(), []
    task.criterion.center += 0.5
    task.trainable_module_ema.register_forward_hook(lambda module, args, out: answers.append(torch.cat(out)))
    task.before_step(0)
    for seed in range(3):  # micro-batches
        task(*task.mix(random_batch(task, seed=seed)))
    assert torch.equal(task.criterion.center, torch.full_like(task.criterion.center, 0.5))
    task.after_step(0)
    torch.testing.assert_close(task.criterion.center, 0.45 + 0.1 * torch.cat(answers).mean(dim=0, keepdim=True))
    before = task.criterion.center.clone()
    task.after_step(1)  # an update without an answer
    assert torch.equal(task.criterion.center, before)


def test_the_teacher_sees_the_global_crops_only():
    task, seen = make_task(), []
    task.trainable_module_ema.register_forward_pre_hook(lambda module, args: seen.extend(args[0]))
    batch = random_batch(task)
    task(*task.mix(batch))
    assert len(seen) == 2 and all(map(torch.equal, seen, batch.views))


def test_the_teacher_is_the_average_of_the_student():
    task = make_task(momentum=(0.9, 1.0))
    optimizer = optimizer_of(task)
    task.begin(2, 3, optimizer)
    expected = [p.detach().clone() for p in task.trainable_module.parameters()]
    first = copy.deepcopy(expected)
    for update in range(6):
        task.train()
        task.before_step(update)
        optimizer.zero_grad()
        task(*task.mix(random_batch(task, seed=update)))['loss'].backward()
        optimizer.step()
        task.after_step(update)
        m = 1.0 - 0.1 * 0.5 * (1 + np.cos(np.pi * update / 6))
        expected = [m * t + (1 - m) * s.detach() for t, s in zip(expected, task.trainable_module.parameters())]
    teacher = list(task.trainable_module_ema.parameters())
    for ours, theirs in zip(teacher, expected):
        torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=1e-5)
    moved = sum(not torch.allclose(a, b) for a, b in zip(teacher, first))
    assert moved > len(first) / 2
    vector = V['ema']
    torch.testing.assert_close(
        torch.tensor(vector['teacher']).lerp_(torch.tensor(vector['student']), 1 - vector['m']),
        torch.tensor(vector['after']))


def test_a_teacher_without_momentum_is_the_student():
    task = make_task(momentum=(0.0, 0.0))
    with torch.no_grad():
        for parameter in task.trainable_module.parameters():
            parameter.add_(1)
    task.begin(1, 4, optimizer_of(task))
    task.after_step(0)
    assert all(map(torch.equal, task.trainable_module.parameters(), task.trainable_module_ema.parameters()))


def test_teacher_without_drop_path_and_with_batch_norm_of_its_own():
    task = make_task(kwargs=dict(drop_path_rate=0.5)).train()
    views = random_batch(task).views[:2]
    teacher, student = task.trainable_module_ema, task.trainable_module
    assert all(map(torch.equal, teacher(views), teacher(views)))
    torch.manual_seed(0)
    assert not all(map(torch.equal, student(views), student(views)))

    task = make_task('resnet18').train()
    teacher, student = task.trainable_module_ema.backbone.bn1, task.trainable_module.backbone.bn1
    assert teacher.training and not task.trainable_module_ema.backbone.training
    task(*task.mix(random_batch(task)))
    task.update_ema(1)
    assert teacher.running_mean.any() and not torch.allclose(teacher.running_mean, student.running_mean)
    assert not task.eval().trainable_module_ema.backbone.bn1.training


# --- schedules and gradients ----------------------------------------------------------------------------------------

@pytest.mark.parametrize('key', ['wd', 'mom'])
def test_published_cosines(key):
    vector = V[f'cosine_dino_in1k_bs512_{key}']
    start, end, epochs, updates, warm, _ = vector['args']
    assert warm == 0
    values = [cosine(index, epochs * updates, start, end) for index in vector['idx']]
    assert values == pytest.approx(vector['values'], rel=1e-8)


def test_published_temperatures():
    vector = V['dino_teacher_temp_schedule']
    args = vector['args']
    assert vector['values'] == pytest.approx([
        warm_temperature(epoch, args['warmup_teacher_temp'], args['teacher_temp'], args['warmup_epochs'])
        for epoch in range(args['nepochs'])])
    assert warm_temperature(0, 0.04, 0.07, 0) == 0.07 and warm_temperature(0, 0.04, 0.07, 1) == 0.04


@pytest.mark.parametrize('epochs, given, last', [(300, None, 29), (10, None, 2), (10, 5, 4)])
def test_the_warm_up_fits_the_run(epochs, given, last):
    task = make_task(teacher_temp_epochs=given)
    task.begin(epochs, 7, optimizer_of(task))
    temperatures = []
    for epoch in (0, last - 1, last, last + 1):
        task.set_epoch(epoch)
        temperatures.append(task.criterion.teacher_temp)
    assert temperatures[0] == 0.04 and temperatures[1] < temperatures[2]
    assert temperatures[2:] == pytest.approx([0.07, 0.07])


def test_without_sharpening_the_teacher_is_as_warm_as_the_student():
    task = make_task(sharpening=False, student_temp=0.2)
    task.begin(100, 1, optimizer_of(task))
    for epoch in (0, 20, 99):
        task.set_epoch(epoch)
        assert task.criterion.teacher_temp == task.criterion.student_temp == 0.2


def test_weight_decay_moves_only_where_there_is_some():
    task = make_task()
    optimizer = optimizer_of(task)
    task.begin(2, 5, optimizer)
    kept = [group['weight_decay'] for group in optimizer.param_groups]
    assert sorted(kept) == [0, 0.04]
    for update, value in ((0, 0.04), (5, 0.22), (10, 0.4), (2, 0.4 - 0.18 * (1 + np.cos(0.2 * np.pi)))):
        task.before_step(update)  # in any order: a function of the update
        assert sorted(group['weight_decay'] for group in optimizer.param_groups) == pytest.approx([0, value])
    constant = make_task(weight_decay_end=None)
    optimizer = optimizer_of(constant)
    constant.begin(2, 5, optimizer)
    constant.before_step(9)
    assert [group['weight_decay'] for group in optimizer.param_groups] == kept


def test_positions_and_class_token_are_decayed_as_published():
    task = make_task()
    decayed = {id(p) for group in optimizer_of(task).param_groups if group['weight_decay'] for p in group['params']}
    named = dict(task.trainable_module.named_parameters())
    assert id(named['backbone.pos_embed']) in decayed and id(named['backbone.cls_token']) in decayed
    assert id(named['backbone.norm.weight']) not in decayed and id(named['head.mlp.0.bias']) not in decayed
    assert id(named['head.last_layer.parametrizations.weight.original1']) in decayed


def test_each_tensor_is_clipped_by_its_own_norm():
    task = make_task(freeze_last_layer=0).configure(clip_grad=3.0)
    vector = V['dino_clip_gradients_per_param']
    layer = torch.nn.Linear(2, 2)
    task.get_clip_parameters = layer.parameters
    layer.weight.grad, layer.bias.grad = (torch.tensor(vector['grads'][k]).float() for k in ('weight', 'bias'))
    task.after_backward(0)
    for name, parameter in layer.named_parameters():
        torch.testing.assert_close(parameter.grad, torch.tensor(vector['after'][name]), atol=1e-6, rtol=1e-5)
    layer.weight.grad.mul_(100)
    before = layer.weight.grad.clone()
    task.configure(clip_grad=0.0).after_backward(0)  # 0: not clipped
    assert torch.equal(layer.weight.grad, before)


def test_the_last_layer_is_frozen_for_its_epochs():
    task = make_task(freeze_last_layer=2)
    optimizer = optimizer_of(task)
    task.begin(4, 1, optimizer)
    direction = task.trainable_module.head.last_layer.parametrizations.weight.original1
    seen = [direction.detach().clone()]
    for epoch in range(4):
        task.set_epoch(epoch)
        optimizer.zero_grad()
        task(*task.mix(random_batch(task)))['loss'].backward()
        task.after_backward(epoch)
        optimizer.step()
        task.after_step(epoch)
        seen.append(direction.detach().clone())
    assert [torch.equal(a, b) for a, b in zip(seen, seen[1:])] == [True, True, False, False]
    gain = 'last_layer.parametrizations.weight.original0'
    assert (task.trainable_module.head.state_dict()[gain] == 1).all()
    trained = make_task(norm_last_layer=False, freeze_last_layer=0)
    trained(*trained.mix(random_batch(trained)))['loss'].backward()
    assert dict(trained.trainable_module.head.named_parameters())[gain].grad.any()


# --- what is kept ---------------------------------------------------------------------------------------------------

def test_users_get_the_teachers_backbone_and_checkpoints_hold_all():
    from timm_smalldata.engine.evaluate import eval_model
    task = create_task('dino', timm.create_model('resnet18', num_classes=10), out_dim=32, verbose=False)
    task.configure(view=VIEW.at(32))
    with torch.no_grad():
        for parameter in task.trainable_module.parameters():
            parameter.add_(0.01)
    task.criterion.center += 0.5
    assert eval_model(task) is task.trainable_module_ema.backbone and eval_model(task).num_classes == 0
    assert task.predict(eval_model(task).eval(), torch.zeros(1, 3, 32, 32))['features'].shape == (1, 512)
    state = {**task.get_checkpoint_state(), **task.get_checkpoint_state(ema=True)}
    assert sorted(state['task_state']) == ['center', 'head'] and sorted(state['task_state_ema']) == ['head']

    other = make_task('resnet18')
    other.load_checkpoint_state(state['state_dict'], state['task_state'])
    other.load_checkpoint_state(state['state_dict_ema'], state['task_state_ema'], ema=True)
    mine, theirs = task.state_dict(), other.state_dict()
    assert mine.keys() == theirs.keys() and all(torch.equal(mine[name], theirs[name]) for name in mine)
    with pytest.raises(ValueError, match='no other'):
        task.setup_ema()


def test_a_teacher_that_cannot_follow_is_told():
    task = make_task()
    task.planned = 120
    assert 'about 250 updates (--dino-momentum 0.996)' in task.notes()[1] and 'about 120' in task.notes()[1]
    task.planned = 5000
    assert len(task.notes()) == 1 and '2 global crops of 32 px, 2 local ones of 16 px' in task.notes()[0]
