"""DINO's loss: published numbers for loss, gradient and centre; pairs, parts that are switched off, collapses."""
import json
import math
from pathlib import Path

import pytest
import torch

from timm_smalldata.loss import DINOLoss
from timm_smalldata.loss.dino import collapse_statistics

V = json.loads((Path(__file__).parents[1] / 'vectors' / 'dino.json').read_text())['dino_loss_2steps']


def random_views(count, seed=0, rows=3, dim=6):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(rows, dim, generator=generator) for _ in range(count)]


def test_two_published_steps():
    loss_fn = DINOLoss(V['out_dim'], center_momentum=V['center_momentum'])
    for step in V['steps']:
        torch.testing.assert_close(loss_fn.center, torch.tensor(step['center_before']), atol=1e-6, rtol=1e-5)
        loss_fn.teacher_temp = step['teacher_temp']
        student = torch.tensor(step['student_output'], requires_grad=True)
        teacher = torch.tensor(step['teacher_output'], requires_grad=True)
        loss = loss_fn(student.split(2), teacher.split(2))
        loss.backward()
        assert loss.item() == pytest.approx(step['loss'], rel=1e-5) and loss.ndim == 0
        torch.testing.assert_close(student.grad, torch.tensor(step['grad_student']), atol=1e-6, rtol=1e-5)
        assert teacher.grad is None
        torch.testing.assert_close(loss_fn.center, torch.tensor(step['center_after']), atol=1e-6, rtol=1e-5)


def test_against_the_equation():
    student, teacher = random_views(4), random_views(2, seed=1)
    loss_fn = DINOLoss(6, student_temp=0.2, teacher_temp=0.3)
    loss_fn.center += torch.arange(6) / 10
    total, pairs = 0.0, 0
    for i in range(2):
        for j in range(4):
            if i == j:
                continue
            for t, s in zip(teacher[i].tolist(), student[j].tolist()):
                p = [math.exp((value - k / 10) / 0.3) for k, value in enumerate(t)]
                q = [math.exp(value / 0.2) for value in s]
                total -= sum(a / sum(p) * math.log(b / sum(q)) for a, b in zip(p, q)) / 3
            pairs += 1
    assert pairs == 6 and loss_fn(student, teacher).item() == pytest.approx(total / pairs, rel=1e-5)


def test_a_crop_is_not_compared_with_itself():
    student, teacher = random_views(3), random_views(1, seed=1)
    student = [view.requires_grad_() for view in student]
    DINOLoss(6)(student, teacher).backward()  # the only teacher view is the student's first
    assert student[0].grad is None and student[1].grad.any() and student[2].grad.any()


def test_without_centring_the_centre_stays():
    loss_fn = DINOLoss(6, center_momentum=1.0)
    loss_fn(random_views(2), random_views(2, seed=1))
    assert not loss_fn.center.any()
    centred = DINOLoss(6, center_momentum=0.0)
    centred(random_views(2), random_views(2, seed=1))
    torch.testing.assert_close(centred.center, torch.cat(random_views(2, seed=1)).mean(dim=0, keepdim=True))


def test_float16_inputs_are_computed_in_float32():
    views = [view.half() * 60 for view in random_views(2)]
    with torch.autocast('cpu', torch.bfloat16):
        loss = DINOLoss(6)(views, views)
    assert loss.dtype == torch.float32 and loss.item() == DINOLoss(6)([v.float() for v in views], views).item()


def test_statistics_tell_the_collapses_apart():
    k = 8
    uniform, one_for_all = torch.full((4, k), 1 / k), torch.eye(k)[:1].expand(4, k)
    healthy = torch.eye(k)[:4]
    values = {name: {key: value.item() for key, value in collapse_statistics([p[:2], p[2:]]).items()}
              for name, p in (('uniform', uniform), ('one', one_for_all), ('healthy', healthy))}
    assert values['uniform'] == pytest.approx(
        dict(teacher_entropy=math.log(k), teacher_kl_uniform=0, teacher_mean_entropy=math.log(k)), abs=1e-6)
    assert values['one'] == pytest.approx(
        dict(teacher_entropy=0, teacher_kl_uniform=math.log(k), teacher_mean_entropy=0), abs=1e-6)
    assert values['healthy'] == pytest.approx(
        dict(teacher_entropy=0, teacher_kl_uniform=math.log(k), teacher_mean_entropy=math.log(4)), abs=1e-6)


def test_loss_is_entropy_plus_divergence():
    student, teacher = random_views(5), random_views(2, seed=1)
    loss_fn = DINOLoss(6, teacher_temp=0.5)
    targets = loss_fn.targets(teacher)
    logs = [(view / 0.1).log_softmax(-1) for view in student]
    divergence = torch.stack([
        torch.nn.functional.kl_div(logs[j], targets[i], reduction='batchmean')
        for i in range(2) for j in range(5) if i != j]).mean()
    entropy = collapse_statistics(targets)['teacher_entropy']
    torch.testing.assert_close(loss_fn(student, teacher), entropy + divergence)


@pytest.mark.parametrize('students, teachers, words', [
    (1, 1, 'at least two crops'), (1, 2, '1 student and 2 teacher'), (2, 0, '2 student and 0 teacher'),
    (0, 0, '0 student')])
def test_views_without_a_pair_are_refused(students, teachers, words):
    with pytest.raises(ValueError, match=words):
        DINOLoss(6)(random_views(students), random_views(teachers))


def test_wrong_shapes_and_settings_are_refused():
    with pytest.raises(ValueError, match=r'\(B, K\) = \(3, 6\), got \(3, 5\)'):
        DINOLoss(6)(random_views(2), random_views(1, dim=5))
    with pytest.raises(ValueError, match='Temperatures'):
        DINOLoss(6, teacher_temp=0)
    with pytest.raises(ValueError, match='center_momentum'):
        DINOLoss(6, center_momentum=1.1)
