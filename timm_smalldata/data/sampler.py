"""Which image comes when: streams of draws, a function of (seed, epoch), split over ranks.

A `Draw` is an int (the image's index), so these samplers also fit into any other loader.
"""
from typing import Iterator, Optional, Tuple

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch.utils.data import Sampler

from ..rng import order_generator


class Draw(int):
    """An image index that knows its epoch and its position in the epoch's order over all ranks.

    >>> draw = Draw(7, epoch=2, position=30)
    >>> draw == 7, draw.epoch, draw.position
    (True, 2, 30)
    """
    epoch: int
    position: int

    def __new__(cls, index: int, epoch: int = 0, position: int = 0) -> 'Draw':
        draw = super().__new__(cls, index)
        draw.epoch, draw.position = epoch, position
        return draw

    def __reduce__(self) -> Tuple:
        return Draw, (int(self), self.epoch, self.position)


class EpochSampler(Sampler):
    """Base: `order(epoch)` gives the whole epoch's indices; rank r serves positions r, r + world_size, ...

    Args:
        num_draws: Draws per epoch over all ranks; the ragged end that not every rank could serve is dropped.
        seed: Seed of the order, equal on all ranks.
        rank: This process.
        world_size: Number of processes.
    """

    def __init__(self, num_draws: int, seed: int = 0, rank: int = 0, world_size: int = 1):
        if not 0 <= rank < world_size:
            raise ValueError(f'rank must be in 0..{world_size - 1}, not {rank}.')
        self.seed, self.rank, self.world_size = seed, rank, world_size
        self.num_draws = num_draws // world_size * world_size
        self.epoch, self._passes = 0, 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose order is served next."""
        self.epoch, self._passes = epoch, 0

    def order(self, epoch: int) -> np.ndarray:
        """Return the int64 indices (num_draws,) of one epoch over all ranks."""
        raise NotImplementedError

    def __len__(self) -> int:
        return self.num_draws // self.world_size

    def __iter__(self) -> Iterator[Draw]:
        # Served again within an epoch (a fixed number of batches), an image has a position of its own again.
        order, first = self.order(self.epoch), self._passes * self.num_draws
        self._passes += 1
        for position in range(self.rank, self.num_draws, self.world_size):
            yield Draw(order[position], self.epoch, first + position)


class InstanceSampler(EpochSampler):
    """Every image once per epoch, shuffled."""

    def __init__(self, num_images: int, seed: int = 0, rank: int = 0, world_size: int = 1):
        super().__init__(num_images, seed, rank, world_size)
        self.num_images = num_images

    def order(self, epoch: int) -> np.ndarray:
        return torch.randperm(self.num_images, generator=order_generator(self.seed, epoch)).numpy()


class RepeatedSampler(EpochSampler):
    """Repeated augmentation: each image `repeats` times in a row of the shuffled order (Hoffer et al. 2019; DeiT).

    An epoch keeps the length of one pass over the images (rounded down to a multiple of 256, as DeiT's and timm's
    samplers do), so it visits about 1 / repeats of them. Neighbouring positions hold the repeats, so that ranks share
    them. With seed 0 the indices are those of `timm.data.distributed_sampler.RepeatAugSampler`; another seed gives
    another order.
    """

    def __init__(self, num_images: int, repeats: int = 3, seed: int = 0, rank: int = 0, world_size: int = 1):
        rounded = num_images // 256 * 256 if num_images >= 256 else num_images
        super().__init__(rounded, seed, rank, world_size)
        self.num_images, self.repeats = num_images, repeats

    def order(self, epoch: int) -> np.ndarray:
        generator = torch.Generator().manual_seed(epoch) if self.seed == 0 else order_generator(self.seed, epoch)
        shuffled = torch.randperm(self.num_images, generator=generator).numpy()
        return np.repeat(shuffled, self.repeats)[:self.num_draws]


class ClassBalancedSampler(EpochSampler):
    """Draw with replacement, an image of class c with probability proportional to `n_c ** -power`.

    Args:
        targets: Class of each image (N,).
        power: 0 draws every image alike, 1 every class alike, 0.5 lies between (square root).
        num_samples: Draws per epoch over all ranks; by default N.
        seed: Seed of the draws, equal on all ranks.
        rank: This process.
        world_size: Number of processes.

    >>> draws = list(ClassBalancedSampler([0] * 98 + [1, 1], num_samples=1000))
    >>> 400 < sum(index >= 98 for index in draws) < 600
    True
    """

    def __init__(
            self,
            targets: ArrayLike,
            power: float = 1.0,
            num_samples: Optional[int] = None,
            seed: int = 0,
            rank: int = 0,
            world_size: int = 1,
    ):
        targets = torch.as_tensor(np.asarray(targets, dtype=np.int64))
        super().__init__(len(targets) if num_samples is None else num_samples, seed, rank, world_size)
        self.weights = torch.bincount(targets).double()[targets] ** -power

    def order(self, epoch: int) -> np.ndarray:
        generator = order_generator(self.seed, epoch)
        return torch.multinomial(self.weights, self.num_draws, replacement=True, generator=generator).numpy()


class SequentialSampler(EpochSampler):
    """Evaluation: every image once, in order; ranks may serve one more or one less, nothing is padded or dropped."""

    def __init__(self, num_images: int, rank: int = 0, world_size: int = 1):
        super().__init__(num_images, 0, rank, world_size)
        self.num_draws = num_images

    def order(self, epoch: int) -> np.ndarray:
        return np.arange(self.num_draws)

    def __len__(self) -> int:
        return len(range(self.rank, self.num_draws, self.world_size))


def create_sampler(
        num_images: int,
        repeats: Optional[int] = None,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
) -> EpochSampler:
    """Create the training sampler: every image alike, or each `repeats` times."""
    if repeats and repeats > 1:
        return RepeatedSampler(num_images, repeats, seed, rank, world_size)
    return InstanceSampler(num_images, seed, rank, world_size)
