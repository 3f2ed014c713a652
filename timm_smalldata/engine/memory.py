"""The memory of a device is full: which batch would fit is tried out, and said in a line."""
from typing import Any, Callable

import torch

from ..errors import UserError


def in_memory(
        step: Callable[[], Any],
        batch: int,
        part: Callable[[int], Any],
        flag: str = '--batch-size',
        reserve: int = 0,
        device: torch.device = torch.device('cpu'),
) -> Any:
    """Return `step()`; where the device has no memory left, find out how many images would fit.

    Args:
        step: Works on a batch.
        batch: How many images it has.
        part: Works on as many of them.
        flag: The flag that chooses the batch.
        reserve: Bytes that are wanted later on (state of an optimizer) and so must stay free.
        device: Where it works.

    Raises:
        UserError: The memory is full; the line names the batch that fits.
    """
    try:
        return step()
    except torch.OutOfMemoryError:
        pass  # only outside of this block the memory of the frames that failed is free again
    fits = largest_that_fits(part, batch, reserve, device)
    if not fits:
        raise UserError(f'The memory of {device} is full even with one image of a batch of {batch}: take a smaller '
                        '--model or --img-size, or --grad-checkpointing.')
    same = f' --grad-accum-steps {-(-batch // fits)} (as many images an update)' if flag == '--batch-size' else ''
    raise UserError(f'The memory of {device} is full with a batch of {batch}; {fits} would fit: {flag} {fits}{same}.')


def largest_that_fits(part: Callable[[int], Any], batch: int, reserve: int, device: torch.device) -> int:
    """Return the first of batch / 2, batch / 4, ... images that fits; 0 where none does."""
    size = batch // 2
    while size:
        try:
            kept = torch.empty(reserve, dtype=torch.uint8, device=device)
            part(size)
            del kept
            return size
        except torch.OutOfMemoryError:
            pass
        if device.type == 'cuda':
            torch.cuda.empty_cache()
        size //= 2
    return 0
