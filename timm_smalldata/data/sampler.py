"""Which image comes when: streams of draws, a function of (seed, epoch), split over ranks.

A `Draw` is an int (the image's index), so these samplers also fit into any other loader.
"""
from typing import Iterator, Optional, Tuple

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch.utils.data import Sampler

from ..utils.random import order_generator


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
    """Repeated augmentation: each image `repeats` times in a row of the order (Hoffer et al. 2019; DeiT).

    An epoch keeps the length of one pass over the images (rounded down to a multiple of 256, as DeiT's and timm's
    samplers do), so it visits about 1 / repeats of them. Neighbouring positions hold the repeats, so that ranks share
    them. With seed 0 the indices are those of `timm.data.distributed_sampler.RepeatAugSampler`; another seed gives
    another order.

    Args:
        num_images: Images of the data set.
        repeats: Times that an image comes in a row.
        seed: Seed of the order, equal on all ranks.
        rank: This process.
        world_size: Number of processes.
        draws: Another sampler whose order is repeated, in place of every image once.
    """

    def __init__(
            self,
            num_images: int,
            repeats: int = 3,
            seed: int = 0,
            rank: int = 0,
            world_size: int = 1,
            draws: Optional[EpochSampler] = None,
    ):
        rounded = num_images // 256 * 256 if num_images >= 256 else num_images
        super().__init__(rounded, seed, rank, world_size)
        self.num_images, self.repeats, self.draws = num_images, repeats, draws

    def order(self, epoch: int) -> np.ndarray:
        if self.draws is None:
            generator = torch.Generator().manual_seed(epoch) if self.seed == 0 else order_generator(self.seed, epoch)
            shuffled = torch.randperm(self.num_images, generator=generator).numpy()
        else:
            shuffled = self.draws.order(epoch)
        return np.repeat(shuffled, self.repeats)[:self.num_draws]


class WeightedSampler(EpochSampler):
    """Base: draw with replacement, by the weights (N,) that `weights(epoch)` gives."""

    def weights(self, epoch: int) -> torch.Tensor:
        """Return the weights (N,) of the images in one epoch, float64, of any sum."""
        raise NotImplementedError

    def order(self, epoch: int) -> np.ndarray:
        # Not torch.multinomial: it takes no more than 2**24 images.
        share = self.weights(epoch).cumsum(0)
        points = torch.rand(self.num_draws, dtype=torch.float64, generator=order_generator(self.seed, epoch))
        return torch.searchsorted(share, points * share[-1], right=True).clamp_(max=len(share) - 1).numpy()


class ClassBalancedSampler(WeightedSampler):
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
        labels = as_labels(targets)
        super().__init__(len(labels) if num_samples is None else num_samples, seed, rank, world_size)
        self.per_image = torch.bincount(labels).double()[labels] ** -power

    def weights(self, epoch: int) -> torch.Tensor:
        return self.per_image


class ProgressiveSampler(WeightedSampler):
    """From every image alike in the first epoch to every class alike in the last (Kang et al. 2020, arXiv:1910.09217).

    The probability of class c in epoch t of T is `(1 - t/T) n_c / N + (t/T) / C` (their equation 3), with t/T from 0 in
    the first epoch to 1 in the last; images of a class are drawn alike.

    Args:
        targets: Class of each image (N,).
        epochs: T, the length of the run.
        num_samples: Draws per epoch over all ranks; by default N.
        seed: Seed of the draws, equal on all ranks.
        rank: This process.
        world_size: Number of processes.
    """

    def __init__(
            self,
            targets: ArrayLike,
            epochs: int,
            num_samples: Optional[int] = None,
            seed: int = 0,
            rank: int = 0,
            world_size: int = 1,
    ):
        labels = as_labels(targets)
        super().__init__(len(labels) if num_samples is None else num_samples, seed, rank, world_size)
        counts = torch.bincount(labels).double()
        self.alike = 1 / (counts[labels] * (counts > 0).sum())  # sums to 1, as 1 / N for every image does
        self.epochs = epochs

    def weights(self, epoch: int) -> torch.Tensor:
        passed = min(epoch / max(self.epochs - 1, 1), 1.0)
        return (1 - passed) / len(self.alike) + passed * self.alike


