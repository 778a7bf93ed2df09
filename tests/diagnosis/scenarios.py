"""Runs that are healthy, and runs that are made unhealthy on purpose, each in one way.

A scenario says what `diagnose` must find in its records, and nothing else may be found. Where it
has no expectation, nothing at all may be. Everything follows from a seed.
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

from functional_lm import prng, pytree
from functional_lm.compose import bind, repeat, residual, serial
from functional_lm.contract import Layer
from functional_lm.gradient import ValueAndGrad
from functional_lm.layers import embedding, linear, rms_norm, unembedding
from functional_lm.models import self_attention, transformer
from functional_lm.optimizers import GradientTransformation, chain, clip_by_global_norm, sgd
from functional_lm.sharding import sharded
from functional_lm.training import Experiment, Record, TrainConfig, init_state, record_of, train
from functional_lm.training.statistics import Statistics, statistics_of

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
    """A run about to start."""

    experiment: Experiment
    params: Any
    batch_at: Callable[[int], tuple[Any, dict[str, Any]]]
    optimizer: GradientTransformation | None = None  # that of the experiment if not given
    layer: Any = None  # the experiment's objective if not given


class Scenario(NamedTuple):
    """A kind of run."""

    finding: str | None  # the name of what must be found
    make: Callable[[str, Scale, int], Setup]  # from a text, a scale and a seed


def records(setup: Setup) -> Iterator[Record]:
    """Train, and yield the records that the training command would write."""
    experiment, watch = setup.experiment, _Watch()
    optimizer = watch.optimizer(setup.optimizer or experiment.optimizer)
    state, number = init_state(setup.params, optimizer), 0
    steps = train(
        setup.layer or experiment.objective,
        state,
        optimizer=optimizer,
        batch_at=setup.batch_at,
        steps=experiment.steps,
        value_and_grad=watch.value_and_grad(sharded(experiment.settings.shards or 1)),
    )
    try:
        for step in steps:
            number = step.state.step
            tokens, _ = setup.batch_at(number - 1)
            record = record_of(step, lr=experiment.schedule(number - 1), tokens=tokens.size)
            if number == 1 or number % INSPECT_EVERY == 0:
                record["statistics"] = watch.statistics(experiment, tokens)
            if number % EVALUATE_EVERY == 0 or number == experiment.steps:
                record["val_loss"] = experiment.validation_loss(step.state.params)
            yield _finite(record)
    except FloatingPointError as error:
        rate = experiment.schedule(number)
        yield {"step": number + 1, "loss": None, "lr": rate, "grad_norm": None, "fault": str(error)}


class _Watch:
    """Keeps the gradient and the update of the last step."""

    def value_and_grad(self, inner: ValueAndGrad) -> ValueAndGrad:
        def watched(layer: Any, params: Any, x: Any, **side: Any) -> Any:
            loss, self.grads = inner(layer, params, x, **side)
            return loss, self.grads

        return watched

    def optimizer(self, inner: GradientTransformation) -> GradientTransformation:
        def update(grads: Any, state: Any, params: Any) -> Any:
            self.params = params
            self.updates, state = inner.update(grads, state, params)
            return self.updates, state

        return GradientTransformation(inner.init, update)

    def statistics(self, experiment: Experiment, tokens: Any) -> Statistics:
        return statistics_of(
            experiment.objective, self.params, self.grads, self.updates, tokens
        )


def _finite(record: Record) -> Record:
    return {
        name: None if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in record.items()
    }


def default(
    text: str,
    scale: Scale,
    seed: int,
    *,
    model: Layer = transformer,
    sizes: dict[str, Any] | None = None,
    **settings: Any,
) -> Setup:
    """Return a run of the default recipe, but for some settings."""
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


def _scaled(params: Any, factor: float, chosen: Callable[[str], bool]) -> Any:
    """Return the params with some matrices times a number."""
    return pytree.map_with_path(
        lambda path, leaf: leaf * leaf.dtype.type(factor) if chosen(path) else leaf, params
    )


def large_initialisation(
    text: str, scale: Scale, seed: int, *, factor: float = 10.0, part: str = ""
) -> Setup:
    """Multiply every matrix, or those of a part."""
    setup = default(text, scale, seed)
    setup.params = _scaled(
        setup.params, factor, lambda path: path.startswith(part) and not path.endswith("scale")
    )
    return setup


def saturated_attention(text: str, scale: Scale, seed: int, *, factor: float = 20.0) -> Setup:
    """Multiply queries and keys of a block, so that the scores are multiplied by the square."""
    setup = default(text, scale, seed)

    def sharper(path: str, leaf: Any) -> Any:
        if path != "blocks.1.attention.qkv":
            return leaf
        query, key, value = np.split(leaf, 3, axis=1)
        return np.concatenate([factor * query, factor * key, value], axis=1)

    setup.params = pytree.map_with_path(sharper, setup.params)
    return setup


def dead_layer(text: str, scale: Scale, seed: int, *, leaves: tuple[str, ...]) -> Setup:
    """Set a layer to zero in a way that no gradient gets it out of."""
    setup = default(text, scale, seed)
    setup.params = _scaled(setup.params, 0.0, lambda path: path in leaves)
    return setup


def noise_for_a_stretch(
    text: str, scale: Scale, seed: int, *, at: float = 0.5, share: float = 0.05, rows: float = 1.0
) -> Setup:
    """Train on random characters for a share of the steps, in some or all rows of a batch."""
    setup = default(text, scale, seed)
    plain, vocab_size = setup.batch_at, setup.experiment.config.vocab_size
    start = round(at * scale.steps) + 7 * (seed % 5)
    stop = start + round(share * scale.steps)

    def batch_at(step: int) -> tuple[Any, dict[str, Any]]:
        x, side = plain(step)
        if not start <= step < stop:
            return x, side
        noise = prng.integers((seed, 9, step), (len(x), x.shape[1] + 1), low=0, high=vocab_size)
        bad = np.arange(len(x))[:, None] < rows * len(x)
        targets = np.where(bad, noise[:, 1:], side["targets"])
        return np.where(bad, noise[:, :-1], x), side | {"targets": targets}

    setup.batch_at = batch_at
    return setup


def in_order(text: str, scale: Scale, seed: int, *, corrupted: bool = False) -> Setup:
    """Train on the text from its beginning, maybe with a fortieth of it random characters."""
    setup = default(text, scale, seed)
    B, T = scale.batch_size, scale.seq_len
    used = scale.steps * B * T
    tokens = np.resize(np.roll(setup.experiment.tokens, -997 * seed), used + 1)
    if corrupted:
        start, length = round(used * 0.6), used // 40
        vocab_size = setup.experiment.config.vocab_size
        tokens[start : start + length] = prng.integers((seed, 9), (length,), low=0, high=vocab_size)

    def batch_at(step: int) -> tuple[Any, dict[str, Any]]:
        part = tokens[step * B * T : (step + 1) * B * T + 1]
        return part[:-1].reshape(B, T), {"targets": part[1:].reshape(B, T), "key": None}

    setup.batch_at = batch_at
    return setup


def memorised(text: str, scale: Scale, seed: int) -> Setup:
    """Train on so little text that it is learned by heart."""
    start = 5000 * (seed + 1)
    return default(text[start : start + 40 * scale.seq_len], scale, seed, steps=2 * scale.steps)


class _Tanh:
    """A layer without a skip path is what makes gradients vanish or explode."""

    @staticmethod
    def init(key: Any = ()) -> Any:
        return {}

    @staticmethod
    def forward(params: Any, x: Any) -> Any:
        y = np.tanh(x)
        return y, y

    @staticmethod
    def vjp(residuals: Any, g: Any) -> Any:
        return {}, g * (1 - residuals * residuals)


def deep_chain(text: str, scale: Scale, seed: int, *, factor: float, depth: int = 24) -> Setup:
    """Train a stack of layers without skip paths, whose matrices are too small or too large."""
    D = scale.sizes["d_model"]
    layer = serial(map=bind(linear, d_in=D, d_out=D, bias=False), act=_Tanh)
    model = serial(
        embedding=embedding, blocks=repeat(layer, depth), norm=rms_norm, unembedding=unembedding
    )
    setup = default(text, scale, seed, model=model)
    setup.params = _scaled(setup.params, factor, lambda path: path.startswith("blocks"))
    return setup


def own_model(text: str, scale: Scale, seed: int) -> Setup:
    """Train a model of somebody's own that is in order."""
    D = scale.sizes["d_model"]
    attend = serial(norm=rms_norm, attention=bind(self_attention, n_heads=4))
    think = serial(
        norm=rms_norm,
        up=bind(linear, d_in=D, d_out=4 * D),
        act=_Relu,
        down=bind(linear, d_in=4 * D, d_out=D),
    )
    block = serial(attention=residual(attend), mlp=residual(think))
    model = serial(
        embedding=embedding, blocks=repeat(block, 2), norm=rms_norm, unembedding=unembedding
    )
    return default(text, scale, seed, model=model, sizes={"n_heads": 4})


