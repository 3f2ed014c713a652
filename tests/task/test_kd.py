"""timm's distillations through the train command: timm's numbers, any teacher, timm's flags."""
import csv
from pathlib import Path
from types import SimpleNamespace

import pytest
import timm
import timm.task
import torch

from timm_smalldata.config.plan import finish_stage, plan
from timm_smalldata.data.views import ViewSpec
from timm_smalldata.engine import checkpoint
from timm_smalldata.errors import UserError
from timm_smalldata.loss import create_loss
from timm_smalldata.task import FeatureKDTask, LogitKDTask, TaskSetting, TokenKDTask

STOCK = {
    LogitKDTask: timm.task.LogitDistillationTask, FeatureKDTask: timm.task.FeatureDistillationTask,
    TokenKDTask: timm.task.TokenDistillationTask}
DISTILLED = ['--model', 'deit_tiny_distilled_patch16_224', '--model-kwargs', 'embed_dim=24', 'num_heads=2', 'depth=1',
             'patch_size=8', '--img-size', '32']
FLAGS = dict(
    teacher='t', teacher_path=None, task='kd', model='m', kd_loss_type='kl', kd_temperature=3.0,
    kd_token_distill_type='soft', distill_loss_weight=None, task_loss_weight=0.25, kd_student_feature_dim=None,
    kd_teacher_feature_dim=None)


def models():
    torch.manual_seed(0)
    small = dict(img_size=32, patch_size=8, embed_dim=24, num_heads=2, depth=1, num_classes=3)
    return timm.create_model('deit_tiny_distilled_patch16_224', **small), timm.create_model(
        'resnet20_cifar', num_classes=3).eval()


def create(kind, names=None, view=None, **flags):
    student, teacher = models()
    setting = TaskSetting(
        SimpleNamespace(names=['ant', 'bee', 'cat'], counts=[3, 2, 1]), 6, view or ViewSpec(32), torch.device('cpu'),
        lambda: create_loss('ce'), load_teacher=lambda *args: (teacher, names))
    return kind.from_settings(SimpleNamespace(**{**FLAGS, **flags}), student, setting)


@pytest.mark.parametrize('kind', STOCK)
def test_the_loss_is_timms(kind):
    """Student and teacher of one size: what timm's own task gives, with timm's cross-entropy."""
    view = ViewSpec(32, mean=(0.4, 0.5, 0.6), std=(0.3, 0.2, 0.1))
    task = create(kind, view=view).train()
    student, teacher = models()
    student.pretrained_cfg.update(mean=view.mean, std=view.std)
    kwargs = {} if kind is FeatureKDTask else dict(temperature=3.0)
    stock = STOCK[kind](
        student, teacher, criterion=torch.nn.CrossEntropyLoss(), task_loss_weight=0.25, verbose=False, **kwargs).train()
    stock.trainable_module.load_state_dict(task.trainable_module.state_dict())
    x, y = torch.randn(4, 3, 32, 32), torch.tensor([0, 1, 2, 0])
    ours, theirs = task(x, y), stock(x, y)
    assert set(ours) == set(theirs)
    for name in ours:
        torch.testing.assert_close(ours[name], theirs[name], msg=name)


def test_classes_in_another_order_and_images_of_another_size():
    teacher = create(LogitKDTask, names=['cat', 'ant', 'bee']).teacher
    inner = teacher.model.model
    x = torch.randn(2, 3, 48, 48)
    seen = torch.nn.functional.interpolate(x, (32, 32), mode='bicubic')
    torch.testing.assert_close(teacher(x), inner(seen)[:, [1, 2, 0]])
    torch.testing.assert_close(teacher(x, return_features=True), inner.forward_head(
        inner.forward_features(seen), pre_logits=True))
    with pytest.raises(UserError, match='knows other classes'):
        create(LogitKDTask, names=['cat', 'dog', 'ant'])
    create(FeatureKDTask, names=['cat', 'dog', 'ant'])  # features know no classes
    for width in (1, 65):
        with pytest.raises(UserError, match=f'and --teacher t: .* {width} wide and the teacher.s 64: leave out'):
            create(FeatureKDTask, kd_teacher_feature_dim=width)
    with pytest.raises(UserError, match='--model m and --teacher t: mat1 and mat2 shapes'):
        create(FeatureKDTask, kd_student_feature_dim=25)


@pytest.mark.parametrize('argv, task, teacher', [
    ('--kd-model-name resnet18', 'kd-logit', 'resnet18'),
    ('--kd-model-name resnet18 --kd-distill-type token', 'kd-token', 'resnet18'),
    ('--kd-distill-type feature --teacher output/t', 'kd-feature', 'output/t')])
def test_timms_spelling(argv, task, teacher):
    stage, = plan(['photos', *argv.split()])
    finish_stage(stage)
    args = stage.settings.namespace()
    assert (args.task, args.teacher, args.kd_model_name, args.kd_distill_type) == (task, teacher, None, None)
    assert (args.kd_temperature, args.kd_token_distill_type, args.task_loss_weight) == (4.0, 'soft', None)


@pytest.mark.parametrize('argv, words', [
    ('--task kd-logit', '--task kd-logit needs a trained --teacher'),
    ('--kd-model-name a --teacher b', '--kd-model-name contradicts --teacher b'),
    ('--kd-distill-type token --task kd-logit --teacher b', '--kd-distill-type contradicts --task kd-logit'),
    ('--task kd-token --teacher b --kd-token-distill-type none', 'goes with --task deit-lt only'),
    ('--task kd-logit --teacher b --kd-student-feature-dim 3', 'only with kd-feature')])
def test_flags_that_do_not_go_together(argv, words):
    with pytest.raises(UserError, match=words):
        finish_stage(plan(['photos', *argv.split()])[0])


def test_from_the_command_line(photos, run):
    assert run([photos, '--model', 'resnet20_cifar', '--experiment', 'teacher', '--lr', '0.01'])[0] == 0
    for kind, model, column in (
            ('logit', ['--loss', 'balanced-softmax'], 'train_kd_loss'),
            ('feature', [*DISTILLED, '--drw-epoch', '0'], 'train_kd_loss'),
            ('token', DISTILLED, 'train_distill_loss')):
        code, _, err = run([
            photos, *model, '--teacher', 'runs/teacher', '--kd-distill-type', kind, '--experiment', kind,
            '--task-loss-weight', '0.3'])
        assert code == 0, err
        assert 'teacher: CifarResNet, 0.27 M parameters, sees what the student sees at 32 x 32 px' in err
        assert '0.3 of the labels, 0.7 of the teacher' in err
        row, = csv.DictReader(open(f'runs/{kind}/summary.csv'))
        assert float(row[column]) > 0 and float(row['train_task_loss']) > 0
        timm.create_model(f'local-dir:runs/{kind}/model', pretrained=True)  # a plain model, without projection
    assert set(checkpoint.load_last(Path('runs/feature'))['task_state']) == {'projection'}
