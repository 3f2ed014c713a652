"""Randomness without memory: every random number is a function of a key, never of what ran before.

What is drawn for one view of one draw is a function of (seed, epoch, position, view); mixing, dropout, drop-path and
masks are functions of (seed, rank, epoch, step). So nothing depends on workers, caches or on an interruption.
"""
import random

import numpy as np
import torch

_MASK = (1 << 64) - 1
GOLDEN = 0x9E3779B97F4A7C15  # the constants of SplitMix64
FACTORS = (0xBF58476D1CE4E5B9, 0x94D049BB133111EB)


def _mix(*values: int) -> int:
    """Hash integers to 64 bits (the splitmix64 finaliser over a running state)."""
    state = 0
    for value in values:
        state = (state + GOLDEN + value) & _MASK
        state = ((state ^ (state >> 30)) * FACTORS[0]) & _MASK
        state = ((state ^ (state >> 27)) * FACTORS[1]) & _MASK
        state ^= state >> 31
    return state


def draw_key(seed: int, epoch: int, position: int, view: int = 0) -> int:
    """Return the 64-bit key of one view of one draw.

    Args:
        seed: The run's seed.
        epoch: Epoch of the draw.
        position: Place of the draw in the epoch's order over all ranks.
        view: Number of the view.

    >>> draw_key(0, 0, 0) != draw_key(0, 0, 1)
    True
    """
    return _mix(1, seed, epoch, position, view)


def draw_keys(seed: int, epochs: np.ndarray, positions: np.ndarray, view: int = 0) -> np.ndarray:
    """Return the keys of one view of many draws, uint64 (N,): `draw_key` of each.

    >>> draw_keys(7, np.array([2]), np.array([30]), 1).tolist() == [draw_key(7, 2, 30, 1)]
    True
    """
    state = np.zeros(len(positions), dtype=np.uint64)
    for value in (1, seed & _MASK, epochs, positions, view):
        state = _finalise(state + np.uint64(GOLDEN) + np.asarray(value, dtype=np.uint64))
    return state


def uniform(states: np.ndarray, count: int) -> np.ndarray:
    """Return numbers in [0, 1) of a counter-based generator: nothing is remembered between two calls.

    They are the first outputs of SplitMix64 (Steele et al., OOPSLA 2014, https://doi.org/10.1145/2660193.2660195).

    Args:
        states: uint64 (N,), e.g. keys.
        count: Numbers of each.

    Returns:
        float64 (N, count), multiples of 2 ** -53.

    >>> uniform(np.array([0], dtype=np.uint64), 2).round(5).tolist()
    [[0.88331, 0.43153]]
    """
    counters = np.arange(1, 1 + count, dtype=np.uint64) * np.uint64(GOLDEN)
    return (_finalise(states[:, None] + counters) >> np.uint64(11)) * 2.0 ** -53


def _finalise(state: np.ndarray) -> np.ndarray:
    state = (state ^ (state >> np.uint64(30))) * np.uint64(FACTORS[0])
    state = (state ^ (state >> np.uint64(27))) * np.uint64(FACTORS[1])
    return state ^ (state >> np.uint64(31))


def seed_draw(key: int) -> None:
    """Seed the generators that image transforms use (Python's, NumPy's, torch's CPU generator).

    For worker processes or the main thread only: these generators are shared by all threads of a process.
    """
    random.seed(key)
    np.random.seed(key & 0xFFFFFFFF)
    torch.default_generator.manual_seed(key >> 1)  # much cheaper than torch.manual_seed, which visits every device


def seed_step(seed: int, rank: int, epoch: int, step: int) -> None:
    """Seed all generators for one micro-batch: mixing, dropout, drop-path, masks."""
    key = _mix(2, seed, rank, epoch, step)
    seed_draw(key)
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        torch.cuda.manual_seed(key >> 1)


def order_generator(seed: int, epoch: int) -> torch.Generator:
    """Return a generator for the order of one epoch, the same on every rank."""
    return torch.Generator().manual_seed(_mix(3, seed, epoch) >> 1)
