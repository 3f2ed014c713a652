"""PaCo: keys that wait, a queue that turns, an average that follows; forward changes nothing; a whole run."""
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import pytest
import timm
import torch
import torch.nn.functional as F

from timm_smalldata.config.plan import finish_stage, plan
from timm_smalldata.data.loader import Batch
from timm_smalldata.data.views import Augment, Crop, Erase, ViewSpec
from timm_smalldata.errors import UserError
from timm_smalldata.loss import ParametricContrastiveLoss
from timm_smalldata.task import PaCoTask
from timm_smalldata.utils.random import seed_step

COUNTS = [5, 3, 1]


def create(queue=6, momentum=0.9, **kwargs):
    torch.manual_seed(0)
    model = timm.create_model('resnet20_cifar', num_classes=3, drop_rate=0.1)
    return PaCoTask(model, COUNTS, queue=queue, momentum=momentum, dim=8, verbose=False, **kwargs).train()


def batch(seed=0, step=0):
    g = torch.Generator().manual_seed(seed)
    views = [torch.randn(4, 3, 16, 16, generator=g) for _ in range(2)]
    return Batch(views, torch.randint(0, 3, (4,), generator=g), torch.arange(4), 0, step)


def state(task):
    return {name: value.clone() for name, value in (*task.state_dict().items(), *(
        (name, value) for name, value in task.named_buffers()))}


def test_the_loss_is_that_of_queries_keys_and_logits():
    task, b = create(), batch()
    task.enqueue(F.normalize(torch.randn(5, 8), dim=1), torch.tensor([0, 1, 2, 0, 1]))
    task.eval()  # batch norm and dropout still: views can be seen one by one
    model, head = task.get_eval_model(), task.trainable_module.head
    queries = F.normalize(head(model.forward_head(model.forward_features(b.views[0]), pre_logits=True)), dim=1)
    keys = task.key_encoder(b.views[1])[0]
    expected = ParametricContrastiveLoss(COUNTS, alpha=0.01, temperature=0.05)(
        queries, keys, model(b.views[0]), b.target, task.queue_feats, task.queue_targets)
    result = task(*task.mix(b))
    torch.testing.assert_close(result['loss'], expected)
    torch.testing.assert_close(result['output'], model(b.views[0]))
    result['loss'].backward()
    assert all(p.grad is not None for p in task.trainable_module.parameters())
    assert all(p.grad is None for p in task.key_encoder.parameters())


def test_forward_changes_nothing_that_a_second_call_would_see():
    task = create()
    task.enqueue(F.normalize(torch.randn(6, 8), dim=1), torch.tensor([0, 1, 2, 0, 1, 2]))
    task.before_step(0)
    input = task.mix(batch())
    losses = []
    for _ in range(2):
        seed_step(0, 0, 0, 0)
        losses.append(task(*input)['loss'])
    assert torch.equal(*losses)
    once, twice = deepcopy(create()), deepcopy(create())
    for task, calls in ((once, 1), (twice, 2)):
        task.before_step(0)
        pairs = [task.mix(batch(seed, seed)) for seed in (0, 1)]
        before = state(task)
        for _ in range(calls):
            for step, pair in enumerate(pairs):
                seed_step(0, 0, 0, step)
                task(*pair)
        moved = {name for name, value in state(task).items() if not torch.equal(value, before[name])}
        assert moved and all('running' in name or 'batches_tracked' in name for name in moved)  # batch norm alone
        task.after_step(0)
    assert torch.equal(once.queue_feats, twice.queue_feats) and torch.equal(once.queue_targets, twice.queue_targets)


def test_queue_and_average_move_after_the_step():
    task = create(queue=6)
    expected = []
    for update in range(2):
        task.before_step(update)
        b = batch(update)
        seed_step(0, 0, 0, update)
        task(*task.mix(b))
        expected += b.target.tolist()
        task.after_step(update)
        assert task.queue_targets.tolist() == expected[-6:] and len(task.queue_feats) == len(task.queue_targets)
    torch.testing.assert_close(task.queue_feats.norm(dim=1), torch.ones(6))
    assert not task.queue_feats.requires_grad
    key, query = task.key_encoder.backbone.fc.weight, task.get_eval_model().fc.weight
    with torch.no_grad():
        old = key.clone()
        query += 1
    task.after_step(2)
    torch.testing.assert_close(key, 0.9 * old + 0.1 * query)
    assert len(task.queue_feats) == 6  # nothing waited
    none = create(queue=0)
    none(*none.mix(batch()))
    none.after_step(0)
    assert len(none.queue_feats) == 0