class DeferredSampler(EpochSampler):
    """One sampler until an epoch, another one from it on: deferred re-sampling.

    Args:
        before: Serves the epochs before `epoch`.
        after: Serves the others; as many draws, the same ranks.
        epoch: The first epoch (counted from 0) of `after`.
    """

    def __init__(self, before: EpochSampler, after: EpochSampler, epoch: int):
        super().__init__(before.num_draws, before.seed, before.rank, before.world_size)
        self.before, self.after, self.switch = before, after, epoch

    def order(self, epoch: int) -> np.ndarray:
        return (self.before if epoch < self.switch else self.after).order(epoch)


class SequentialSampler(EpochSampler):
    """Evaluation: every image once, in order; ranks may serve one more or one less, nothing is padded or dropped."""

    def __init__(self, num_images: int, rank: int = 0, world_size: int = 1):
        super().__init__(num_images, 0, rank, world_size)
        self.num_draws = num_images

    def order(self, epoch: int) -> np.ndarray:
        return np.arange(self.num_draws)

    def __len__(self) -> int:
        return len(range(self.rank, self.num_draws, self.world_size))


def as_labels(targets: ArrayLike) -> torch.Tensor:
    """Check labels (N,); returns them as int64.

    Raises:
        ValueError: There are none, or one is negative.
    """
    labels = torch.as_tensor(np.asarray(targets, dtype=np.int64))
    if labels.ndim != 1 or not len(labels):
        raise ValueError(f'targets must hold the class of each image (N,), got shape {tuple(labels.shape)}.')
    if int(labels.min()) < 0:
        raise ValueError(f'targets must not be negative, got {int(labels.min())}.')
    return labels


SAMPLERS = ('instance', 'class-balanced', 'sqrt', 'progressive')


def create_sampler(
        targets: ArrayLike,
        name: str = 'instance',
        power: Optional[float] = None,
        *,
        repeats: Optional[int] = None,
        epochs: Optional[int] = None,
        drs_epoch: Optional[int] = None,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
) -> EpochSampler:
    """Create a training sampler.

    Args:
        targets: Class of each image (N,).
        name: 'instance' (every image once), 'class-balanced' (every class alike), 'sqrt' (between the two) or
            'progressive' (from the first to the second over the run).
        power: Draw an image of class c by `n_c ** -power`; takes the place of the name.
        repeats: Each draw so many times in a row (repeated augmentation).
        epochs: Length of the run, for 'progressive'.
        drs_epoch: Every image once before this epoch, the named sampler from it on; without a name every class alike.
        seed: Seed of the draws, equal on all ranks.
        rank: This process.
        world_size: Number of processes.

    Raises:
        ValueError: Unknown name, or 'progressive' without `epochs`.

    >>> len(create_sampler([0, 0, 0, 1], 'class-balanced'))
    4
    """
    if name not in SAMPLERS:
        raise ValueError(f'Unknown sampler {name!r}, expected one of {", ".join(SAMPLERS)}.')
    where = dict(seed=seed, rank=rank, world_size=world_size)
    instance = InstanceSampler(len(as_labels(targets)), **where)
    if drs_epoch is not None and name == 'instance' and power is None:
        name = 'class-balanced'
    sampler: EpochSampler = instance
    if name == 'progressive' and power is None:
        if epochs is None:
            raise ValueError("The sampler 'progressive' needs the number of epochs.")
        sampler = ProgressiveSampler(targets, epochs, **where)
    elif name != 'instance' or power is not None:
        power = {'class-balanced': 1.0, 'sqrt': 0.5}[name] if power is None else power
        sampler = ClassBalancedSampler(targets, power, **where)
    if drs_epoch is not None:
        sampler = DeferredSampler(instance, sampler, drs_epoch)
    if repeats and repeats > 1:
        return RepeatedSampler(instance.num_images, repeats, **where, draws=None if sampler is instance else sampler)
    return sampler
