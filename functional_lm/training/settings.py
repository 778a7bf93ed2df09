"""The settings of a training run."""

import dataclasses
import itertools
import math
from collections.abc import Callable
from typing import Literal, NamedTuple, TypeAlias, get_args

from ..contract import expect_bool, expect_choice, expect_fields, expect_int, expect_number
from ..models import LanguageModel
from ..models.projections import matrices
from ..optimizers import (
    GradientTransformation,
    Schedule,
    adafactor,
    adam,
    adamw,
    chain,
    clip_by_global_norm,
    lion,
    muon,
    params_ema,
    partition,
    sgd,
    warmup_cosine_decay_schedule,
    warmup_inverse_sqrt_schedule,
    warmup_stable_decay_schedule,
)

DEFAULT_STEPS = 2000

OptimizerName: TypeAlias = Literal["adamw", "adam", "sgd", "muon", "lion", "adafactor"]
ScheduleName: TypeAlias = Literal["cosine", "linear", "wsd", "inverse_sqrt", "constant"]


class Optimizer(NamedTuple):
    """An optimizer by name: how it is made, and from which settings.

    The margin goes from the middle of a range test to its suggestion; see `range_test`.
    """

    make: Callable[..., GradientTransformation]
    settings: tuple[str, ...]
    lr: float = 3e-3  # its usual rate
    margin: float = 6.0


OPTIMIZERS = {
    "adamw": Optimizer(adamw, ("b1", "b2", "eps", "weight_decay")),
    "adam": Optimizer(adam, ("b1", "b2", "eps")),
    "sgd": Optimizer(sgd, ("momentum", "nesterov")),
    "muon": Optimizer(
        muon, ("momentum", "weight_decay", "normuon", "adam_lr", "b1", "b2", "eps"), 0.02, 3.3
    ),
    "lion": Optimizer(lion, ("b1", "b2", "weight_decay"), 3e-4),
    "adafactor": Optimizer(adafactor, ("momentum",), 0.03),
}

