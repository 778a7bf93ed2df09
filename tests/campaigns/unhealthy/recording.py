"""Sets up a run, trains it and yields its records."""

import contextlib
import dataclasses
import json
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from functional_lm.contract import Layer
from functional_lm.optimizers import GradientTransformation
from functional_lm.runs import Record, record_of
from functional_lm.runs.session import MAX_CONSECUTIVE_ERRORS
from functional_lm.speed.sharding import sharded
from functional_lm.training import (
    Experiment,
    TrainConfig,
    init_state,
    statistics_of,
    train,
)


class Scale(NamedTuple):
    """How large the runs of a campaign are."""

    sizes: dict[str, Any]
    batch_size: int
    seq_len: int
    steps: int
    warm_up_needed: float  # a rate that moves a weight by about 0.7 of its first size


SCALES = {
    "narrow": Scale({"d_model": 32, "n_heads": 2, "n_layers": 2}, 8, 16, 300, 0.06),
    "small": Scale({"d_model": 64, "n_heads": 4, "n_layers": 2}, 16, 32, 400, 0.04),
    "tiny": Scale({"d_model": 128, "n_heads": 4, "n_layers": 4}, 16, 64, 400, 0.02),
}
INSPECT_EVERY = EVALUATE_EVERY = 100


@dataclasses.dataclass
class Setup:
    """A run before its first step."""

    experiment: Experiment
    params: Any
    batch_at: Callable[[int], tuple[Any, dict[str, Any]]]
    optimizer: GradientTransformation | None = None  # None: that of the experiment
    layer: Any = None  # None: that of the experiment


def records(setup: Setup) -> Iterator[Record]:
    """Train, and yield the records that the training command writes."""
    experiment = setup.experiment
    optimizer = setup.optimizer or experiment.optimizer

    def inspect(number: int, params: Any, grads: Any, updates: Any, tokens: Any) -> Any:
        if number != 1 and number % INSPECT_EVERY:
            return None
        return statistics_of(experiment.model, params, grads, updates, tokens)

    steps = train(
        setup.layer or experiment.model,
        init_state(setup.params, optimizer),
        optimizer=optimizer,
        batch_at=setup.batch_at,
        steps=experiment.steps,
        value_and_grad=sharded(experiment.settings.shards or 1),
        max_consecutive_errors=MAX_CONSECUTIVE_ERRORS,
        inspect=inspect,
    )
    with contextlib.suppress(FloatingPointError):
        for step in steps:
            number = step.state.step
            record = record_of(step, lr=experiment.schedule(number - 1), tokens=step.inputs.size)
            if number % EVALUATE_EVERY == 0 or number == experiment.steps:
                record["val_loss"] = experiment.validation_loss(step.state.params)
            yield json.loads(json.dumps(record), parse_constant=lambda _: None)


def default(
    text: str,
    scale: Scale,
    seed: int,
    *,
    model: Layer | str = "llama",
    sizes: dict[str, Any] | None = None,
    **settings: Any,
) -> Setup:
    """Return a run of the default recipe with some settings changed."""
    known = {
        "steps": scale.steps,
        "batch_size": scale.batch_size,
        "seq_len": scale.seq_len,
        "seed": seed,
        "shards": 1 if scale.sizes["d_model"] < 128 else None,
    }
    config = TrainConfig(**known | settings)
    experiment = Experiment.build(text, config, model=model, sizes=scale.sizes | (sizes or {}))
    return Setup(experiment, experiment.init_state().params, experiment.batch_at)
