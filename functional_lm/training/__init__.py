"""Training: the loop, its settings, a whole experiment, evaluation and statistics."""

from .cluster import Cluster, Distribution
from .costs import Costs, costs
from .evaluation import evaluate, text_losses
from .experiment import Experiment
from .loop import TrainState, TrainStep, init_state, train
from .recipes import RECIPES, recipe
from .settings import DEFAULT_STEPS, TrainConfig
from .statistics import Statistics, statistics_of

__all__ = [
    "DEFAULT_STEPS",
    "RECIPES",
    "Cluster",
    "Costs",
    "Distribution",
    "Experiment",
    "Statistics",
    "TrainConfig",
    "TrainState",
    "TrainStep",
    "costs",
    "evaluate",
    "init_state",
    "recipe",
    "statistics_of",
    "text_losses",
    "train",
]
