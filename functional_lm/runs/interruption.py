"""Ctrl-C and SIGTERM: the first lets a run end in order, the second ends it at once."""

import contextlib
import os
import signal
import sys
import threading
from types import FrameType
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interruption:
    """Watches for the signals while it is entered.

    Attributes:
        signal: the first signal that came, or None.
        effect: what the first signal does, in words.
    """

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None
        self.effect = "stops after this step"
        self._before: dict[int, Any] = {}

    @property
    def status(self) -> int:
        """The exit status that the signal asks for, 130 or 143; 0 without one."""
        return 128 + self.signal if self.signal is not None else 0

    def __enter__(self) -> "Interruption":
        """Take the signals over; only a process's main thread can."""
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._handle) for number in SIGNALS}
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.signal is None:
            self.signal = signal.Signals(number)
            self._say(f"{self.signal.name}: {self.effect}; a second one stops at once")
            return
        show_cursor = "\x1b[?25h" if sys.stdout is not None and sys.stdout.isatty() else ""
        self._say(f"{show_cursor}stopped at once; the last checkpoint is intact")
        os._exit(128 + number)

    def _say(self, line: str) -> None:
        # Not through sys.stderr: the signal may have come in the middle of a write to it. If it was
        # closed when the process started, descriptor 2 belongs to another file.
        if sys.stderr is not None:
            with contextlib.suppress(OSError, ValueError):
                os.write(sys.stderr.fileno(), f"\n{line}\n".encode())
