"""The settings of a training run."""

import dataclasses

from ..contract import expect_fields, expect_int, expect_number
from ..optimizers import (
    GradientTransformation,
    Schedule,
    adamw,
    chain,
    clip_by_global_norm,
    warmup_cosine_decay_schedule,
)

DEFAULT_STEPS = 2000


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """How to train.

    Attributes:
        steps: updates to make, each on random windows of the text. Not given: 2000.
        epochs: instead of steps: passes through all windows that do not overlap, shuffled.
        batch_size: windows in a batch.
        seq_len: tokens in a window.
        lr: the learning rate after the warm-up.
        min_lr: the learning rate at the end. Not given: a tenth of lr.
        warmup_steps: updates until the learning rate is reached; at most a tenth of all.
        weight_decay: the decoupled decay of every matrix.
        max_grad_norm: the norm to which a longer gradient is clipped.
        seed: of the parameters, the batches and dropout.
        shards: parts of a batch that are computed side by side, in a thread each; the weights
            depend on it in their last bits. Not given: the number of cores, or 1 for a model of
            your own, whose loss may not be a mean over the examples.

    Raises:
        TypeError: for a setting of the wrong type.
        ValueError: for a setting out of range, or both steps and epochs.
    """

    steps: int | None = None
    epochs: int | None = None
    batch_size: int = 16
    seq_len: int = 64
    lr: float = 3e-3
    min_lr: float | None = None
    warmup_steps: int = 100
    weight_decay: float = 0.1
    max_grad_norm: float = 1.0
    seed: int = 0
    shards: int | None = None

    def __post_init__(self) -> None:
        """Check every setting."""
        expect_fields(
            self,
            (expect_int, "steps epochs batch_size seq_len shards", {}),
            (expect_int, "warmup_steps seed", {"minimum": 0}),
            (expect_number, "lr min_lr weight_decay", {"low": 0.0}),
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

    def schedule(self, steps: int) -> Schedule:
        """Return the learning rate of each update of a run of that many."""
        return warmup_cosine_decay_schedule(
            self.lr,
            min(self.warmup_steps, steps // 10),
            steps,
            self.lr / 10 if self.min_lr is None else self.min_lr,
        )

    def optimizer(self, steps: int, schedule: Schedule | None = None) -> GradientTransformation:
        """Return AdamW with clipping, and the schedule of a run of that many updates or another."""
        if schedule is None:
            schedule = self.schedule(steps)
        return chain(
            clip_by_global_norm(self.max_grad_norm),
            adamw(schedule, b2=0.99, weight_decay=self.weight_decay),
        )
