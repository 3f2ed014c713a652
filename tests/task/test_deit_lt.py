"""Distillation through a token: what the teacher sees, which class it weighs, what begins late, and a whole run."""
import csv
import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import timm
import torch
import torch.nn.functional as F
from timm.data import Mixup

from timm_smalldata.build.optimizer import create_optimizer, create_schedule
from timm_smalldata.config.plan import finish_stage, plan
from timm_smalldata.data.loader import Batch
from timm_smalldata.data.views import Augment, Erase, ViewSpec
from timm_smalldata.engine.evaluate import evaluate, metric_names
from timm_smalldata.errors import UserError
from timm_smalldata.loss import CrossEntropy
from timm_smalldata.task import DeiTLTTask, create_task

VECTORS = json.loads((Path(__file__).parents[1] / 'vectors' / 'distillation.json').read_text())
SMALL = dict(img_size=32, patch_size=8, embed_dim=24, num_heads=2, depth=1)
VIEW = ViewSpec(32, augment=Augment('rand-m9-mstd0.5-inc1'), erase=Erase(0.25))


def student(**kwargs):
    return timm.create_model('deit_tiny_distilled_patch16_224', num_classes=3, **SMALL, **kwargs)


class Loader(list):
    """Batches, and where they are."""
    device = torch.device('cpu')


class Marker(torch.nn.Module):
    """A teacher that remembers what it sees, and says what it is told to say."""
    pretrained_cfg = dict(input_size=(3, 16, 16), mean=(0.1, 0.2, 0.3), std=(0.5, 0.4, 0.2))

    def __init__(self, says=None):
        super().__init__()
        self.says, self.scale = says, torch.nn.Parameter(torch.ones(1))

    def forward(self, x):
        self.seen, self.was_training = x, self.training
        return self.scale * (torch.eye(3)[torch.zeros(len(x), dtype=torch.long)] if self.says is None else self.says)


def create(teacher=None, **kwargs):
    torch.manual_seed(0)
    task = DeiTLTTask(student(), teacher or Marker(), verbose=False, **kwargs).configure(view=VIEW)
    return task.train()


def images(n=4, size=32, channels=3, seed=1):
    return torch.randn(n, channels, size, size, generator=torch.Generator().manual_seed(seed))


def test_the_teacher_sees_the_students_view_at_its_own_size():
    teacher = Marker()
    x = images()
    create(teacher)(x, torch.tensor([0, 1, 2, 0]))
    torch.testing.assert_close(teacher.seen, F.interpolate(x, (16, 16), mode='bicubic'))  # torch: antialias=False
    assert not teacher.was_training
    create(teacher).teach(images(size=16))
    assert torch.equal(teacher.seen, images(size=16))  # its own size: untouched


def test_published_numbers_of_the_resize():
    teacher = Marker()
    teacher.pretrained_cfg = dict(teacher.pretrained_cfg, input_size=(3, 2, 2))
    picture = (torch.arange(64.).reshape(8, 8) ** 1.5 / 100).expand(1, 3, 8, 8)
    create(teacher).teach(picture)
    expected = VECTORS['teacher_resize']['antialias_false(torchvision 0.15 tensor default, original behaviour)']
    torch.testing.assert_close(teacher.seen[0, 0].flatten(), torch.tensor(expected), atol=1e-5, rtol=0)


def test_its_own_normalisation():
    teacher, pixels = Marker(), torch.rand(2, 3, 16, 16)
    view = replace(VIEW, mean=(0.4, 0.5, 0.6), std=(0.3, 0.2, 0.1))
    mean, std = (torch.tensor(x).view(3, 1, 1) for x in (view.mean, view.std))
    create(teacher, teacher_renorm='auto').configure(view=view).teach((pixels - mean) / std)
    own_mean, own_std = (torch.tensor(teacher.pretrained_cfg[k]).view(3, 1, 1) for k in ('mean', 'std'))
    torch.testing.assert_close(teacher.seen, (pixels - own_mean) / own_std, atol=1e-5, rtol=1e-5)
    own = replace(VIEW, **{name: teacher.pretrained_cfg[name] for name in ('mean', 'std')})
    warned = [any('--teacher-renorm auto' in line for line in create(Marker(), **kwargs).configure(view=seen).notes())
              for kwargs, seen in (({}, view), (dict(teacher_renorm='auto'), view), ({}, own))]
    assert warned == [True, False, False]