SCHEDULES = {
    "cosine": ("min_lr",),
    "linear": ("min_lr",),
    "wsd": ("min_lr", "decay_share"),
    "inverse_sqrt": (),
    "constant": (),
}
"""Schedules and their own settings."""


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """How to train.

    Attributes:
        steps: updates to make, each on some windows of the text. Not given: 2000.
        epochs: in place of steps: passes over the text, as shuffled windows that do not overlap.
        windows: where the windows of steps lie: anywhere ("random"), or side by side and in random
            order ("shuffled"). The second shows all parts of the text equally often, which lowers
            the validation loss.
        batch_size: windows in a batch.
        gradient_accumulation_steps: parts of a batch that are computed one after another, to save
            memory; they make one update, as the whole batch does.
        microbatches: in place of shards: parts of a batch, on whose number alone the last bits of
            the weights depend. Not given: as many as shards, or 8 under mpiexec, each times
            gradient-accumulation-steps.
        seq_len: tokens in a window.
        lr: the learning rate after the warm-up. Not given: 3e-3, or 0.02 (muon), 3e-4 (lion), 0.03
            of the size of each weight (adafactor).
        lr_schedule: how the learning rate falls after the warm-up: along a cosine, linearly, only
            at the end (wsd: warm-up, stable, decay), with the root of the steps, or not at all.
        min_lr: the learning rate at the end (cosine, linear, wsd). Not given: a tenth of lr, or
            zero (linear, wsd).
        decay_share: the share of the steps in which the rate falls (wsd).
        warmup_steps: updates over which the learning rate rises; at most a tenth of all.
        optimizer: the update rule. With muon, the matrices of the blocks have it, all else adam.
        b1: the decay of the first moment (adamw, adam, muon), or its share in the update (lion).
        b2: the decay of the second moment (adamw, adam, muon), or of the first (lion).
        eps: added to the root of the second moment (adamw, adam, muon).
        weight_decay: the decoupled decay of every matrix (adamw, muon, lion).
        adam_lr: the learning rate of all but the matrices (muon). Not given: half of lr.
        normuon: scale the updates of all neurons alike (muon).
        momentum: the momentum (sgd, muon, adafactor). Not given: none, or 0.9 (muon).
        nesterov: look ahead along the momentum (sgd).
        max_grad_norm: clip the gradient to this norm.
        ema_decay: the decay of an average of the weights over the steps, such as 0.99; it is what
            is validated, sampled and saved as the best. Not given: none.
        isolate_documents: let no token see another document than its own; needs a tokenizer with a
            token for the end of a text.
        label_smoothing: the share of each target that is spread over the vocabulary; the validation
            loss is without it.
        z_loss: the weight of the squared log of the softmax's denominator; likewise.
        seed: the seed of the parameters, the batches and dropout.
        shards: parts of a batch, each computed in a thread of its own; the last bits of the weights
            depend on it. Not given: the number of cores. With microbatches, the threads of a
            process, on which nothing depends.

    Raises:
        TypeError: for a setting of the wrong type.
        ValueError: for a setting out of range, settings that exclude each other, or one of another
            optimizer or schedule.
    """

    steps: int | None = None
    epochs: int | None = None
    windows: Literal["random", "shuffled"] = "random"
    batch_size: int = 16
    gradient_accumulation_steps: int = 1
    microbatches: int | None = None
    seq_len: int = 64
    lr: float | None = None
    lr_schedule: ScheduleName = "cosine"
    min_lr: float | None = None
    decay_share: float = 0.2
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
    ema_decay: float | None = None
    isolate_documents: bool = False
    label_smoothing: float = 0.0
    z_loss: float = 0.0
    seed: int = 0
    shards: int | None = None

    def __post_init__(self) -> None:
        expect_fields(
            self,
            (expect_int, "steps epochs batch_size gradient_accumulation_steps seq_len shards", {}),
            (expect_int, "microbatches", {}),
            (expect_int, "warmup_steps", {"minimum": 0}),
            (expect_int, "seed", {"minimum": 0, "maximum": 2**64 - 1}),
            (expect_choice, "windows", {"choices": ("random", "shuffled")}),
            (expect_choice, "optimizer", {"choices": get_args(OptimizerName)}),
            (expect_choice, "lr_schedule", {"choices": get_args(ScheduleName)}),
            (expect_number, "lr min_lr adam_lr weight_decay eps", {"low": 0.0}),
            (expect_number, "b1 b2 ema_decay", {"low": 0.0, "high": math.nextafter(1.0, 0.0)}),
            (expect_number, "momentum label_smoothing decay_share", {"low": 0.0, "high": 1.0}),
            (expect_number, "z_loss", {"low": 0.0}),
            (expect_bool, "nesterov normuon isolate_documents", {}),
            (expect_number, "max_grad_norm", {"low": 1e-9}),
        )
        if self.steps is not None and self.epochs is not None:
            raise ValueError(
                "a run is measured in steps or in epochs: got "
                f"steps={self.steps} and epochs={self.epochs}; leave one out"
            )
        if self.epochs is not None and self.windows != "random":
            raise ValueError(
                "windows is a setting of steps: got epochs, which have windows of their own; leave "
                "one out"
            )
        if self.microbatches is not None:
            if self.gradient_accumulation_steps > 1:
                raise ValueError(
                    "a batch is divided by microbatches or by gradient_accumulation_steps: got "
                    f"{self.microbatches} and {self.gradient_accumulation_steps}; leave one out"
                )
            if self.microbatches > self.batch_size:
                raise ValueError(
                    f"microbatches must be at most batch_size: got {self.microbatches} and "
                    f"{self.batch_size}; lower it"
                )
        if self.lowest_lr > self.peak_lr:
            lowest, peak = self.lowest_lr, self.peak_lr
            raise ValueError(f"min_lr must be at most lr: got {lowest:g} and {peak:g}; lower it")
        tables = {
            "optimizer": {name: one.settings for name, one in OPTIMIZERS.items()},
            "lr_schedule": SCHEDULES,
        }
        for field, (of, table) in itertools.product(dataclasses.fields(self), tables.items()):
            users = [name for name, own in table.items() if field.name in own]
            chosen = getattr(self, of)
            if users and chosen not in users and getattr(self, field.name) != field.default:
                raise ValueError(
                    f"{field.name} is a setting of {' and '.join(users)}: got {of}={chosen!r}; "
                    f"leave it out, or choose {users[0]}"
                )
        if self.nesterov and self.momentum is None:
            raise ValueError("nesterov needs a momentum: got None; set momentum=0.9")

    @property
    def parts(self) -> int:
        """The parts of a batch whose gradients are added."""
        return self.microbatches or (self.shards or 1) * self.gradient_accumulation_steps

    @property
    def peak_lr(self) -> float:
        """The learning rate after the warm-up."""
        return OPTIMIZERS[self.optimizer].lr if self.lr is None else self.lr

    @property
    def lowest_lr(self) -> float:
        """The learning rate at the end, if the schedule has one."""
        usual = self.peak_lr / 10 if self.lr_schedule == "cosine" else 0.0
        return usual if self.min_lr is None else self.min_lr

    def warm_up(self, steps: int) -> int:
        """Return the updates of a run of that many until the learning rate is reached."""
        return min(self.warmup_steps, steps // 10)

    def schedule(self, steps: int) -> Schedule:
        """Return the learning rate of each update of a run of that many."""
        peak, warm_up, lowest = self.peak_lr, self.warm_up(steps), self.lowest_lr
        if self.lr_schedule == "cosine":
            return warmup_cosine_decay_schedule(peak, warm_up, steps, lowest)
        if self.lr_schedule == "inverse_sqrt":
            return warmup_inverse_sqrt_schedule(peak, warm_up)
        decay_share = {"linear": 1.0, "constant": 0.0}.get(self.lr_schedule, self.decay_share)
        begin = max(warm_up, steps - round(decay_share * steps))
        return warmup_stable_decay_schedule(peak, warm_up, begin, steps, lowest)

    def make_optimizer(
        self, rate: Schedule, model: LanguageModel | None = None
    ) -> GradientTransformation:
        """Return clipping, the optimizer of that name, and the average of the weights.

        Args:
            rate: such as `schedule`'s; the rate of adam beside muon is in proportion to it.
            model: of which muon trains the matrices.
        """
        optimizer = OPTIMIZERS[self.optimizer]
        own = {name: getattr(self, name) for name in optimizer.settings}
        clip = clip_by_global_norm(self.max_grad_norm)
        average = [] if self.ema_decay is None else [params_ema(self.ema_decay)]
        if self.optimizer != "muon":
            return chain(clip, optimizer.make(rate, **own), *average)
        columns = matrices(model) if model else {}
        if model and not columns:
            raise ValueError("muon needs matrices: got none; choose another optimizer")
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
        both = partition(parts, lambda path: "muon" if path in columns else "adam")
        return chain(clip, both, *average)
