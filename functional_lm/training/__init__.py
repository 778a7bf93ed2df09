"""Training: the loop, a whole experiment, the evaluation, the run folder."""

from .costs import Costs, costs
from .diagnosis import Finding, diagnose
from .evaluation import evaluate
from .experiment import Experiment, text_loss
from .loop import TrainState, TrainStep, init_state, train
from .metrics import MetricsFile, Record, read_metrics, record_of
from .model_file import load_model
from .objective import Objective
from .run_folder import Run, load_run, load_weights, open_run, save_run, save_weights
from .settings import DEFAULT_STEPS, TrainConfig
from .statistics import Statistics, statistics_of

__all__ = [
    "DEFAULT_STEPS",
    "Costs",
    "Experiment",
    "Finding",
    "MetricsFile",
    "Objective",
    "Record",
    "Run",
    "Statistics",
    "TrainConfig",
    "TrainState",
    "TrainStep",
    "costs",
    "diagnose",
    "evaluate",
    "init_state",
    "load_model",
    "load_run",
    "load_weights",
    "open_run",
    "read_metrics",
    "record_of",
    "save_run",
    "save_weights",
    "statistics_of",
    "text_loss",
    "train",
]
