"""Many images at once: read and worked on by threads, given back in their order."""
import os
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Callable, Deque, Iterator, List, Optional, Sequence, Tuple, TypeVar

Result = TypeVar('Result')

_TOGETHER = 32  # images that a thread takes: handing one over costs as much as a small image does
_MOST = 16 << 20  # bytes that it takes


def cores() -> int:
    """Return the processors that this process may use."""
    allowed = getattr(os, 'sched_getaffinity', None)
    return len(allowed(0)) if allowed is not None else os.cpu_count() or 1


def each(
        indices: Sequence[int],
        read: Callable[[int], Any],
        work: Callable[[Any], Result],
        parallel: bool,
        bytes_of: Optional[Sequence[int]] = None,
) -> Iterator[Tuple[int, Result]]:
    """Yield each index with `work(read(index))`, in order; in place of what cannot be read `work` gets the exception.

    Args:
        indices: Which images, in which order.
        read: Returns what is worked on.
        work: Is called in threads; it must not raise.
        parallel: `read` may be called in threads, too; else it is called in this one.
        bytes_of: What the result of each index takes, so that few large ones wait at a time.
    """
    def item(index: int) -> Any:
        try:
            return read(index)
        except Exception as error:  # whatever a reader raises: the file is bad, and the reason is kept
            return error

    def here(some: Sequence[int]) -> List[Result]:
        return [work(item(index)) for index in some]

    def there(items: Sequence[Any]) -> List[Result]:
        return [work(one) for one in items]

    waiting: Deque[Tuple[Sequence[int], Future]] = deque()
    pool = ThreadPoolExecutor(cores())
    try:
        for some in _groups(indices, _TOGETHER if parallel else 4, bytes_of):
            future = pool.submit(here, some) if parallel else pool.submit(there, [item(index) for index in some])
            waiting.append((some, future))
            if len(waiting) > 2 * cores():
                yield from _oldest(waiting)
        while waiting:
            yield from _oldest(waiting)
    finally:
        pool.shutdown(cancel_futures=True)


def _groups(indices: Sequence[int], count: int, bytes_of: Optional[Sequence[int]]) -> Iterator[List[int]]:
    group: List[int] = []
    taken = 0
    for index in indices:
        group.append(index)
        taken += 0 if bytes_of is None else int(bytes_of[index])
        if len(group) == count or taken >= _MOST:
            yield group
            group, taken = [], 0
    if group:
        yield group


def _oldest(waiting: Deque[Tuple[Sequence[int], Future]]) -> Iterator[Tuple[int, Any]]:
    some, future = waiting.popleft()
    yield from zip(some, future.result())
