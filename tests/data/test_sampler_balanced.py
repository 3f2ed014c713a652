"""Samplers that draw classes more alike: what is drawn, when it changes, and how ranks share it."""
import numpy as np
import pytest
import torch

from timm_smalldata.data import ClassBalancedSampler, InstanceSampler, ProgressiveSampler, RepeatedSampler
from timm_smalldata.data.sampler import DeferredSampler, create_sampler

COUNTS = (900, 90, 10)
TARGETS = np.repeat([0, 1, 2], COUNTS)


def draws(sampler, epoch=0):
    sampler.set_epoch(epoch)
    return np.array(list(sampler))


def shares(sampler, epoch=0):
    return np.bincount(TARGETS[draws(sampler, epoch)], minlength=3) / len(sampler)


def close(measured, expected, n):
    """Four standard errors of a share."""
    expected = np.asarray(expected)
    return bool((abs(measured - expected) <= 4 * np.sqrt(expected * (1 - expected) / n) + 1e-12).all())


def test_create_sampler_by_name():
    assert isinstance(create_sampler(TARGETS), InstanceSampler)
    for name, power in (('class-balanced', 1.0), ('sqrt', 0.5)):
        sampler = create_sampler(TARGETS, name, seed=3)
        expected = ClassBalancedSampler(TARGETS, power, seed=3)
        assert np.array_equal(draws(sampler, 2), draws(expected, 2))
        assert np.array_equal(draws(create_sampler(TARGETS, power=power, seed=3), 2), draws(expected, 2))
    sampler = create_sampler(np.zeros(600, int), repeats=4, seed=5, rank=1, world_size=2)
    assert isinstance(sampler, RepeatedSampler) and (sampler.repeats, sampler.seed, sampler.rank) == (4, 5, 1)
    assert isinstance(create_sampler(np.zeros(10, int), repeats=1), InstanceSampler)
    with pytest.raises(ValueError, match='Unknown sampler'):
        create_sampler(TARGETS, 'balanced')
    with pytest.raises(ValueError, match='number of epochs'):
        create_sampler(TARGETS, 'progressive')


@pytest.mark.parametrize('power', [0.25, 0.5, 1.0, 2.0])
def test_power_between_images_and_classes(power):
    sampler = ClassBalancedSampler(TARGETS, power, num_samples=20_000)
    expected = np.array(COUNTS, float) ** (1 - power)
    assert close(shares(sampler), expected / expected.sum(), 20_000)


def test_progressive_goes_from_images_to_classes():
    sampler = ProgressiveSampler(TARGETS, epochs=11, num_samples=20_000, seed=1)
    images, classes = np.array(COUNTS) / sum(COUNTS), np.full(3, 1 / 3)
    for epoch in (0, 3, 5, 10, 12):
        t = min(epoch / 10, 1)
        assert close(shares(sampler, epoch), (1 - t) * images + t * classes, 20_000), epoch


def test_images_of_a_class_are_drawn_alike():
    sampler = ClassBalancedSampler([0, 0, 0, 0, 1], num_samples=40_000)
    counts = np.bincount(draws(sampler), minlength=5)
    assert close(counts / 40_000, [1 / 8] * 4 + [1 / 2], 40_000)


def test_a_missing_class_label_takes_nothing():
    """Labels 0 and 2 without a 1: the two that are there share the draws."""
    counts = np.bincount(np.array([0, 0, 2])[draws(ProgressiveSampler([0, 0, 2], 2, 10_000), 1)])
    assert close(counts / 10_000, [0.5, 0, 0.5], 10_000)


def test_deferred_resampling_is_a_function_of_the_epoch():
    sampler = create_sampler(TARGETS, drs_epoch=3, seed=7)
    assert isinstance(sampler, DeferredSampler)
    plain, balanced = InstanceSampler(len(TARGETS), 7), ClassBalancedSampler(TARGETS, seed=7)
    for epoch in (4, 2, 3, 0):  # in any order, as after a resume
        assert np.array_equal(draws(sampler, epoch), draws(plain if epoch < 3 else balanced, epoch)), epoch
    named = create_sampler(TARGETS, 'sqrt', drs_epoch=1)
    assert np.array_equal(draws(named, 1), draws(ClassBalancedSampler(TARGETS, 0.5), 1))


@pytest.mark.parametrize('make', [
    lambda **kw: create_sampler(TARGETS, 'class-balanced', **kw),
    lambda **kw: create_sampler(TARGETS, 'progressive', epochs=5, **kw),
    lambda **kw: create_sampler(TARGETS, 'class-balanced', repeats=3, **kw),
    lambda **kw: create_sampler(TARGETS, drs_epoch=1, **kw),
])
@pytest.mark.parametrize('world_size', [2, 3])
def test_no_draw_is_served_twice(make, world_size):
    alone = draws(make(), 2)
    parts = [make(rank=rank, world_size=world_size) for rank in range(world_size)]
    for part in parts:
        part.set_epoch(2)
    served = sorted((draw.position, int(draw)) for part in parts for draw in part)
    assert served == list(enumerate(alone[:len(alone) // world_size * world_size]))


def test_repeated_augmentation_of_balanced_draws():
    sampler = create_sampler(TARGETS, 'class-balanced', repeats=3, seed=2)
    order = draws(sampler)
    assert len(order) == 768  # 1000 rounded down to a multiple of 256
    assert np.array_equal(order, np.repeat(draws(ClassBalancedSampler(TARGETS, seed=2)), 3)[:768])
    positions = [draw.position for draw in sampler]
    assert len(set(positions)) == len(positions)  # so each repeat is augmented on its own


def test_global_generators_stay_still():
    torch.manual_seed(0)
    before = torch.get_rng_state(), np.random.get_state()[1].copy()
    draws(create_sampler(TARGETS, 'progressive', epochs=3))
    assert torch.equal(before[0], torch.get_rng_state()) and np.array_equal(before[1], np.random.get_state()[1])


@pytest.mark.parametrize('targets, words', [([], r'shape \(0,\)'), ([0, -1], 'negative'), ([[0, 1]], 'class of each')])
def test_labels_that_are_none(targets, words):
    with pytest.raises(ValueError, match=words):
        ClassBalancedSampler(targets)
