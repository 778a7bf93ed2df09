"""Writing beside the training: one write at a time, in a thread of its own."""

import threading
from collections.abc import Callable


class BackgroundWriter:
    """Runs functions that write files, while training continues.

    At most one is under way. Of those of one kind that wait, only the newest stays: if the disk is
    slower than the training, then older states are left out, and nobody waits.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._waiting: dict[str, Callable[[], None]] = {}
        self._busy = False
        self._error: Exception | None = None
        self._thread: threading.Thread | None = None

    def submit(self, kind: str, write: Callable[[], None]) -> None:
        """Have a function called soon, instead of the one of its kind that still waits.

        Raises:
            Exception: what an earlier write raised; then nothing more is written.
        """
        self.check()
        with self._changed:
            self._waiting[kind] = write
            if not self._busy:
                self._busy = True
                # A daemon: an end of the process must not wait for a disk that hangs.
                self._thread = threading.Thread(target=self._work, daemon=True)
                self._thread.start()

    def check(self) -> None:
        """Raise what a write has raised, if one has."""
        with self._changed:
            if self._error is not None:
                raise self._error

    def wait(self) -> None:
        """Wait until all is written.

        Raises:
            Exception: what a write raised.
        """
        with self._changed:
            self._changed.wait_for(lambda: not self._busy)
        self.check()

    def _work(self) -> None:
        while True:
            with self._changed:
                if not self._waiting or self._error is not None:
                    self._busy = False
                    self._changed.notify_all()
                    return
                write = self._waiting.pop(next(iter(self._waiting)))
            try:
                write()
            except Exception as error:
                with self._changed:
                    self._error = error
            del write  # with the arrays that it holds
