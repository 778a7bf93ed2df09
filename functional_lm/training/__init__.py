"""Training: the loop, the evaluation, the run folder."""

from .evaluation import evaluate
from .loop import TrainState, TrainStep, init_state, train
from .run_folder import load_run, save_run
from .settings import TrainConfig

__all__ = [
    "TrainConfig",
    "TrainState",
    "TrainStep",
    "evaluate",
    "init_state",
    "load_run",
    "save_run",
    "train",
]
