"""A run in its folder: the session that trains it, its checkpoints, metrics and lock."""

from .adapters import load_adapters, save_adapters
from .checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from .folder import Run, open_run, save_run
from .interruption import Interruption
from .lock import RunLockedError
from .metrics import MetricsFile, Record, read_metrics, record_of
from .session import Intervals, Session
from .trust import UntrustedModelError

__all__ = [
    "Checkpoint",
    "Interruption",
    "Intervals",
    "MetricsFile",
    "Record",
    "Run",
    "RunLockedError",
    "Session",
    "UntrustedModelError",
    "load_adapters",
    "load_checkpoint",
    "open_run",
    "read_metrics",
    "record_of",
    "save_adapters",
    "save_checkpoint",
    "save_run",
]
