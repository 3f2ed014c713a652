"""Streams of draws: a function of (seed, epoch), shared among ranks without overlap."""
import pickle

import numpy as np
import pytest
from timm.data.distributed_sampler import RepeatAugSampler

from timm_smalldata.data.sampler import Draw, InstanceSampler, RepeatedSampler, SequentialSampler

# First ten indices of DeiT's RASampler in epoch 0: 1000 images, 8 processes, 3 repeats, 96 draws a process.
RANK0 = [44, 675, 209, 561, 261, 928, 256, 802, 442, 272]
RANK1 = [44, 775, 209, 561, 825, 928, 256, 562, 442, 272]


def draws(sampler, epoch=0):
    sampler.set_epoch(epoch)
    return list(sampler)


def make(kind, num_images, seed=0, rank=0, world_size=1):
    if kind == 'instance':
        return InstanceSampler(num_images, seed, rank, world_size)
    if kind == 'repeated':
        return RepeatedSampler(num_images, 3, seed, rank, world_size)
    return SequentialSampler(num_images, rank, world_size)


@pytest.mark.parametrize('kind', ['instance', 'repeated', 'sequential'])
@pytest.mark.parametrize('world_size', [1, 2, 3])
@pytest.mark.parametrize('num_images', [60, 61, 300])
def test_ranks_share_the_positions(kind, num_images, world_size):
    """Training ranks have equally many draws; a position means the same image whatever the size of the world."""
    alone = {draw.position: draw for draw in draws(make(kind, num_images), 2)}
    ranks = [draws(make(kind, num_images, 0, rank, world_size), 2) for rank in range(world_size)]
    assert [len(rank) for rank in ranks] == [len(make(kind, num_images, 0, r, world_size)) for r in range(world_size)]
    positions = [draw.position for rank in ranks for draw in rank]
    most = len(alone) if kind == 'sequential' else len(alone) // world_size * world_size
    assert sorted(positions) == list(range(most))
    if kind != 'sequential':
        assert len({len(rank) for rank in ranks}) == 1
    assert all(draw == alone[draw.position] and draw.epoch == 2 for rank in ranks for draw in rank)


def test_every_image_once_an_epoch():
    assert sorted(draws(InstanceSampler(50, seed=3))) == list(range(50))
    assert draws(SequentialSampler(5)) == [0, 1, 2, 3, 4] == draws(SequentialSampler(5), 7)


@pytest.mark.parametrize('kind', ['instance', 'repeated'])
def test_the_order_is_a_function_of_seed_and_epoch(kind):
    sampler = make(kind, 300, seed=1)
    third = draws(sampler, 3)
    assert draws(sampler, 0) != third and draws(sampler, 3) == third == draws(make(kind, 300, seed=1), 3)
    assert draws(make(kind, 300, seed=2), 3) != third


@pytest.mark.parametrize('world_size', [1, 2, 8])
@pytest.mark.parametrize('num_images', [1000, 256, 200])
@pytest.mark.parametrize('epoch', [0, 5])
def test_repeats_of_seed_0_are_timms(num_images, world_size, epoch):
    for rank in range(world_size):
        timms = RepeatAugSampler(range(num_images), num_replicas=world_size, rank=rank)
        timms.set_epoch(epoch)
        ours = draws(RepeatedSampler(num_images, 3, 0, rank, world_size), epoch)
        assert ours == list(timms)
        assert ours != draws(RepeatedSampler(num_images, 3, 1, rank, world_size), epoch)  # timm's ignores the seed


def test_repeats_are_those_of_deit():
    ranks = [draws(RepeatedSampler(1000, 3, 0, rank, 8)) for rank in (0, 1)]
    assert [len(rank) for rank in ranks] == [96, 96]
    assert [rank[:10] for rank in ranks] == [RANK0, RANK1]


def test_repeats_stand_side_by_side_and_are_told_apart_by_position():
    stream = draws(RepeatedSampler(300, 3))
    assert len(stream) == 256
    for first in range(0, 255, 3):
        assert stream[first] == stream[first + 1] == stream[first + 2]
        assert [draw.position for draw in stream[first:first + 3]] == [first, first + 1, first + 2]
    assert len(set(stream)) == 86


def test_a_second_pass_within_an_epoch_has_positions_of_its_own():
    """A schedule with a fixed number of batches begins the sampler again: the images come again, drawn anew."""
    sampler = InstanceSampler(10, 1)
    sampler.set_epoch(2)
    first, second = list(sampler), list(sampler)
    assert first == second and {draw.epoch for draw in second} == {2}
    assert [draw.position for draw in first] == list(range(10))
    assert [draw.position for draw in second] == list(range(10, 20))
    assert [draw.position for draw in draws(sampler, 2)] == list(range(10))


def test_a_draw_survives_the_way_to_a_worker():
    draw = pickle.loads(pickle.dumps((Draw(7, 2, 30), 1)))[0]
    assert draw == 7 and isinstance(draw, int) and (draw.epoch, draw.position) == (2, 30)


@pytest.mark.parametrize('rank, world_size', [(2, 2), (-1, 1)])
def test_a_rank_outside_the_world(rank, world_size):
    with pytest.raises(ValueError, match='rank must be in'):
        InstanceSampler(10, 0, rank, world_size)


@pytest.mark.parametrize('power, share', [(0.0, 0.02), (0.5, 0.125), (1.0, 0.5)])
def test_class_balanced_draws(power, share):
    from timm_smalldata.data import ClassBalancedSampler
    targets = np.array([0] * 98 + [1] * 2)
    sampler = ClassBalancedSampler(targets, power=power, num_samples=20000, seed=1)
    draws = np.array(list(sampler))
    assert len(draws) == len(sampler) == 20000
    assert abs((targets[draws] == 1).mean() - share) < 4 * (share * (1 - share) / 20000) ** 0.5  # four standard errors
    parts = [ClassBalancedSampler(targets, power, 20000, seed=1, rank=rank, world_size=2) for rank in (0, 1)]
    assert np.array_equal(np.stack([list(p) for p in parts], 1).ravel(), draws)  # ranks share one order
    sampler.set_epoch(1)
    assert list(sampler) != draws.tolist() and list(sampler) == list(sampler)
