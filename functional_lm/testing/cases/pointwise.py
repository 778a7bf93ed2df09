"""The cases of the layers whose rows do not see each other."""

from typing import Any

import numpy as np

from ... import prng
from .draws import LEADING, Draws, Inputs


def _linear(draw: Draws, _: Any) -> Inputs:
    for label, leading in LEADING.items():
        yield label, {"weight": draw.normal(5, 7)}, draw.normal(*leading, 5), {}
    params = {"weight": draw.normal(5, 7), "bias": draw.normal(7)}
    yield "bias", params, draw.normal(2, 3, 5), {}
    narrow = {"weight": draw.normal(5, 6), "bias": draw.normal(6)}
    yield "bias, 7 rows", narrow, draw.normal(7, 5), {}
    yield "bias, many rows", params, draw.normal(1031, 5), {}
    yield "one column", {"weight": draw.normal(5, 1), "bias": draw.normal(1)}, draw.normal(3, 5), {}


def _embedding(draw: Draws, _: Any) -> Inputs:
    for label, leading in LEADING.items():
        yield label, {"weight": draw.normal(11, 7)}, draw.integers(*leading, below=11), {}
    yield "repeated", {"weight": draw.normal(3, 5)}, draw.integers(7, 13, below=3), {}
    yield "large vocabulary", {"weight": draw.normal(1009, 3)}, draw.integers(5, 331, below=997), {}
    yield "large, B=0", {"weight": draw.normal(1009, 3)}, draw.integers(0, 5, below=997), {}


def _unembedding(draw: Draws, _: Any) -> Inputs:
    for label, leading in LEADING.items():
        yield label, {"weight": draw.normal(11, 7)}, draw.normal(*leading, 7), {}


def _rms_norm(draw: Draws, _: Any) -> Inputs:
    for label, leading in LEADING.items():
        yield label, {"scale": draw.normal(13)}, draw.normal(*leading, 13), {}
    yield "large eps", {"scale": draw.normal(7)}, draw.normal(2, 3, 7), {"eps": 0.5}
    yield "small x", {"scale": draw.normal(7)}, draw.normal(2, 3, 7, scale=1e-4), {}
    yield "large x", {"scale": draw.normal(7)}, draw.normal(2, 3, 7, scale=1e4), {}
    yield "many rows", {"scale": draw.normal(7)}, draw.normal(1031, 7), {}
    yield "D=1", {"scale": draw.normal(1)}, draw.normal(3, 1), {"eps": 0.1}


def _entrywise(draw: Draws, _: Any) -> Inputs:
    for label, leading in LEADING.items():
        yield label, {}, draw.normal(*leading, 7), {}
    yield "large x", {}, draw.normal(31, 13, scale=30.0), {}
    yield "small x", {}, draw.normal(3, 13, scale=1e-3), {}


def _softmax(draw: Draws, _: Any) -> Inputs:
    yield from _entrywise(draw, _)
    yield "far from zero", {}, draw.normal(3, 13) + 1e2, {}  # e¹⁰⁰ is infinite in float32


def _silu(draw: Draws, _: Any) -> Inputs:
    yield from _entrywise(draw, _)
    yield "no axes", {}, np.asarray(draw.normal()), {}


def _swiglu(draw: Draws, _: Any) -> Inputs:
    for label, leading in LEADING.items():
        yield label, {}, draw.normal(*leading, 14), {}
    yield "F=1", {}, draw.normal(3, 2), {}
    yield "large x", {}, draw.normal(31, 26, scale=30.0), {}
    yield "small x", {}, draw.normal(3, 26, scale=1e-3), {}


def _gelu(draw: Draws, _: Any) -> Inputs:
    for approximate in (True, False):
        form = "tanh" if approximate else "exact"
        for label, params, x, _side in _silu(draw, _):
            yield f"{label}, {form}", params, x, {"approximate": approximate}


def _layer_norm(draw: Draws, _: Any) -> Inputs:
    def params(D: int) -> dict[str, Any]:
        return {"scale": draw.normal(D), "bias": draw.normal(D)}

    for label, leading in LEADING.items():
        yield label, params(13), draw.normal(*leading, 13), {}
    yield "no bias", {"scale": draw.normal(7)}, draw.normal(2, 3, 7), {}
    yield "large eps", params(7), draw.normal(2, 3, 7), {"eps": 0.5}
    yield "small x", params(7), draw.normal(2, 3, 7, scale=1e-4), {}
    yield "large x", params(7), draw.normal(2, 3, 7, scale=1e4), {}
    yield "far from zero", params(7), draw.normal(2, 3, 7) + 10.0, {}
    yield "many rows", params(7), draw.normal(1031, 7), {}
    yield "D=1", params(1), draw.normal(3, 1), {"eps": 0.1}


def _learned_positions(draw: Draws, _: Any) -> Inputs:
    params = {"weight": draw.normal(11, 7)}
    for label, (B, T) in {"primes": (2, 3), "T=1": (2, 1), "B=0": (0, 3)}.items():
        yield label, params, draw.normal(B, T, 7), {"positions": np.arange(T)}
    yield "no batch", params, draw.normal(5, 7), {"positions": np.arange(5) + 6}
    each = {"positions": draw.integers(2, 5, below=11)}
    yield "for each text", params, draw.normal(2, 5, 7), each
    yield "two leading axes", params, draw.normal(3, 2, 5, 7), {"positions": np.arange(5)}
    many = {"positions": draw.integers(5, 331, below=997)}
    yield "many positions", {"weight": draw.normal(1009, 3)}, draw.normal(5, 331, 3), many


def _dropout(draw: Draws, _: Any) -> Inputs:
    for rate in (0.0, 0.3, 1.0):
        yield f"rate {rate}", {}, draw.normal(2, 13, 7), {"rate": rate, "key": (5, 3)}
    yield "no key", {}, draw.normal(2, 13, 7), {"rate": 0.3}
    yield "B=0", {}, draw.normal(0, 13, 7), {"rate": 0.3, "key": (5,)}
    yield "no axes", {}, np.asarray(draw.normal()), {"rate": 0.3, "key": (5, 3)}
    drawn = prng.uniform((5, 3), (2, 13, 7))
    at_a_draw = 1.0 - (float(drawn.max()) + 2.0**-30)  # the comparison is one of float32 numbers
    yield "rate at a draw", {}, draw.normal(2, 13, 7), {"rate": at_a_draw, "key": (5, 3)}


CASES = {
    "dropout": _dropout,
    "embedding": _embedding,
    "gelu": _gelu,
    "layer_norm": _layer_norm,
    "learned_positions": _learned_positions,
    "linear": _linear,
    "rms_norm": _rms_norm,
    "silu": _silu,
    "softmax": _softmax,
    "swiglu": _swiglu,
    "unembedding": _unembedding,
}
