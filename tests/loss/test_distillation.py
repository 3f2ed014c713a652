"""The distillation loss against the numbers of the published code, and against torch's weighted cross-entropy."""
import json
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from timm_smalldata.loss import CrossEntropy, effective_number_weights, hard_distillation_loss
from timm_smalldata.loss.distillation import soft_term

VECTORS = json.loads((Path(__file__).parents[1] / 'vectors' / 'distillation.json').read_text())
V, INPUTS = VECTORS['deitlt_distillation'], VECTORS['inputs']
CLS, DIST, TEACHER = (torch.tensor(x) for x in (INPUTS['logits'], V['dist_logits'], V['teacher_logits']))
SOFT, HARD = torch.tensor(INPUTS['soft']), torch.tensor(INPUTS['hard'])
WEIGHTS = effective_number_weights(INPUTS['cls_num'])


def close(value, expected):
    assert value.dtype == torch.float32 and value.ndim == 0
    torch.testing.assert_close(value, torch.tensor(expected), atol=1e-6, rtol=0)


def test_published_numbers():
    torch.testing.assert_close(WEIGHTS, torch.tensor(V['weights_small_beta0.9999']))
    close(hard_distillation_loss(CLS, DIST, SOFT, TEACHER), V['hard_soft_targets_weighted=False']['total'])
    close(hard_distillation_loss(CLS, DIST, SOFT, TEACHER, WEIGHTS), V['hard_soft_targets_weighted=True']['total'])
    close(hard_distillation_loss(CLS, DIST, HARD, TEACHER, WEIGHTS),
          V['DRW_stage_no_mixup_hard_labels_weighted']['total'])
    # the map [4, 3, 2, 1, 0] takes the teacher's class i to 4 - i
    close(hard_distillation_loss(CLS, DIST, SOFT, TEACHER.flip(1), WEIGHTS),
          V['map_targets_class_map_[4,3,2,1,0]_weighted']['total'])


def test_the_teachers_class_chooses_the_weight():
    torch.manual_seed(0)
    cls, dist, teacher = (torch.randn(6, 3, requires_grad=True) for _ in range(3))
    target, weight = torch.tensor([0, 0, 0, 1, 1, 2]), torch.tensor([1., 5., 0.2])
    said = teacher.argmax(1)
    assert not torch.equal(said, target)
    value = hard_distillation_loss(cls, dist, target, teacher, weight, alpha=1.0)
    torch.testing.assert_close(value, F.cross_entropy(dist, said, weight=weight))
    assert not torch.isclose(value, F.cross_entropy(dist, target, weight=weight))
    value.backward()
    assert teacher.grad is None and dist.grad is not None and not cls.grad.any()
    # the scale of the weights is of no account
    torch.testing.assert_close(hard_distillation_loss(cls, dist, target, teacher, 7 * weight, alpha=1.0), value)


def test_published_number_of_the_soft_form():
    close(soft_term(DIST, TEACHER, temperature=3.0) / 2, V['soft_tau3']['dist_half'])


def test_weights_of_the_soft_form():
    weight, said = torch.tensor([1., 5., 0.2, 0., 2.]), TEACHER.argmax(1)
    each = [soft_term(DIST[i:i + 1], TEACHER[i:i + 1], temperature=2.0) for i in range(len(DIST))]
    by_hand = sum(weight[c] * value for c, value in zip(said, each)) / weight[said].sum()
    torch.testing.assert_close(soft_term(DIST, TEACHER, weight, 2.0), by_hand)
    torch.testing.assert_close(soft_term(DIST, TEACHER, torch.full((5,), 3.), 2.0), soft_term(DIST, TEACHER, None, 2.0))


def test_alpha_and_criterion():
    assert torch.equal(hard_distillation_loss(CLS, DIST, HARD, TEACHER, alpha=0.0), F.cross_entropy(CLS, HARD))
    smooth = hard_distillation_loss(CLS, DIST, HARD, TEACHER, alpha=0.25, criterion=CrossEntropy(smoothing=0.1))
    torch.testing.assert_close(
        smooth, 0.75 * F.cross_entropy(CLS, HARD, label_smoothing=0.1)
        + 0.25 * F.cross_entropy(DIST, TEACHER.argmax(1)))


def test_half_precision_is_computed_in_float32():
    half = [x.bfloat16() for x in (CLS, DIST, TEACHER)]
    with torch.autocast('cpu', torch.bfloat16):
        value = hard_distillation_loss(half[0], half[1], SOFT, half[2], WEIGHTS)
    close(value, hard_distillation_loss(half[0].float(), half[1].float(), SOFT, half[2].float(), WEIGHTS).item())


def test_no_weight_in_the_batch_is_worth_nothing():
    assert hard_distillation_loss(CLS, DIST, HARD, TEACHER, torch.zeros(5), alpha=1.0) == 0


@pytest.mark.parametrize('change', [
    dict(dist_logits=torch.zeros(2, 4)), dict(teacher_logits=torch.zeros(3, 5)), dict(class_weight=torch.ones(4)),
    dict(alpha=1.5)])
def test_what_does_not_fit_is_an_error(change):
    with pytest.raises(ValueError, match='must'):
        hard_distillation_loss(**{**dict(cls_logits=CLS, dist_logits=DIST, target=HARD, teacher_logits=TEACHER),
                                  **change})
