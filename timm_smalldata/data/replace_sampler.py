"""Another sampler in a loader of timm, which takes none when it is created."""
from typing import Any

from torch.utils.data import DataLoader, Sampler


def replace_sampler(loader: Any, sampler: Sampler) -> Any:
    """Return a loader of timm, or a plain one of torch, with another sampler; all else stays as it was set up.

    Call it before the first epoch. timm's train.py then calls the sampler's `set_epoch`, as it does with its own.

    Args:
        loader: What `timm.data.create_loader` returned, with prefetcher or without, or torch's `DataLoader`.
        sampler: Draws indices of the loader's data set.

    Returns:
        The same prefetcher around a new `DataLoader`, or a new `DataLoader`.

    >>> loader = replace_sampler(DataLoader([5, 6, 7], batch_size=2), [2, 0])  # what a sampler draws
    >>> next(iter(loader)).tolist()
    [7, 5]
    """
    inner: DataLoader = getattr(loader, 'loader', loader)  # timm's prefetcher holds one
    new = type(inner)(
        inner.dataset, batch_size=inner.batch_size, sampler=sampler, num_workers=inner.num_workers,
        collate_fn=inner.collate_fn, pin_memory=inner.pin_memory, drop_last=inner.drop_last,
        worker_init_fn=inner.worker_init_fn, persistent_workers=inner.persistent_workers)
    if inner is loader:
        return new
    loader.loader = new
    return loader
