"""Writing beside training: a thread writes what an epoch left while the next one trains."""
import threading
from types import TracebackType
from typing import Any, Callable, Optional, Type


class Writer:
    """Does one piece of work at a time in a thread; the next one, and the end of the block, wait for it.

    What the work raises is raised again where it is waited for. The process does not end before the work has.

    >>> with Writer() as writer:
    ...     writer.submit(lambda: None)
    """

    def __init__(self) -> None:
        self._thread: Optional[threading.Thread] = None
        self._error: Optional[BaseException] = None

    def submit(self, work: Callable[[], Any]) -> None:
        """Wait for what was submitted before, then begin; whatever `work` reads must not change any more."""
        self.wait()

        def run() -> None:
            try:
                work()
            except BaseException as error:  # carried to the main thread
                self._error = error

        self._thread = threading.Thread(target=run, name='writer', daemon=False)
        self._thread.start()

    def wait(self) -> None:
        """Wait until nothing is in flight; raises what the work has raised."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        error, self._error = self._error, None
        if error is not None:
            raise error

    def __enter__(self) -> 'Writer':
        return self

    def __exit__(
            self, kind: Optional[Type[BaseException]], error: Optional[BaseException], trace: Optional[TracebackType],
    ) -> None:
        try:
            self.wait()
        except BaseException:
            if error is None:  # what ended the block is told, not what followed it
                raise
