"""The settings of a training run."""

import dataclasses
import math
from typing import Literal, TypeAlias, get_args

from ..contract import expect_bool, expect_choice, expect_fields, expect_int, expect_number
from ..optimizers import (
    GradientTransformation,
    Schedule,
    adam,
    adamw,
    chain,
    clip_by_global_norm,
    sgd,
    warmup_cosine_decay_schedule,
)

DEFAULT_STEPS = 2000

OptimizerName: TypeAlias = Literal["adamw", "adam", "sgd"]


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """How to train.

    Attributes:
        steps: updates to make, each on random windows of the text. Not given: 2000.
        epochs: in place of steps: passes over the text, as shuffled windows that do not overlap.
        batch_size: windows in a batch.
        seq_len: tokens in a window.
        lr: the learning rate after the warm-up.
        min_lr: the learning rate at the end. Not given: a tenth of lr.
        warmup_steps: updates over which the learning rate rises; at most a tenth of all.
        optimizer: the update rule.
        b1: the decay of the first moment (adamw, adam).
        b2: the decay of the second moment (adamw, adam).
        eps: added to the root of the second moment (adamw, adam).
        weight_decay: the decoupled decay of every matrix (adamw).
        momentum: the momentum (sgd). Not given: none.
        nesterov: look ahead along the momentum (sgd).
        max_grad_norm: clip the gradient to this norm.
        label_smoothing: the share of each target that is spread over the vocabulary; the validation
            loss is without it.
        z_loss: the weight of the squared log of the softmax's denominator; likewise.
        seed: the seed of the parameters, the batches and dropout.
        shards: parts of a batch, each computed in a thread of its own; the last bits of the weights
            depend on it. Not given: the number of cores.

    Raises:
        TypeError: for a setting of the wrong type.
        ValueError: for a setting out of range, settings that exclude each other, or a momentum
            of another optimizer than sgd.
    """

    steps: int | None = None
    epochs: int | None = None
    batch_size: int = 16
    seq_len: int = 64
    lr: float = 3e-3
    min_lr: float | None = None
    warmup_steps: int = 100
    optimizer: OptimizerName = "adamw"
    b1: float = 0.9
    b2: float = 0.99
    eps: float = 1e-8
    weight_decay: float = 0.1
    momentum: float | None = None
    nesterov: bool = False
    max_grad_norm: float = 1.0
    label_smoothing: float = 0.0
    z_loss: float = 0.0
    seed: int = 0
    shards: int | None = None

    def __post_init__(self) -> None:
        expect_fields(
            self,
            (expect_int, "steps epochs batch_size seq_len shards", {}),
            (expect_int, "warmup_steps", {"minimum": 0}),
            (expect_int, "seed", {"minimum": 0, "maximum": 2**64 - 1}),
            (expect_choice, "optimizer", {"choices": get_args(OptimizerName)}),
            (expect_number, "lr min_lr weight_decay eps", {"low": 0.0}),
            (expect_number, "b1 b2", {"low": 0.0, "high": math.nextafter(1.0, 0.0)}),
            (expect_number, "momentum label_smoothing", {"low": 0.0, "high": 1.0}),
            (expect_number, "z_loss", {"low": 0.0}),
            (expect_bool, "nesterov", {}),
            (expect_number, "max_grad_norm", {"low": 1e-9}),
        )
        if self.steps is not None and self.epochs is not None:
            raise ValueError(
                "a run is measured in steps or in epochs: got "
                f"steps={self.steps} and epochs={self.epochs}; leave one out"
            )
        if self.min_lr is not None and self.min_lr > self.lr:
            raise ValueError(
                f"min_lr must be at most lr: got {self.min_lr:g} and {self.lr:g}; lower it"
            )

        if self.optimizer != "sgd" and (self.momentum is not None or self.nesterov):
            raise ValueError(
                f"momentum and nesterov are settings of sgd: got optimizer={self.optimizer!r}; "
                "leave them out, or choose sgd"
            )
        if self.nesterov and self.momentum is None:
            raise ValueError("nesterov needs a momentum: got None; set momentum=0.9")

    @property
    def lowest_lr(self) -> float:
        """The learning rate at the end."""
        return self.lr / 10 if self.min_lr is None else self.min_lr

    def warm_up(self, steps: int) -> int:
        """Return the updates of a run of that many until the learning rate is reached."""
        return min(self.warmup_steps, steps // 10)

    def schedule(self, steps: int) -> Schedule:
        """Return the learning rate of each update of a run of that many."""
        return warmup_cosine_decay_schedule(self.lr, self.warm_up(steps), steps, self.lowest_lr)

    def make_optimizer(self, rate: Schedule) -> GradientTransformation:
        """Return clipping and the optimizer of that name, with a schedule such as `schedule`'s."""
        if self.optimizer == "sgd":
            optimizer = sgd(rate, self.momentum, self.nesterov)
        elif self.optimizer == "adam":
            optimizer = adam(rate, self.b1, self.b2, self.eps)
        else:
            optimizer = adamw(rate, self.b1, self.b2, self.eps, self.weight_decay)
        return chain(clip_by_global_norm(self.max_grad_norm), optimizer)