def test_a_weak_view_of_its_own_is_mixed_as_the_students():
    teacher = Marker()
    task = create(teacher, teacher_view='weak')
    assert task.views() == [VIEW, VIEW.clean()] and not VIEW.clean().erase.prob and VIEW.clean().augment == Augment()
    first, second = images(seed=1), images(seed=2)
    batch = Batch([first, second], torch.tensor([0, 1, 2, 0]), torch.arange(4), 0, 0)
    x, _ = task.mix(batch)
    assert torch.equal(x[:, :3], first) and torch.equal(x[:, 3:], second)
    task.configure(mixup=Mixup(mixup_alpha=0.8, label_smoothing=0.1, num_classes=3))
    x, target = task.mix(batch)
    lam = ((x[0, 0] - first[3, 0]) / (first[0, 0] - first[3, 0])).median()
    assert 0 < lam < 1
    for part, view in ((x[:, :3], first), (x[:, 3:], second)):
        torch.testing.assert_close(part, lam * view + (1 - lam) * view.flip(0), atol=1e-3, rtol=1e-3)
    assert torch.equal(batch.views[0], images(seed=1)) and target.shape == (4, 3)
    task(x, target)
    torch.testing.assert_close(teacher.seen, F.interpolate(x[:, 3:], (16, 16), mode='bicubic'))


def test_outputs_of_the_teacher_are_put_into_our_order():
    says = torch.tensor([[5., 1., 0.], [0., 1., 5.]])
    task = create(Marker(says), order=[2, 0, 1])  # our class 0 is its output 2
    assert task.teach(images(2)).argmax(1).tolist() == [1, 0]


def by_hand(task, x, target, said, weight=None, criterion=F.cross_entropy):
    torch.manual_seed(3)
    model = task.get_eval_model()
    tokens = model.forward_features(x)
    cls, dist = model.head(tokens[:, 0]), model.head_dist(tokens[:, 1])
    return criterion(cls, target), F.cross_entropy(dist, said, weight=weight), tokens, cls, dist


def test_loss_and_what_is_told():
    says = torch.tensor([[5., 1., 0.], [0., 1., 5.], [0., 3., 0.], [4., 0., 0.]])
    task, x, target = create(Marker(says), alpha=0.25), images(), torch.tensor([0, 1, 2, 0])
    loss_cls, loss_dist, tokens, cls, dist = by_hand(task, x, target, says.argmax(1))
    torch.manual_seed(3)
    result = task(x, target)
    torch.testing.assert_close(result['loss'], 0.75 * loss_cls + 0.25 * loss_dist)
    expected = dict(
        loss_cls=loss_cls, loss_dist=loss_dist,
        token_cosine=F.cosine_similarity(tokens[:, 0], tokens[:, 1]).mean(),
        disagreement=100 * (cls.argmax(1) != dist.argmax(1)).float().mean(), teacher_top1=torch.tensor(50.),
        teacher_entropy=torch.distributions.Categorical(logits=says).entropy().mean())
    for name, value in expected.items():
        torch.testing.assert_close(result[name], value.detach(), msg=name)
        assert result[name].ndim == 0 and not result[name].requires_grad
    assert set(result) == {'loss', 'output', *expected}
    mixed = 0.6 * torch.eye(3)[target] + 0.4 * torch.eye(3)[target.flip(0)]
    assert task(x, mixed)['teacher_top1'] == 50


def test_weights_begin_with_their_epoch_and_follow_the_teachers_class():
    says = torch.eye(3)[[2, 2, 0, 1]] * 9
    weights, x, target = torch.tensor([0.1, 1., 7.]), images(), torch.tensor([0, 1, 2, 0])
    smooth = CrossEntropy(smoothing=0.1)
    for off in (True, False):
        task = create(Marker(says), criterion=smooth, drw_criterion=CrossEntropy(), mixup_off_drw=off)
        task.configure(reweight=(2, weights), mixup=Mixup(mixup_alpha=0.8, label_smoothing=0.1, num_classes=3))
        batch = Batch([x], target, torch.arange(4), 0, 0)
        for epoch in (3, 1, 2, 0):  # a function of the epoch alone
            task.set_epoch(epoch)
            late = epoch >= 2
            plain = late and off
            mixed, dense = task.mix(batch)
            assert (dense is target) == plain and torch.equal(mixed, x) == plain
            criterion = F.cross_entropy if plain else lambda a, b: F.cross_entropy(a, b, label_smoothing=0.1)
            loss_cls, loss_dist, *_ = by_hand(task, x, target, says.argmax(1), weights if late else None, criterion)
            torch.manual_seed(3)
            result = task(x, target)
            torch.testing.assert_close(result['loss_cls'], loss_cls.detach())
            torch.testing.assert_close(result['loss_dist'], loss_dist.detach())


