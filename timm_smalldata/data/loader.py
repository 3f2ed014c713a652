"""Batches of views: torch's DataLoader underneath, the device and the normalisation on top.

Views are made image by image where images are read (`views.render`), or of whole batches where they arrive
(`batch_augment.render_batch`): then images travel as they are, with the key of each draw.
"""
from dataclasses import dataclass, replace
from typing import Any, Iterator, List, Optional, Sequence, Tuple, Union

import numpy as np
import torch
from torch.utils.data import BatchSampler, DataLoader, Dataset

from ..errors import UserError
from ..utils.random import draw_key, draw_keys
from .batch.images import PackedImages
from .batch_augment import Images, render_batch
from .sampler import Draw, EpochSampler
from .source import ImageSource
from .views import ViewSpec, normalise, render

KEPT_LIMIT = 256 << 20  # bytes of evaluation views that a loader keeps

Item = Union[Draw, Tuple[Draw, int]]  # with scheduled sizes: and the number of the size


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

    def first(self, size: int) -> 'Batch':
        """Return the first images of the batch."""
        return replace(
            self, views=[view[:size] for view in self.views], target=self.target[:size], index=self.index[:size])


class ViewDataset(Dataset):
    """Render the views of a draw. `choices` holds one list of views per scheduled size (one list: no schedule)."""

    def __init__(self, source: ImageSource, choices: List[List[ViewSpec]], seed: Optional[int]):
        self.source, self.choices, self.seed = source, choices, seed

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, item: Item) -> Tuple[List[torch.Tensor], int, int]:
        draw, choice = item if isinstance(item, tuple) else (item, 0)
        image, target = self.source.read(int(draw))
        keys = [
            None if self.seed is None else draw_key(self.seed, draw.epoch, draw.position, view)
            for view in range(len(self.choices[choice]))
        ]
        views = [render(image, spec, key) for spec, key in zip(self.choices[choice], keys)]
        return views, target, int(draw)


@dataclass
class Unrendered:
    """A batch before its views are made.

    Attributes:
        images: uint8 images of any sizes.
        keys: For each view the keys of the images, uint64 (B,).
        target: (B,).
        index: (B,).
        choice: Number of the scheduled size.
    """
    images: Images
    keys: List[np.ndarray]
    target: torch.Tensor
    index: torch.Tensor
    choice: int

    def pin_memory(self) -> 'Unrendered':
        images = self.images.pin_memory() if isinstance(self.images, PackedImages) else self.images
        return replace(self, images=images, target=self.target.pin_memory())


class UnrenderedDataset(ViewDataset):
    """Read the images of whole batches; `packed`: into one tensor, which travels between processes and devices.

    `held`: they are on the device already, and nothing is read.
    """

    def __init__(
            self, source: ImageSource, choices: List[List[ViewSpec]], seed: int, packed: bool, held: bool = False):
        super().__init__(source, choices, seed)
        self.packed, self.held = packed, held

    def __getitems__(self, items: Sequence[Item]) -> Unrendered:
        pairs = [item if isinstance(item, tuple) else (item, 0) for item in items]
        draws, choice = [draw for draw, _ in pairs], pairs[0][1]
        index = np.array(draws, dtype=np.int64)
        epochs, positions = (np.array([getattr(draw, what) for draw in draws]) for what in ('epoch', 'position'))
        assert self.seed is not None
        keys = [draw_keys(self.seed, epochs, positions, view) for view in range(len(self.choices[choice]))]
        images: Any = [] if self.held else [torch.from_numpy(self.source.pixels(i)) for i in index.tolist()]
        if self.packed and not self.held:
            images = PackedImages.of(images)
        return Unrendered(
            images, keys, torch.from_numpy(self.source.targets[index]),
            torch.from_numpy(index), choice)


def _collate(items: Any) -> Any:
    if isinstance(items, Unrendered):
        return items
    views, targets, indices = zip(*items)
    return [torch.stack(view) for view in zip(*views)], torch.tensor(targets), torch.tensor(indices)


