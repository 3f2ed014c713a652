"""IDMM: pixels and labels that stay together, boxes as published, parts that can be switched off."""
import math
from types import SimpleNamespace

import numpy as np
import pytest
import timm
import torch
from PIL import Image

from timm_smalldata.data.loader import Batch, create_loader
from timm_smalldata.data.sampler import InstanceSampler
from timm_smalldata.data.views import ViewSpec
from timm_smalldata.errors import UserError
from timm_smalldata.loss import instance_discrimination_loss
from timm_smalldata.task import InstanceDiscriminationTask, create_task, idmm
from timm_smalldata.task.idmm import VIEW, cutmix_, cutmix_box
from timm_smalldata.utils.random import seed_step


def make_task(num_images=40, **kwargs):
    torch.manual_seed(0)
    model = timm.create_model('test_vit', num_classes=0, img_size=32)
    return create_task('idmm', model, num_images=num_images, verbose=False, **kwargs).configure(view=VIEW.at(32))


def flat_batch(index=(7, 3, 11, 30, 21), views=6, size=32):
    """A batch whose pixels say which image they are from."""
    index = torch.tensor(index)
    view = index.float().view(-1, 1, 1, 1).expand(-1, 3, size, size)
    return Batch([view.clone() for _ in range(views)], torch.zeros_like(index), index, 0, 0)


def test_views_are_the_published_crops():
    views = make_task().views()
    assert [view.crop.scale for view in views] == [(0.14, 1.0)] * 2 + [(0.05, 0.4)] * 4
    for view in views:
        assert (view.size, view.crop.mode, view.crop.interpolation, view.crop.hflip) == (32, 'rrc', 'bilinear', 0.5)
        assert view.crop.ratio is None and view.std == (0.229, 0.224, 0.225)
        assert view.augment.auto_augment is None and view.erase.prob == 0


def test_the_pipeline_is_in_the_published_order():
    from torchvision import transforms

    from timm_smalldata.data.views import _transform
    _, flip, jitter, grey, blur, _ = _transform(VIEW).transforms
    assert isinstance(flip, transforms.RandomHorizontalFlip) and flip.p == 0.5
    assert isinstance(grey, transforms.RandomGrayscale) and grey.p == 0.2
    assert (jitter.p, blur.p) == (0.8, 0.5)
    colours, gauss = jitter.transforms[0], blur.transforms[0]
    assert isinstance(colours, transforms.ColorJitter) and isinstance(gauss, transforms.GaussianBlur)
    for strength in (colours.brightness, colours.contrast, colours.saturation):
        assert strength == pytest.approx((0.2, 1.8))
    assert tuple(colours.hue) == (-0.2, 0.2) and tuple(gauss.sigma) == (0.1, 2.0)