def test_soft_and_without_a_teacher():
    says, weights = torch.eye(3)[[2, 2, 0, 1]] * 3, torch.tensor([0.1, 1., 7.])
    x, target = images(), torch.tensor([0, 1, 2, 0])
    for kind, late in (('soft', False), ('soft', True), ('none', False), ('none', True)):
        teacher = None if kind == 'none' else Marker(says)
        task = DeiTLTTask(student(), teacher, kind=kind, temperature=2.0, verbose=False).configure(
            view=VIEW, reweight=(2, weights)).train()
        task.set_epoch(2 if late else 1)
        loss_cls, _, _, _, dist = by_hand(task, x, target, target)
        q, p = (dist / 2).log_softmax(1), (says / 2).softmax(1)
        apart = 4 / 3 * (p * (p.log() - q)).sum(1)
        each = apart if kind == 'soft' else F.cross_entropy(dist, target, reduction='none')
        w = weights[target if kind == 'none' else says.argmax(1)] if late else torch.ones(4)
        torch.manual_seed(3)
        result = task(x, target)
        torch.testing.assert_close(result['loss'], (loss_cls + (w * each).sum() / w.sum()) / 2)
        assert ('teacher_top1' in result) == (kind == 'soft')
    assert task.notes() and not any('teacher:' in line for line in task.notes())


def test_the_teacher_is_not_trained_and_not_saved():
    teacher = timm.create_model('resnet20_cifar', num_classes=3)
    task = DeiTLTTask(student(), teacher, verbose=False).configure(view=VIEW).train()
    before = {name: value.clone() for name, value in teacher.state_dict().items()}
    args = SimpleNamespace(
        opt='adamw', lr=1e-2, weight_decay=0.05, momentum=0.9, opt_kwargs={}, sam_rho=0.0, sam_rho_schedule=None)
    optimizer = create_optimizer(args, task.get_trainable_module())
    trained = {id(p) for group in optimizer.param_groups for p in group['params']}
    assert trained == {id(p) for p in task.get_eval_model().parameters()}
    decayed = {id(p) for group in optimizer.param_groups if group['weight_decay'] for p in group['params']}
    model = task.get_eval_model()
    assert not decayed & {id(p) for p in (model.pos_embed, model.cls_token, model.dist_token, model.norm.weight)}
    assert id(model.head_dist.weight) in decayed
    task(images(), torch.tensor([0, 1, 2, 0]))['loss'].backward()
    optimizer.step()
    assert all(torch.equal(before[name], value) for name, value in teacher.state_dict().items())
    assert not teacher.training and all(p.grad is None for p in teacher.parameters())
    state = task.get_checkpoint_state()
    assert set(state) == {'state_dict'} and set(state['state_dict']) == set(student().state_dict())


def test_each_head_is_evaluated():
    task = create()
    x, y = images(8), torch.tensor([0, 1, 2, 0, 1, 2, 0, 0])
    task.configure(classes=SimpleNamespace(counts=[4, 2, 2]))
    model = task.get_eval_model().eval()
    tokens = model.forward_features(x)
    expected = dict(cls=model.head(tokens[:, 0]), dist=model.head_dist(tokens[:, 1]), avg=model(x))
    metrics, _ = evaluate(task, Loader([Batch([x], y, torch.arange(8), 0, 0)]))
    for name, logits in expected.items():
        torch.testing.assert_close(task.predict(model, x)[name], logits)
        value = 100 * (logits.argmax(1) == y).float().mean().item()
        assert metrics['top1' if name == 'avg' else f'{name}_top1'] == pytest.approx(value)
    assert metric_names(task) == list(metrics)
    assert create(fusion='dist').predicted == ('dist', 'avg', 'cls')


@pytest.mark.parametrize('change, words', [
    (dict(model=timm.create_model('test_vit', num_classes=3)), 'no distillation token'),
    (dict(teacher=None), 'hard distillation needs a teacher'), (dict(kind='mild'), 'hard, soft, none'),
    (dict(fusion='sum'), "'sum' is none of avg, cls, dist"), (dict(teacher_view='strong'), 'student, weak')])
def test_what_cannot_be_distilled(change, words):
    with pytest.raises(ValueError, match=words):
        create_task('deit-lt', **{**dict(model=student(), teacher=Marker()), **change})


