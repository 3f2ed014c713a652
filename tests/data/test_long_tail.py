import random

import numpy as np
import pytest
import torch

from timm_smalldata.data.long_tail import long_tailed_counts, long_tailed_indices

# Numbers of the original CIFAR-LT function.
CIFAR10 = {
    10: [5000, 3871, 2997, 2320, 1796, 1391, 1077, 834, 645, 500],
    50: [5000, 3237, 2096, 1357, 878, 568, 368, 238, 154, 100],
    100: [5000, 2997, 1796, 1077, 645, 387, 232, 139, 83, 50],
    200: [5000, 2775, 1540, 854, 474, 263, 146, 81, 45, 25],
}
CIFAR100_IF100 = [
    500, 477, 455, 434, 415, 396, 378, 361, 344, 328, 314, 299, 286, 273, 260, 248, 237, 226, 216, 206, 197, 188, 179,
    171, 163, 156, 149, 142, 135, 129, 123, 118, 112, 107, 102, 98, 93, 89, 85, 81, 77, 74, 70, 67, 64, 61, 58, 56, 53,
    51, 48, 46, 44, 42, 40, 38, 36, 35, 33, 32, 30, 29, 27, 26, 25, 24, 23, 22, 21, 20, 19, 18, 17, 16, 15, 15, 14, 13,
    13, 12, 12, 11, 11, 10, 10, 9, 9, 8, 8, 7, 7, 7, 6, 6, 6, 6, 5, 5, 5, 5]
CIFAR100_SUMS = {10: 19573, 50: 12608, 100: 10847, 200: 9502}


@pytest.mark.parametrize('factor', CIFAR10)
def test_exponential_counts(factor):
    assert long_tailed_counts(10, 5000, factor) == CIFAR10[factor]
    assert sum(long_tailed_counts(100, 500.0, factor)) == CIFAR100_SUMS[factor]


def test_cifar100_counts():
    assert long_tailed_counts(100, 50000 / 100, 100) == CIFAR100_IF100


@pytest.mark.parametrize('classes, largest, smallest', [(10, 5000, 50), (100, 500, 5)])
def test_step_counts(classes, largest, smallest):
    counts = long_tailed_counts(classes, largest, 100, 'step')
    assert counts == [largest] * (classes // 2) + [smallest] * (classes // 2)
    assert sum(counts) == 25250


def test_counts_are_cut_and_may_be_fractions():
    assert long_tailed_counts(3, 10.9, 1) == [10, 10, 10]
    assert long_tailed_counts(3, 10, 4) == [10, 5, 2]
    assert long_tailed_counts(3, 10, 4, 'step') == [10, 2, 2]  # an odd class out goes to the tail
    assert long_tailed_counts(1, 10, 100) == [10]


@pytest.mark.parametrize('arguments, words', [
    ((10, 5000, 0.01), '100, not 0.01'),
    ((10, 5000, float('nan')), 'imbalance_factor'),
    ((10, 5000, 100, 'linear'), 'linear'),
    ((0, 5000, 100), 'num_classes'),
    ((10, -1, 100), 'max_count'),
])
def test_count_errors(arguments, words):
    with pytest.raises(ValueError, match=words) as e:
        long_tailed_counts(*arguments)
    assert '\n' not in str(e.value)


def test_selection_of_the_original():
    # Made by the original with 6, 3 and 1 images of 10 each; its shuffle always runs over the whole class.
    targets = [i % 3 for i in range(30)]
    first, second, third = [6, 24, 12, 27, 3, 18], [10, 16, 4], [8]
    chosen = long_tailed_indices(targets, 1)
    assert chosen.dtype == np.int64 and chosen.shape == (30,)
    assert chosen[:6].tolist() == first
    assert chosen[10:13].tolist() == second
    assert chosen[20:21].tolist() == third
    assert long_tailed_counts(3, 10, 6) == [10, 4, 1]
    tail = long_tailed_indices(targets, 6)
    assert tail[10:13].tolist() == second and tail[14:].tolist() == third


def reference_indices(targets, factor, profile, seed):
    """The rule, written class by class."""
    rng = np.random.RandomState(seed)
    targets = np.asarray(targets)
    classes = sorted(set(targets.tolist()))
    counts = long_tailed_counts(len(classes), len(targets) / len(classes), factor, profile)
    chosen = []
    for c, n in zip(classes, counts):
        positions = np.where(targets == c)[0].astype(np.int64)
        rng.shuffle(positions)
        chosen.extend(positions[:n].tolist())
    return chosen


@pytest.mark.parametrize('profile', ['exp', 'step'])
@pytest.mark.parametrize('seed', [0, 3])
def test_indices_follow_the_rule_on_uneven_labels(profile, seed):
    targets = np.random.RandomState(seed).choice([2, 3, 7, 11, 50], 400, p=[0.02, 0.5, 0.2, 0.08, 0.2])
    expected = reference_indices(targets, 12.5, profile, seed)
    for kind in (targets, targets.tolist(), torch.tensor(targets)):
        assert long_tailed_indices(kind, 12.5, profile, seed).tolist() == expected
    assert long_tailed_indices(targets, 12.5, profile, seed + 1).tolist() != expected


def test_targets_and_global_generators_stay_untouched():
    targets = np.arange(40) % 4
    before = np.random.get_state()[1].copy(), random.getstate(), torch.get_rng_state()
    long_tailed_indices(targets, 5)
    assert (np.random.get_state()[1] == before[0]).all()
    assert random.getstate() == before[1]
    assert torch.equal(torch.get_rng_state(), before[2])
    assert targets.tolist() == [i % 4 for i in range(40)]


@pytest.mark.parametrize('targets', [[], [[0, 1], [1, 0]]])
def test_index_errors(targets):
    with pytest.raises(ValueError, match='one label per image'):
        long_tailed_indices(targets, 10)
    with pytest.raises(ValueError, match='100, not 0.01'):
        long_tailed_indices([0, 1], 0.01)


@pytest.mark.parametrize('factor', CIFAR10)
def test_balanced_counts_are_those_of_the_tail_shared_out(factor):
    counts = long_tailed_counts(10, 5000, factor, 'balanced')
    assert len(set(counts)) == 1 and 0 <= sum(CIFAR10[factor]) - sum(counts) < 10
    kept = long_tailed_indices([0, 1, 2] * 30, 5, 'balanced', seed=3)
    assert sorted(kept % 3) == [0] * (len(kept) // 3) + [1] * (len(kept) // 3) + [2] * (len(kept) // 3)