def exact_statistics(size, alpha_quantile):
    """Mean share of own pixels and share of empty boxes, by enumerating centres for each side; no random numbers."""
    centre = np.arange(size)
    lengths = np.array([
        (np.minimum(centre + side // 2, size) - np.maximum(centre - side // 2, 0)).mean() for side in range(size + 1)])
    lam = alpha_quantile((np.arange(200_000) + 0.5) / 200_000)
    side = np.floor(size * np.sqrt(1 - np.maximum(lam, 1 - lam))).astype(int)
    return 1 - (lengths[side] ** 2).mean() / size ** 2, (lengths[side] == 0).mean()


def test_boxes_have_the_published_statistics():
    own, empty = exact_statistics(112, lambda u: np.sin(np.pi * u / 2) ** 2)  # the quantiles of Beta(1/2, 1/2)
    assert own == pytest.approx(0.868, abs=5e-4) and empty == pytest.approx(0.022, abs=1e-3)
    seed_step(0, 0, 0, 0)
    images = torch.zeros(2, 1, 112, 112)
    lams = np.array([cutmix_(images)[1] for _ in range(20_000)])
    assert lams.mean() == pytest.approx(own, abs=4 * lams.std() / math.sqrt(len(lams)))
    assert (lams == 1).mean() == pytest.approx(empty, abs=4 * math.sqrt(empty / len(lams)))
    assert 0.5 <= lams.min() and lams.max() == 1


def test_boxes_lie_inside_and_know_height_from_width():
    seed_step(1, 0, 0, 0)
    boxes = np.array([cutmix_box(10, 40, 0.75) for _ in range(4000)])
    assert boxes.min() >= 0 and boxes[:, :2].max() <= 10 and boxes[:, 2:].max() <= 40
    heights, widths = boxes[:, 1] - boxes[:, 0], boxes[:, 3] - boxes[:, 2]
    assert (heights.max(), widths.max()) == (4, 20)  # half of 10 is 5, cut to 4
    assert set(boxes[heights == 4][:, 0] + 2) == set(range(2, 9))  # whole boxes: every centre that leaves room


def test_pasted_pixels_are_those_of_the_partner_that_the_label_names():
    task, batch = make_task(), flat_batch()
    before = [view.clone() for view in batch.views]
    for step in range(20):
        seed_step(0, 0, 0, step)
        images, target = task.mix(batch)
        assert all(torch.equal(view, old) for view, old in zip(batch.views, before))
        assert images.shape == (30, 3, 32, 32) and [len(pairs.own) for pairs in target] == [10, 20]
        boxes = []
        for group, pairs in zip(images.split([10, 20]), target):
            assert torch.equal(pairs.own, batch.index.repeat(len(group) // 5))  # crop after crop
            assert sorted(pairs.partner.tolist()) == sorted(pairs.own.tolist())  # a permutation within the group
            pasted = (group != pairs.own.view(-1, 1, 1, 1)).any(0).any(0)  # where anything was pasted, in any image
            ys, xs = torch.where(pasted)
            boxes.append((ys.min(), ys.max() + 1, xs.min(), xs.max() + 1) if len(ys) else (0, 0, 0, 0))
            top, bottom, left, right = boxes[-1]
            assert pasted.sum() == (bottom - top) * (right - left)  # one box for all
            assert pairs.lam == pytest.approx(1 - int(pasted.sum()) / 32 ** 2)
            expected = pairs.own.view(-1, 1, 1, 1).expand(-1, 3, 32, 32).float().clone()
            expected[:, :, top:bottom, left:right] = pairs.partner.view(-1, 1, 1, 1).float()
            assert torch.equal(group, expected)
        if step == 0:
            assert boxes[0] != boxes[1]  # each group draws its own


def test_mixing_is_a_function_of_the_step():
    task, batch = make_task(), flat_batch()

    def mixed(step):
        seed_step(0, 0, 0, step)
        images, target = task.mix(batch)
        return images, target[0].partner

    assert all(map(torch.equal, mixed(3), mixed(3))) and not torch.equal(mixed(3)[0], mixed(4)[0])


@pytest.mark.parametrize('name, kwargs', [
    ('deit_tiny_patch16_224', dict(img_size=32)), ('pvt_v2_b0', {}), ('resnet18', {})])
def test_starts_at_twice_log_n(name, kwargs):
    torch.manual_seed(0)
    model = timm.create_model(name, num_classes=0, **kwargs)
    task = InstanceDiscriminationTask(model, 2040, verbose=False)
    head = task.trainable_module.head
    assert head.weight.std().item() == pytest.approx(0.02, abs=5e-4) and not head.bias.any()
    assert head.weight.shape == (2040, model.num_features)
    index = torch.randperm(2040)[:16]
    batch = Batch([torch.randn(16, 3, 32, 32) for _ in range(6)], torch.zeros(16), index, 0, 0)
    result = task(*task.mix(batch))
    z = model(torch.cat(batch.views)).detach()
    # Logits ~ N(0, (0.02 |z|)^2): log sum exp is about log N + variance / 2, and the mean of 16 own logits lies within
    # four of its standard deviations, also where all crops of an image look alike.
    deviation = 0.02 * z.norm(dim=1).square().mean().sqrt().item()
    expected = 2 * (math.log(2040) + deviation ** 2 / 2)
    assert deviation < 0.5 and result['loss'].item() == pytest.approx(expected, abs=4 * 2 * deviation / 4)
    torch.testing.assert_close(result['loss'], result['loss_large'] + result['loss_small'])
    result['loss'].backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in task.parameters())


def test_one_pass_equals_a_pass_for_each_group():
    task, batch = make_task().eval(), flat_batch()
    images, target = task.mix(batch)
    images = images + torch.randn(images.shape, generator=torch.Generator().manual_seed(0))
    result, module = task(images, target), task.trainable_module
    total = 0.
    for part, pairs in zip((images[:10], images[10:]), target):
        logits = module.head(module.backbone(part))
        total = total + instance_discrimination_loss(logits, pairs.own, pairs.partner, pairs.lam, 0.1)
    torch.testing.assert_close(result['loss'], total)
    assert result['output'].shape == (30, 40)


def test_each_part_can_be_switched_off():
    batch = flat_batch()
    plain = make_task(cutmix=False)
    images, target = plain.mix(batch)
    assert torch.equal(images, torch.cat(batch.views))
    assert all(pairs.lam == 1 and torch.equal(pairs.own, pairs.partner) for pairs in target)

    large = make_task(multicrop=False)
    assert len(large.views()) == 2
    images, target = large.mix(flat_batch(views=2))
    assert len(images) == 10 and len(target) == 1 and 'loss_small' not in large(images, target)

    images, target = plain.mix(batch)
    sharp = make_task(cutmix=False, smoothing=0.)
    logits = sharp.eval()(images, target)['output']
    expected = sum(torch.nn.functional.cross_entropy(x, pairs.own) for x, pairs in zip(logits.split([10, 20]), target))
    torch.testing.assert_close(sharp(images, target)['loss'], expected)
    assert plain.eval()(images, target)['loss'] != expected  # smoothed


def test_users_get_the_plain_backbone_and_checkpoints_hold_the_head():
    task = make_task()
    model = task.get_eval_model()
    assert model.num_classes == 0 and type(model) is type(timm.create_model('test_vit'))
    assert task.predict(model, torch.zeros(2, 3, 32, 32))['features'].shape == (2, model.num_features)
    task.setup_ema(decay=0.9)
    assert type(task.get_eval_model(ema=True)) is type(model) and task.get_eval_model(ema=True) is not model
    state = {**task.get_checkpoint_state(), **task.get_checkpoint_state(ema=True)}
    assert not any(name.startswith('head.weight') for name in state['state_dict'])
    other = make_task()
    torch.nn.init.ones_(other.trainable_module.head.weight)
    other.load_checkpoint_state(state['state_dict'], state['task_state'])
    for a, b in zip(task.trainable_module.parameters(), other.trainable_module.parameters()):
        assert torch.equal(a, b)
    task.compile(backend='eager')
    assert task.get_eval_model() is model


def test_a_classifier_is_taken_off():
    task = InstanceDiscriminationTask(timm.create_model('test_vit', img_size=32), 12, verbose=False)
    assert task.get_eval_model().num_classes == 0


def test_it_learns_to_tell_images_apart():
    generator = torch.Generator().manual_seed(0)
    photos = torch.randn(24, 3, 32, 32, generator=generator)
    task = make_task(24)
    optimizer = torch.optim.AdamW(task.parameters(), lr=2e-3)
    losses = []
    for step in range(25):
        index = torch.randperm(24, generator=generator)[:12]
        noisy = [photos[index] + 0.3 * torch.randn(12, 3, 32, 32, generator=generator) for _ in range(6)]
        seed_step(0, 0, 0, step)
        result = task(*task.mix(Batch(noisy, torch.zeros(12), index, 0, step)))
        optimizer.zero_grad(), result['loss'].backward(), optimizer.step()
        losses.append(result['loss'].item())
    assert losses[0] == pytest.approx(2 * math.log(24), abs=0.3) and losses[-1] < losses[0] - 1
    hits = (task.eval().trainable_module(photos).argmax(1) == torch.arange(24)).float().mean()
    assert hits > 5 / 24  # chance is 1 / 24


def test_labels_are_the_images_whatever_is_left_out(photos, divided):
    """Pitfall: a bad file that shifts the labels, or the class as label."""
    (photos / 'ant' / '1.jpg').write_bytes(b'no image')
    (photos / 'bee' / '0.png').write_bytes(b'no image')
    data = divided([photos, '--task', 'idmm', '--on-bad-image', 'skip'])
    n = len(data.train)
    assert len(data.bad) == 2 and data.val is not None and n < 24
    view = ViewSpec(32, crop=VIEW.crop.__class__('eval', hflip=0.0))
    for epoch in range(2):
        loader = create_loader(data.train, InstanceSampler(n, seed=5), [view], 4, seed=5)
        loader.set_epoch(epoch)
        seen = []
        for batch in loader:
            seen += batch.index.tolist()
            for picture, index in zip(batch.views[0], batch.index):
                name = data.train.names[index]
                with Image.open(photos / name) as image:
                    expected = torch.tensor(np.asarray(image.convert('RGB'))).float().mean((0, 1)) / 255
                shown = picture.mean((1, 2)) * torch.tensor(view.std) + torch.tensor(view.mean)
                torch.testing.assert_close(shown, expected, atol=0.02, rtol=0)
        assert sorted(seen) == list(range(n))
    assert len(set(data.train.names)) == n and not set(data.train.names) & set(data.bad)


def test_a_head_beyond_the_memory_is_refused(monkeypatch):
    model = timm.create_model('test_vit', num_classes=0, img_size=32)
    args = SimpleNamespace(task='idmm', idmm_multicrop=True, idmm_cutmix=True, idmm_smoothing=0.1)
    setting = SimpleNamespace(num_images=10 ** 12, device=torch.device('cpu'))
    with pytest.raises(UserError, match='1000000000000 training images .* fewer images'):
        InstanceDiscriminationTask.from_settings(args, model, setting)
    setting.num_images = 2040
    task = InstanceDiscriminationTask.from_settings(args, model, setting)
    d = model.num_features
    assert task.notes() == [
        f'head of 2040 images x {d} features and 2040 biases: {16 * 2040 * (d + 1) / 2**20:.1f} MiB with gradients '
        'and AdamW states']
    monkeypatch.setattr(idmm, 'memory_bytes', lambda device: None)  # the system does not say
    setting.num_images = 3
    assert InstanceDiscriminationTask.from_settings(args, model, setting).num_images == 3