class ViewLoader:
    """Iterate over `Batch`es on the device; `set_epoch` chooses what comes next."""

    def __init__(
            self,
            loader: DataLoader,
            sampler: EpochSampler,
            choices: List[List[ViewSpec]],
            device: torch.device,
            channels_last: bool,
            keep: bool = False,
            held: Optional[PackedImages] = None,
    ):
        self.held = held
        self.loader, self.sampler, self.choices, self.specs = loader, sampler, choices, choices[0]
        self.device = device
        self.memory_format = torch.channels_last if channels_last else torch.contiguous_format
        self.kept: Optional[List[Tuple]] = None
        self.keep = keep and len(sampler) * sum(3 * spec.size ** 2 for spec in self.specs) <= KEPT_LIMIT

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

    def _read(self) -> Iterator[Any]:
        try:
            yield from self.loader
        except UserError as error:  # torch puts the traceback of a worker process before it
            raise UserError(str(error).rpartition('UserError: ')[2].strip()) from error

    def _loaded(self) -> Iterator[Tuple]:
        """Yield views, targets and indices; those that are the same in every epoch are made once."""
        if self.kept is not None:
            yield from self.kept
            return
        kept: List[Tuple] = []
        for loaded in self._read():
            if isinstance(loaded, Unrendered):
                images, choice = loaded.images, self.choices[loaded.choice]
                if self.held is not None:
                    images = self.held.take(loaded.index.numpy())
                elif isinstance(images, PackedImages):
                    images = images.to(self.device)  # once for all views
                views = [render_batch(images, spec, keys, self.device) for spec, keys in zip(choice, loaded.keys)]
                yield views, loaded.target, loaded.index
                continue
            if self.keep:
                views, target, index = loaded
                loaded = [view.to(self.device, copy=True) for view in views], target.clone(), index.clone()
                kept.append(loaded)
            yield loaded
        if self.keep:
            self.kept = kept

    def __iter__(self) -> Iterator[Batch]:
        for step, (views, target, index) in enumerate(self._loaded()):
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
        augment_on: str = 'image',
        keep: bool = False,
        held: Optional[PackedImages] = None,
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
        workers: Worker processes; 0 reads in this process. Pixels do not depend on it.
        pin_memory: Use page-locked memory for transfers to a GPU.
        channels_last: Memory format of the batches.
        sizes: Scheduled image sizes; then `batch_sampler` yields lists of (draw, number of the size).
        batch_sampler: timm's `ScheduledBatchSampler` over `sampler`, for `sizes`.
        augment_on: 'image' renders image by image where images are read, 'device' whole batches where they arrive;
            that needs a seed, and views that all have a batched form (`batch_augment.no_batched_form`).
        keep: Of views without a seed, which are the same in every epoch: keep them (up to 256 MiB).
        held: All images, on the device already; with `augment_on='device'`.
    """
    specs, place = list(views), torch.device(device)
    choices = [[spec.at(size) for spec in specs] for size in sizes] if sizes else [specs]
    dataset = ViewDataset(source, choices, seed)
    if augment_on == 'device':
        assert seed is not None, 'what is drawn by key needs a seed'
        workers = 0 if held is not None else workers  # there is nothing to read
        dataset = UnrenderedDataset(
            source, choices, seed, workers > 0 or pin_memory or place.type != 'cpu', held is not None)
    loader: DataLoader = DataLoader(
        dataset,
        batch_sampler=batch_sampler or BatchSampler(sampler, batch_size, drop_last),
        collate_fn=_collate,
        num_workers=workers,
        pin_memory=pin_memory,
        persistent_workers=workers > 0,
        generator=torch.Generator(),  # its base seed goes unused: draws carry their own keys
    )
    return ViewLoader(loader, sampler, choices, place, channels_last, keep and seed is None, held)
