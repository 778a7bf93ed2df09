"""The settings of a training run."""

import dataclasses

from ..contract import expect_int, expect_number
from ..optimizers import (
    GradientTransformation,
    Schedule,
    adamw,
    chain,
    clip_by_global_norm,
    warmup_cosine_decay_schedule,
)


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """How to train.

    Attributes:
        steps: updates to make.
        batch_size: windows in a batch.
        seq_len: tokens in a window.
        lr: the learning rate after the warm-up.
        min_lr: the learning rate at the end. Not given: a tenth of lr.
        warmup_steps: updates until the learning rate is reached; at most a tenth of all.
        weight_decay: the decoupled decay of every matrix.
        max_grad_norm: the norm to which a longer gradient is clipped.
        eval_every: updates between two evaluations.
        seed: of the parameters, the batches and dropout.

    Raises:
        TypeError: for a setting of the wrong type.
        ValueError: for a setting out of range.
    """

    steps: int = 2000
    batch_size: int = 16
    seq_len: int = 64
    lr: float = 3e-3
    min_lr: float | None = None
    warmup_steps: int = 100
    weight_decay: float = 0.1
    max_grad_norm: float = 1.0
    eval_every: int = 500
    seed: int = 0

    def __post_init__(self) -> None:
        """Check every setting."""
        for name in ("steps", "batch_size", "seq_len", "eval_every"):
            expect_int(name, getattr(self, name))
        for name in ("warmup_steps", "seed"):
            expect_int(name, getattr(self, name), minimum=0)
        for name in ("lr", "weight_decay", "max_grad_norm"):
            expect_number(name, getattr(self, name), low=0.0)
        if self.min_lr is not None:
            expect_number("min_lr", self.min_lr, low=0.0)

    def schedule(self) -> Schedule:
        """Return the learning rate of each update."""
        return warmup_cosine_decay_schedule(
            self.lr,
            min(self.warmup_steps, self.steps // 10),
            self.steps,
            self.lr / 10 if self.min_lr is None else self.min_lr,
        )

    def optimizer(self) -> GradientTransformation:
        """Return AdamW with clipping and the schedule."""
        return chain(
            clip_by_global_norm(self.max_grad_norm),
            adamw(self.schedule(), b2=0.99, weight_decay=self.weight_decay),
        )