class _Relu:
    """max(x, 0)."""

    @staticmethod
    def init(key: Any = ()) -> Any:
        return {}

    @staticmethod
    def forward(params: Any, x: Any) -> Any:
        y = np.maximum(x, 0)
        return y, y

    @staticmethod
    def vjp(residuals: Any, g: Any) -> Any:
        return {}, g * (residuals > 0)


def bigrams(text: str, scale: Scale, seed: int) -> Setup:
    """Train a model that sees one character, which soon has learned all it can."""
    model = serial(embedding=embedding, unembedding=unembedding)
    constant = {"lr": 1e-2, "min_lr": 1e-2, "batch_size": 64, "seq_len": 32, "steps": 600}
    return default(text, scale, seed, model=model, **constant)


class _Ascent:
    """An objective whose gradient has the wrong sign."""

    def __init__(self, objective: Any) -> None:
        self._objective = objective
        self.forward = objective.forward

    def vjp(self, residuals: Any, g: Any) -> Any:
        return self._objective.vjp(residuals, -g)


def ascent(text: str, scale: Scale, seed: int) -> Setup:
    """Go up the gradient."""
    setup = default(text, scale, seed)
    setup.layer = _Ascent(setup.experiment.objective)
    return setup


def no_warm_up(text: str, scale: Scale, seed: int) -> Setup:
    """Begin at a rate at which a warm-up is needed."""
    return default(text, scale, seed, lr=scale.warm_up_needed, warmup_steps=0)


