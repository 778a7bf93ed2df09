"""Runs that are healthy, and runs that are made unhealthy on purpose, each in one way.

A scenario names the one trouble that `diagnose` must find in its records, or None. Everything
follows from a seed.
"""

import dataclasses
import functools
import re
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from custom_models import Ascent, Overflowing, bigram_model, chain_of_maps, relu_transformer
from recording import Scale, Setup, default

from functional_lm import prng, pytree
from functional_lm.models import find
from functional_lm.optimizers import chain, clip_by_global_norm, sgd
from functional_lm.training.recipes import RECIPES


class Scenario(NamedTuple):
    """A kind of run."""

    finding: str | None  # its name
    make: Callable[[str, Scale, int], Setup]  # from a text, a scale and a seed


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
    """Multiply queries and keys of a block, and so the scores by the square."""
    setup = default(text, scale, seed)

    def sharper(path: str, leaf: Any) -> Any:
        if not path.startswith("blocks.1.") or "qkv" not in path:
            return leaf
        query, key, value = np.split(leaf, 3, axis=1)
        return np.concatenate([factor * query, factor * key, value], axis=1)

    setup.params = pytree.map_with_path(sharper, setup.params)
    return setup


def dead_layer(text: str, scale: Scale, seed: int, *, leaves: str) -> Setup:
    """Set leaves, a regular expression, to zero so that no gradient reaches them."""
    setup = default(text, scale, seed)
    setup.params = _scaled(setup.params, 0.0, lambda path: re.match(leaves, path) is not None)
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


def one_epoch(text: str, scale: Scale, seed: int) -> Setup:
    """Train on every window of a part of the text once."""
    length = round(scale.steps * scale.batch_size * scale.seq_len / 0.9)
    return default(text[:length], scale, seed, steps=None, epochs=1)


def corrupted_text(text: str, scale: Scale, seed: int) -> Setup:
    """Train on the text in order, a fortieth of which is random characters."""
    setup = default(text, scale, seed)
    B, T = scale.batch_size, scale.seq_len
    used = scale.steps * B * T
    tokens = np.resize(np.roll(setup.experiment.tokens, -997 * seed), used + 1)
    start, length = round(used * 0.6), used // 40
    vocab_size = setup.experiment.config.vocab_size
    tokens[start : start + length] = prng.integers((seed, 9), (length,), low=0, high=vocab_size)

    def batch_at(step: int) -> tuple[Any, dict[str, Any]]:
        part = tokens[step * B * T : (step + 1) * B * T + 1]
        return part[:-1].reshape(B, T), {"targets": part[1:].reshape(B, T), "key": None}

    setup.batch_at = batch_at
    return setup


def memorised(text: str, scale: Scale, seed: int) -> Setup:
    """Train on so little text that it is memorised, and validate on another part."""
    length = 40 * scale.seq_len
    start = 5000 * (seed + 1) % (len(text) // 2 - length)
    elsewhere = start + len(text) // 2
    little = text[start : start + round(0.9 * length)] + text[elsewhere : elsewhere + length // 10]
    return default(little, scale, seed, steps=2 * scale.steps)


def deep_chain(text: str, scale: Scale, seed: int, *, factor: float, depth: int = 24) -> Setup:
    """Train a stack of layers without skip paths, whose matrices are too small or too large."""
    model = chain_of_maps(scale.sizes["d_model"], depth)
    setup = default(text, scale, seed, model=model)
    setup.params = _scaled(setup.params, factor, lambda path: path.startswith("blocks"))
    return setup


def own_model(text: str, scale: Scale, seed: int) -> Setup:
    """Train a healthy custom model."""
    model = relu_transformer(scale.sizes["d_model"])
    return default(text, scale, seed, model=model, sizes={"n_heads": 4})


def bigrams(text: str, scale: Scale, seed: int) -> Setup:
    """Train a model that sees one character, and soon has learned all it can."""
    constant = {"lr": 1e-2, "min_lr": 1e-2, "batch_size": 64, "seq_len": 32, "steps": 600}
    return default(text, scale, seed, model=bigram_model(), **constant)


def ascent(text: str, scale: Scale, seed: int) -> Setup:
    """Go up the gradient."""
    setup = default(text, scale, seed)
    setup.layer = Ascent(setup.experiment.model)
    return setup


def overflow(text: str, scale: Scale, seed: int) -> Setup:
    """Make the loss NaN at some steps."""
    setup = default(text, scale, seed)
    steps = prng.integers((seed, 9), (8,), low=10, high=scale.steps)
    setup.layer = Overflowing(setup.experiment.model, frozenset(steps.tolist()))
    return setup


def no_warm_up(text: str, scale: Scale, seed: int) -> Setup:
    """Start at a rate that needs a warm-up."""
    return default(text, scale, seed, lr=scale.warm_up_needed, warmup_steps=0)


def gradient_descent(text: str, scale: Scale, seed: int) -> Setup:
    """Train with SGD in place of AdamW."""
    setup = default(text, scale, seed, lr=0.1)
    setup.optimizer = chain(clip_by_global_norm(1.0), sgd(setup.experiment.schedule, momentum=0.9))
    return setup


def with_settings(**settings: Any) -> Callable[[str, Scale, int], Setup]:
    """Return a run of the default recipe, but for some settings."""
    return functools.partial(default, **settings)


PARTS = {field.name for field in dataclasses.fields(find("hybrid").Config)}

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
    "one epoch": Scenario(None, one_epoch),
    "SGD": Scenario(None, gradient_descent),
    "own model": Scenario(None, own_model),
    **{
        name: Scenario(None, with_settings(optimizer=name, lr=None))
        for name in ("muon", "lion", "adafactor")
    },
    "best recipe": Scenario(
        None,
        with_settings(
            **{name: value for name, value in RECIPES["best"].items() if name not in PARTS},
            sizes={name: value for name, value in RECIPES["best"].items() if name in PARTS},
        ),
    ),
}

UNHEALTHY = {
    "rate x 100": Scenario("learning rate too high", with_settings(lr=0.3)),
    "no warm-up, high rate": Scenario("no warm-up", no_warm_up),
    "initialisation x 10": Scenario("bad initialisation", large_initialisation),
    "dead layer": Scenario(
        "dead units", functools.partial(dead_layer, leaves=r"blocks\.1\.mlp\.(gate_)?up")
    ),
    "memorised": Scenario("overfitting", memorised),
    "noise for a stretch": Scenario("corrupted data", noise_for_a_stretch),
}
"""Six troubles, each in its plainest form."""

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
        "dead units", functools.partial(dead_layer, leaves=r"blocks\.1\.(attention|mixer)\.")
    ),
    "dead norm": Scenario(
        "dead units", functools.partial(dead_layer, leaves=r"blocks\.0\.norm2\.")
    ),
    "corrupted text": Scenario("corrupted data", corrupted_text),
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
    "overflow": Scenario("skipped updates", overflow),
}
"""Other forms of these troubles, and other troubles."""

SCENARIOS = HEALTHY | UNHEALTHY | MORE_UNHEALTHY
