"""The settings of a training run."""

import dataclasses
import math
from collections.abc import Callable
from typing import Literal, NamedTuple, TypeAlias, get_args

from ..contract import expect_bool, expect_choice, expect_fields, expect_int, expect_number
from ..models import LanguageModel
from ..models.projections import matrices
from ..optimizers import (
    GradientTransformation,
    Schedule,
    adam,
    adamw,
    chain,
    clip_by_global_norm,
    muon,
    partition,
    sgd,
    warmup_cosine_decay_schedule,
)

DEFAULT_STEPS = 2000

OptimizerName: TypeAlias = Literal["adamw", "adam", "sgd", "muon"]


class Optimizer(NamedTuple):
    """An optimizer by name: how it is made, from which settings, and its usual rate."""

    make: Callable[..., GradientTransformation]
    settings: tuple[str, ...]
    lr: float = 3e-3


OPTIMIZERS = {
    "adamw": Optimizer(adamw, ("b1", "b2", "eps", "weight_decay")),
    "adam": Optimizer(adam, ("b1", "b2", "eps")),
    "sgd": Optimizer(sgd, ("momentum", "nesterov")),
    "muon": Optimizer(
        muon, ("momentum", "weight_decay", "normuon", "adam_lr", "b1", "b2", "eps"), 0.02
    ),
}


def users_of(setting: str) -> tuple[str, ...]:
    """Return the optimizers that have a setting; none for one of all."""
    return tuple(name for name, optimizer in OPTIMIZERS.items() if setting in optimizer.settings)


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """How to train.

    Attributes:
        steps: updates to make, each on random windows of the text. Not given: 2000.
        epochs: in place of steps: passes over the text, as shuffled windows that do not overlap.
        batch_size: windows in a batch.
        seq_len: tokens in a window.
        lr: the learning rate after the warm-up. Not given: 3e-3, or 0.02 (muon).
        min_lr: the learning rate at the end. Not given: a tenth of lr.
        warmup_steps: updates over which the learning rate rises; at most a tenth of all.
        optimizer: the update rule. With muon, the matrices of the blocks have it, all else adam.
        b1: the decay of the first moment (adamw, adam, muon).
        b2: the decay of the second moment (adamw, adam, muon).
        eps: added to the root of the second moment (adamw, adam, muon).
        weight_decay: the decoupled decay of every matrix (adamw, muon).
        adam_lr: the learning rate of all but the matrices (muon). Not given: half of lr.
        normuon: scale the updates of all neurons alike (muon).
        momentum: the momentum (sgd, muon). Not given: none, or 0.9 (muon).
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
        ValueError: for a setting out of range, settings that exclude each other, or one of another
            optimizer.
    """

    steps: int | None = None
    epochs: int | None = None
    batch_size: int = 16
    seq_len: int = 64
    lr: float | None = None
    min_lr: float | None = None
    warmup_steps: int = 100
    optimizer: OptimizerName = "adamw"
    b1: float = 0.9
    b2: float = 0.99
    eps: float = 1e-8
    weight_decay: float = 0.1
    adam_lr: float | None = None
    normuon: bool = False
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
            (expect_number, "lr min_lr adam_lr weight_decay eps", {"low": 0.0}),
            (expect_number, "b1 b2", {"low": 0.0, "high": math.nextafter(1.0, 0.0)}),
            (expect_number, "momentum label_smoothing", {"low": 0.0, "high": 1.0}),
            (expect_number, "z_loss", {"low": 0.0}),
            (expect_bool, "nesterov normuon", {}),
            (expect_number, "max_grad_norm", {"low": 1e-9}),
        )
        if self.steps is not None and self.epochs is not None:
            raise ValueError(
                "a run is measured in steps or in epochs: got "
                f"steps={self.steps} and epochs={self.epochs}; leave one out"
            )
        if self.lowest_lr > self.peak_lr:
            lowest, peak = self.lowest_lr, self.peak_lr
            raise ValueError(f"min_lr must be at most lr: got {lowest:g} and {peak:g}; lower it")
        for field in dataclasses.fields(self):
            users = users_of(field.name) or (self.optimizer,)
            if self.optimizer not in users and getattr(self, field.name) != field.default:
                raise ValueError(
                    f"{field.name} is a setting of {' and '.join(users)}: got "
                    f"optimizer={self.optimizer!r}; leave it out, or choose {users[0]}"
                )
        if self.nesterov and self.momentum is None:
            raise ValueError("nesterov needs a momentum: got None; set momentum=0.9")

    @property
    def peak_lr(self) -> float:
        """The learning rate after the warm-up."""
        return OPTIMIZERS[self.optimizer].lr if self.lr is None else self.lr

    @property
    def lowest_lr(self) -> float:
        """The learning rate at the end."""
        return self.peak_lr / 10 if self.min_lr is None else self.min_lr

    def warm_up(self, steps: int) -> int:
        """Return the updates of a run of that many until the learning rate is reached."""
        return min(self.warmup_steps, steps // 10)

    def schedule(self, steps: int) -> Schedule:
        """Return the learning rate of each update of a run of that many."""
        return warmup_cosine_decay_schedule(
            self.peak_lr, self.warm_up(steps), steps, self.lowest_lr
        )

    def make_optimizer(
        self, rate: Schedule, model: LanguageModel | None = None
    ) -> GradientTransformation:
        """Return clipping and the optimizer of that name.

        Args:
            rate: such as `schedule`'s; the rate of adam beside muon is in proportion to it.
            model: of which muon trains the matrices.
        """
        optimizer = OPTIMIZERS[self.optimizer]
        own = {name: getattr(self, name) for name in optimizer.settings}
        clip = clip_by_global_norm(self.max_grad_norm)
        if self.optimizer != "muon":
            return chain(clip, optimizer.make(rate, **own))
        columns = matrices(model) if model else {}
        ratio = 0.5 if self.adam_lr is None else self.adam_lr / (self.peak_lr or 1.0)
        parts = {
            "muon": muon(
                rate,
                0.9 if self.momentum is None else self.momentum,
                weight_decay=self.weight_decay,
                columns=columns,
                row_beta=0.95 if self.normuon else None,
            ),
            "adam": adam(lambda step: ratio * rate(step), self.b1, self.b2, self.eps),
        }
        return chain(clip, partition(parts, lambda path: "muon" if path in columns else "adam"))