def gradient_descent(text: str, scale: Scale, seed: int) -> Setup:
    """Train with SGD in place of AdamW."""
    setup = default(text, scale, seed)
    setup.optimizer = chain(clip_by_global_norm(1.0), sgd(setup.experiment.schedule, momentum=0.9))
    return setup


def with_settings(**settings: Any) -> Callable[[str, Scale, int], Setup]:
    """Return a run of the default recipe, but for some settings."""
    return functools.partial(default, **settings)


HEALTHY = {
    "default": Scenario(None, default),
    "constant low rate": Scenario(None, with_settings(lr=3e-4, min_lr=3e-4)),
    "rate / 3": Scenario(None, with_settings(lr=1e-3)),
    "rate x 2": Scenario(None, with_settings(lr=6e-3)),
    "no warm-up": Scenario(None, with_settings(warmup_steps=0, lr=1e-3)),
    "dropout": Scenario(None, with_settings(sizes={"dropout": 0.1})),
    "small batch": Scenario(None, with_settings(batch_size=4, lr=1e-3)),
    "short": Scenario(None, with_settings(steps=60)),
    "deep": Scenario(None, with_settings(sizes={"n_layers": 8})),
    "untied, grouped": Scenario(
        None, with_settings(sizes={"tie_embeddings": False, "n_kv_heads": 1})
    ),
    "in order": Scenario(None, in_order),
    "SGD": Scenario(None, functools.partial(gradient_descent)),
    "own model": Scenario(None, own_model),
}

UNHEALTHY = {
    "rate x 100": Scenario("learning rate too high", with_settings(lr=0.3)),
    "no warm-up, high rate": Scenario("no warm-up", no_warm_up),
    "initialisation x 10": Scenario("bad initialisation", large_initialisation),
    "dead layer": Scenario(
        "dead units", functools.partial(dead_layer, leaves=("blocks.1.mlp.gate_up",))
    ),
    "memorised": Scenario("overfitting", memorised),
    "noise for a stretch": Scenario("corrupted data", noise_for_a_stretch),
}
"""The six that were asked for, each in its plainest form."""

MORE_UNHEALTHY = {
    "rate x 30": Scenario("learning rate too high", with_settings(lr=0.1)),
    "rate x 1000": Scenario("learning rate too high", with_settings(lr=3.0)),
    "blocks x 10": Scenario(
        "bad initialisation", functools.partial(large_initialisation, part="blocks")
    ),
    "embedding x 30": Scenario(
        "bad initialisation", functools.partial(large_initialisation, part="emb", factor=30.0)
    ),
    "dead attention": Scenario(
        "dead units",
        functools.partial(dead_layer, leaves=("blocks.1.attention.qkv", "blocks.1.attention.out")),
    ),
    "dead norm": Scenario(
        "dead units", functools.partial(dead_layer, leaves=("blocks.0.norm2.scale",))
    ),
    "corrupted text": Scenario("corrupted data", functools.partial(in_order, corrupted=True)),
    "noise in half of the rows": Scenario(
        "corrupted data", functools.partial(noise_for_a_stretch, rows=0.5)
    ),
    "early noise": Scenario("corrupted data", functools.partial(noise_for_a_stretch, at=0.15)),
    "late, short noise": Scenario(
        "corrupted data", functools.partial(noise_for_a_stretch, at=0.85, share=0.02)
    ),
    "saturated attention": Scenario("saturated attention", saturated_attention),
    "vanishing": Scenario("vanishing gradients", functools.partial(deep_chain, factor=0.2)),
    "exploding": Scenario("exploding gradients", functools.partial(deep_chain, factor=3.0)),
    "bigrams": Scenario("plateau", bigrams),
    "ascent": Scenario("divergence", ascent),
}
"""Other forms of these troubles, and other troubles."""

SCENARIOS = HEALTHY | UNHEALTHY | MORE_UNHEALTHY