def test_the_task_state_holds_everything_but_the_model():
    task, other = create(), create()
    task(*task.mix(batch()))
    with torch.no_grad():
        task.get_eval_model().fc.weight.add_(1)
    task.after_step(0)
    saved = deepcopy(task.get_checkpoint_state())
    assert set(saved['state_dict']) == set(timm.create_model('resnet20_cifar').state_dict())
    other.load_checkpoint_state(saved['state_dict'], saved['task_state'])
    now, then = state(other), state(task)
    assert now.keys() == then.keys() and all(torch.equal(now[name], then[name]) for name in then)


def test_views():
    view = ViewSpec(32, augment=Augment('rand-m9-mstd0.5-inc1'), erase=Erase(0.25))
    hue = Augment(None, (0.4, 0.4, 0.4, 0.1), 0.8, 0.2, pillow_blur_prob=0.5)
    crop = Crop('rrc', (0.2, 1.0), interpolation='bilinear')
    for key_view, expected, colours in (
            ('small', crop, hue),
            ('large', view.crop, replace(hue, color_jitter=(0.4, 0.4, 0.4), color_jitter_prob=1.0)),
            ('crop', view.crop, replace(hue, pillow_blur_prob=0.0, gaussian_blur_prob=0.5))):
        first, second = create(key_view=key_view).configure(view=view).views()
        assert first == view and not second.erase.prob
        assert (second.crop, second.augment) == (expected, colours)
    flipped = replace(view, crop=replace(view.crop, hflip=0.0))
    assert create().configure(view=flipped).views()[1].crop.hflip == 0.0


def test_the_projection_has_a_batch_norm():
    kinds = [type(layer).__name__ for layer in create().trainable_module.head]
    assert kinds == ['Linear', 'BatchNorm1d', 'ReLU', 'Linear']
    assert [type(layer).__name__ for layer in create(norm=False).trainable_module.head] == ['Linear', 'ReLU', 'Linear']


def test_published_settings():
    stage = plan(['x', '--task', 'paco'])[0]
    finish_stage(stage)
    args = stage.settings.namespace()
    assert (args.opt, args.momentum, args.lr_base, args.lr_base_size) == ('momentum', 0.9, 0.05, 128)
    assert (args.aa, args.cutout, args.train_crop_mode, args.reprob) == ('cifar10', 16, 'pad', 0.0)
    assert args.weight_decay == 5e-4
    assert (args.paco_alpha, args.paco_temperature, args.paco_queue, args.paco_dim, args.paco_momentum) == (
        0.01, 0.05, 1024, 32, 0.999)
    assert (args.epochs, args.batch_size, args.opt_kwargs) == (400, 128, dict(filter_bias_and_bn=False))


@pytest.mark.parametrize('argv, words', [
    ('--task paco --loss ldam', 'does not go with --task paco'), ('--task paco --mixup 0.8', 'does not go with'),
    ('--task paco --drw-epoch 1', 'does not go with'), ('--paco-queue 8', 'only with paco'),
    ('--task paco --paco-temperature 0', 'out of range'), ('--task paco --paco-queue -1', 'at least 0')])
def test_flags_that_do_not_go_together(argv, words):
    with pytest.raises(UserError, match=words) as error:
        finish_stage(plan(['x', *argv.split()])[0])
    assert '\n' not in str(error.value)


def test_from_the_command_line(photos, run):
    code, _, err = run([photos, '--task', 'paco', '--model', 'resnet20_cifar', '--paco-queue', '7', '--lr', '0.01'])
    assert code == 0, err
    assert 'queue of 7 keys; projection 64 -> 32' in err
    saved = torch.load(Path('runs/e/last.pth.tar'), weights_only=False)
    assert len(saved['task_state']['queue_feats']) == 7 and {'head', 'key_encoder'} <= set(saved['task_state'])
    model = timm.create_model('local-dir:runs/e/model', pretrained=True).eval()
    assert model(torch.randn(1, 3, 32, 32)).shape == (1, 3)
