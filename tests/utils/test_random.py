"""Randomness without memory: keys that differ, generators that a key sets, and nothing else."""
import random
from itertools import product

import numpy as np
import pytest
import torch

from timm_smalldata.utils.random import draw_key, order_generator, seed_draw, seed_step


def numbers():
    return random.random(), np.random.rand(), torch.rand(1).item(), torch.randperm(100)[0].item()


def test_keys_are_64_bits_and_differ():
    keys = [draw_key(*key) for key in product(range(5), range(8), range(200), range(3))]
    assert len(set(keys)) == len(keys) == 24000 and all(0 <= key < 1 << 64 for key in keys)
    # every bit is set in about half of them: neighbours get unrelated numbers
    for bit in range(64):
        assert 11400 < sum(key >> bit & 1 for key in keys) < 12600  # 12000; sd 77


def test_arguments_do_not_trade_places():
    assert len({draw_key(*key) for key in ((1, 2, 3, 4), (2, 1, 3, 4), (1, 3, 2, 4), (1, 2, 4, 3), (4, 3, 2, 1))}) == 5
    assert draw_key(1, 2, 3) == draw_key(1, 2, 3, 0)


def test_a_key_sets_every_generator_that_transforms_use():
    for key in (0, 1, draw_key(0, 0, 0), (1 << 64) - 1):
        seed_draw(key)
        first = numbers()
        numbers()
        seed_draw(key)
        assert numbers() == first


def test_other_keys_give_other_numbers():
    seen = []
    for position in range(200):
        seed_draw(draw_key(0, 0, position))
        seen.append(numbers())
    for column in list(zip(*seen))[:3]:
        assert len(set(column)) == 200 and 0.4 < sum(column) / 200 < 0.6  # sd of the mean 0.02


@pytest.mark.parametrize('change', range(4))
def test_a_step_is_a_function_of_seed_rank_epoch_and_step(change):
    key = [42, 1, 3, 7]
    seed_step(*key)
    first = numbers()
    seed_step(*key)
    assert numbers() == first
    key[change] += 1
    seed_step(*key)
    assert all(a != b for a, b in zip(numbers()[:3], first))


def test_the_order_generator_is_its_own():
    torch.manual_seed(3)
    state = torch.get_rng_state()
    orders = [
        torch.randperm(50, generator=order_generator(*key)).tolist() for key in ((0, 0), (0, 1), (1, 0), (1, 1))]
    assert torch.equal(torch.get_rng_state(), state)
    assert len({tuple(order) for order in orders}) == 4
    assert torch.randperm(50, generator=order_generator(1, 0)).tolist() == orders[2]
