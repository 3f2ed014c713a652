"""Batches of views: torch's DataLoader underneath, the device and the normalisation on top."""
from dataclasses import dataclass
from typing import Any, Iterator, List, Optional, Sequence, Tuple, Union

import torch
from torch.utils.data import BatchSampler, DataLoader, Dataset

from ..utils.random import draw_key
from .sampler import Draw, EpochSampler
from .source import ImageSource
from .views import ViewSpec, normalise, render


@dataclass
class Batch:
    """One micro-batch: `views` is a list of (B, 3, h, w), `target` and `index` are (B,)."""
    views: List[torch.Tensor]
    target: torch.Tensor
    index: torch.Tensor
    epoch: int
    step: int

    def __len__(self) -> int:
        return len(self.target)


class ViewDataset(Dataset):
    """Render the views of a draw. `choices` holds one list of views per scheduled size (one list: no schedule)."""

    def __init__(self, source: ImageSource, choices: List[List[ViewSpec]], seed: Optional[int]):
        self.source, self.choices, self.seed = source, choices, seed

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, item: Union[Draw, Tuple[Draw, int]]) -> Tuple[List[torch.Tensor], int, int]:
        draw, choice = item if isinstance(item, tuple) else (item, 0)
        image, target = self.source.read(int(draw))
        keys = [
            None if self.seed is None else draw_key(self.seed, draw.epoch, draw.position, view)
            for view in range(len(self.choices[choice]))
        ]
        views = [render(image, spec, key) for spec, key in zip(self.choices[choice], keys)]
        return views, target, int(draw)


def _collate(items: Sequence[Tuple[List[torch.Tensor], int, int]]) -> Tuple[List[torch.Tensor], Any, Any]:
    views, targets, indices = zip(*items)
    return [torch.stack(view) for view in zip(*views)], torch.tensor(targets), torch.tensor(indices)


class ViewLoader:
    """Iterate over `Batch`es on the device; `set_epoch` chooses what comes next."""

    def __init__(
            self,
            loader: DataLoader,
            sampler: EpochSampler,
            specs: List[ViewSpec],
            device: torch.device,
            channels_last: bool,
    ):
        self.loader, self.sampler, self.specs = loader, sampler, specs
        self.device = device
        self.memory_format = torch.channels_last if channels_last else torch.contiguous_format

    @property
    def source(self) -> ImageSource:
        return self.loader.dataset.source  # type: ignore[attr-defined]

    def set_epoch(self, epoch: int) -> None:
        self.sampler.set_epoch(epoch)
        if self.loader.batch_sampler is not None and hasattr(self.loader.batch_sampler, 'set_epoch'):
            self.loader.batch_sampler.set_epoch(epoch)

    def __len__(self) -> int:
        return len(self.loader)

    def _prepare(self, view: torch.Tensor, spec: ViewSpec) -> torch.Tensor:
        view = view.to(self.device, non_blocking=True)
        if view.dtype == torch.uint8:
            view = normalise(view, spec.mean, spec.std)
        return view.contiguous(memory_format=self.memory_format)

    def __iter__(self) -> Iterator[Batch]:
        for step, (views, target, index) in enumerate(self.loader):
            yield Batch(
                [self._prepare(view, spec) for view, spec in zip(views, self.specs)],
                target.to(self.device, non_blocking=True),
                index,
                self.sampler.epoch,
                step,
            )


def create_loader(
        source: ImageSource,
        sampler: EpochSampler,
        views: Sequence[ViewSpec],
        batch_size: int,
        *,
        seed: Optional[int] = None,
        device: Union[str, torch.device] = 'cpu',
        drop_last: bool = False,
        workers: int = 0,
        pin_memory: bool = False,
        channels_last: bool = False,
        sizes: Optional[Sequence[int]] = None,
        batch_sampler: Any = None,
) -> ViewLoader:
    """Create a loader of views.

    Args:
        source: Images.
        sampler: Which images, in which order.
        views: What each image is rendered to.
        batch_size: Images per batch of this process.
        seed: Seed of the draws; None for evaluation, which draws nothing.
        device: Where batches are put.
        drop_last: Leave out the last batch when it is not full.
        workers: Worker processes; 0 renders in this process. Pixels do not depend on it.
        pin_memory: Use page-locked memory for transfers to a GPU.
        channels_last: Memory format of the batches.
        sizes: Scheduled image sizes; then `batch_sampler` yields lists of (draw, number of the size).
        batch_sampler: timm's `ScheduledBatchSampler` over `sampler`, for `sizes`.
    """
    specs = list(views)
    choices = [[spec.at(size) for spec in specs] for size in sizes] if sizes else [specs]
    loader: DataLoader = DataLoader(
        ViewDataset(source, choices, seed),
        batch_sampler=batch_sampler or BatchSampler(sampler, batch_size, drop_last),
        collate_fn=_collate,
        num_workers=workers,
        pin_memory=pin_memory,
        persistent_workers=workers > 0,
        generator=torch.Generator(),  # its base seed goes unused: draws carry their own keys
    )
    return ViewLoader(loader, sampler, specs, torch.device(device), channels_last)
