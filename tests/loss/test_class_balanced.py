import json
from pathlib import Path

import pytest
import torch

from timm_smalldata.loss import create_loss, effective_number_weights

V = json.loads((Path(__file__).parents[1] / 'vectors' / 'longtail_losses.json').read_text())
COUNTS = V['inputs']['cls_num']
X, HARD, SOFT = (torch.tensor(V['inputs'][key]) for key in ('logits', 'hard', 'soft'))

EXPECTED = V['effective_number_weights']
CIFAR10 = [5000, 2997, 1796, 1077, 645, 387, 232, 139, 83, 50]


@pytest.mark.parametrize('counts, name', [(COUNTS, 'small_100_50_10_5_1'), (CIFAR10, 'cifar10_IF100')])
@pytest.mark.parametrize('beta', [0.9, 0.99, 0.999, 0.9999])
def test_effective_number_weights(counts, name, beta):
    weights = effective_number_weights(counts, beta)
    assert weights.dtype == torch.float32
    assert weights.tolist() == pytest.approx(EXPECTED[f'{name}_beta{beta}'], rel=1e-6)


@pytest.mark.parametrize('counts, name', [(COUNTS, 'small_100_50_10_5_1'), (CIFAR10, 'cifar10_IF100')])
def test_towards_inverse_frequency(counts, name):
    weights = effective_number_weights(counts, beta=1 - 1e-10).tolist()
    assert weights == pytest.approx(EXPECTED[f'{name}_inverse_freq_normalised'], rel=1e-5)


def test_hundred_classes():
    weights = effective_number_weights([int(500 * 0.01 ** (i / 99)) for i in range(100)])
    assert weights.sum().item() == pytest.approx(EXPECTED['cifar100_IF100_beta0.9999_sum'])
    ends = weights[:3].tolist() + weights[-3:].tolist()
    assert ends == pytest.approx(EXPECTED['cifar100_IF100_beta0.9999_first3_last3'], rel=1e-6)


def test_beta_range():
    assert effective_number_weights(COUNTS, beta=0).tolist() == EXPECTED['beta0_all_ones']
    for beta in (-0.1, 1., 1.5):
        with pytest.raises(ValueError, match='beta must lie in'):
            effective_number_weights(COUNTS, beta=beta)


def test_class_without_images_counts_as_one():
    assert torch.equal(effective_number_weights([5, 0]), effective_number_weights([5, 1]))


def test_cross_entropy():
    loss = create_loss('class-balanced-ce', COUNTS)(X, HARD)
    assert loss.item() == pytest.approx(V['other_losses']['CB_CE_hard'], rel=1e-6)


def test_focal_is_focal_with_these_weights():
    focal = create_loss('focal', gamma=0.5)
    focal.set_class_weight(effective_number_weights(COUNTS, 0.99))
    loss = create_loss('class-balanced-focal', COUNTS, beta=0.99, gamma=0.5)
    assert torch.equal(loss(X, SOFT), focal(X, SOFT))
