"""Training: the loop, a whole experiment, a run that survives being killed, its folder."""

from .checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from .costs import Costs, costs
from .diagnosis import Finding, diagnose
from .evaluation import evaluate
from .experiment import Experiment, text_loss
from .interruption import Interruption
from .intervals import Intervals
from .loop import TrainState, TrainStep, init_state, train
from .metrics import MetricsFile, Record, read_metrics, record_of
from .model_file import load_model
from .objective import Objective
from .run_folder import Run, load_run, load_weights, open_run, save_run, save_weights
from .run_lock import RunLockedError
from .session import Session
from .settings import DEFAULT_STEPS, TrainConfig
from .statistics import Statistics, statistics_of

__all__ = [
    "DEFAULT_STEPS",
    "Checkpoint",
    "Costs",
    "Experiment",
    "Finding",
    "Interruption",
    "Intervals",
    "MetricsFile",
    "Objective",
    "Record",
    "Run",
    "RunLockedError",
    "Session",
    "Statistics",
    "TrainConfig",
    "TrainState",
    "TrainStep",
    "costs",
    "diagnose",
    "evaluate",
    "init_state",
    "load_checkpoint",
    "load_model",
    "load_run",
    "load_weights",
    "open_run",
    "read_metrics",
    "record_of",
    "save_checkpoint",
    "save_run",
    "save_weights",
    "statistics_of",
    "text_loss",
    "train",
]