def test_published_schedule():
    v = VECTORS['deitlt_lr_cifar']
    stage = plan(['x', '--task', 'deit-lt', '--teacher', 't', '--epochs', '1200', '--lr', str(v['base_lr_scaled']),
                  '--warmup-epochs', '5'])[0]
    finish_stage(stage)
    args = stage.settings.namespace()
    assert (args.mixup, args.cutmix, args.smoothing, args.aug_repeats, args.drop_path) == (0.8, 1.0, 0.1, 3, 0.1)
    assert (args.aa, args.reprob, args.weight_decay, args.opt) == ('rand-m9-mstd0.5-inc1', 0.25, 0.05, 'adamw')
    optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))], lr=args.lr)
    schedule, _ = create_schedule(args, optimizer, 2, 0)
    for epoch, rate in v['at_epoch'].items():
        schedule.step_update(int(2 * float(epoch)))
        assert optimizer.param_groups[0]['lr'] == pytest.approx(rate, rel=1e-6), epoch


@pytest.mark.parametrize('argv, words', [
    ('--task deit-lt', 'needs a trained --teacher'), ('--teacher x', 'only with deit-lt, kd-logit'),
    ('--kd-temperature 2', 'only with kd-logit, kd-token, deit-lt'),
    ('--fusion cls', 'only with deit-lt'), ('--task deit-lt --teacher x --layer-decay 0.7', 'does not go with'),
    ('--task deit-lt --teacher x --paco-dim 8', 'only with paco'),
    ('--task deit-lt --teacher x --distillation-alpha 1.5', 'out of range')])
def test_flags_that_do_not_go_together(argv, words):
    with pytest.raises(UserError, match=words) as error:
        finish_stage(plan(['x', *argv.split()])[0])
    assert '\n' not in str(error.value)


def test_without_a_teacher_its_stage_is_left_out():
    stages = plan(['x', '--recipe', 'deit-lt', '--student.kd-token-distill-type', 'none'])
    assert [stage.folder for stage in stages] == ['2-student']
    assert len(plan(['x', '--recipe', 'deit-lt', '--student.kd-token-distill-type', 'soft'])) == 2


STUDENT = ['--model', 'deit_tiny_distilled_patch16_224', '--model-kwargs', 'embed_dim=24', 'num_heads=2', 'depth=1',
           'patch_size=8', '--img-size', '32']


def test_a_teacher_and_a_student_from_the_command_line(photos, run):
    code, _, err = run([photos, '--model', 'resnet20_cifar', '--experiment', 'teacher', '--lr', '0.01'])
    assert code == 0, err
    words = [photos, '--task', 'deit-lt', *STUDENT]
    code, _, err = run([*words, '--teacher', 'runs/teacher', '--drw-epoch', '1', '--epochs', '2'])
    assert code == 0, err
    assert 'teacher: CifarResNet, 0.27 M parameters' in err and 'at 32 x 32 px' in err
    assert 'epoch 2: class weights begin' in err and 'from epoch 2 on mixing and label smoothing are off' in err
    rows = list(csv.DictReader(open('runs/e/summary.csv')))
    for name in ('train_loss_cls', 'train_loss_dist', 'train_token_cosine', 'train_disagreement', 'train_teacher_top1',
                 'train_teacher_entropy', 'eval_top1', 'eval_cls_few', 'eval_dist_few'):
        assert all(row[name] for row in rows), name
    report = json.loads(Path('runs/e/report.json').read_text())
    assert set(report['predictions']) == {'avg', 'cls', 'dist'} and report['predictions']['avg']['few'] == report['few']
    model = timm.create_model('local-dir:runs/e/model', pretrained=True).eval()  # stock timm: the mean of both heads
    x = torch.randn(2, 3, 32, 32)
    tokens = model.forward_features(x)
    torch.testing.assert_close(model(x), (model.head(tokens[:, 0]) + model.head_dist(tokens[:, 1])) / 2)
    assert type(model).__module__.startswith('timm.')

    code, _, err = run([*words, '--teacher', 'runs/teacher', '--torchcompile', 'eager', '--amp', '--sam-rho', '0.05',
                        '--grad-accum-steps', '2', '--experiment', 'all'])
    assert code == 0, err

    other = ['--experiment', 'other', '--dry-run']
    for argv, said in (
            ([photos, '--task', 'deit-lt', '--model', 'test_vit', '--teacher', 'runs/teacher'], 'no distillation'),
            ([*words, '--teacher', 'runs/none'], 'neither the folder of a finished run'),
            ([*words, '--teacher', 'runs/teacher', '--drw-epoch', '9'], 'lies beyond the run'),
            ([*words, '--teacher', 'runs/teacher', '--fusion', 'cls', '--tau-norm', '1'], '--fusion cls')):
        code, _, err = run([*argv, *other])
        assert code == 2 and said in err.splitlines()[-1], err
