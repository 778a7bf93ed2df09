"""Inputs for projections, tables, softmax and dropout."""

from typing import Any

import numpy as np

from ... import prng
from .draws import (
    BATCHES,
    ROWS,
    Cases,
    Draws,
    Inputs,
    Layers,
    Maker,
    entrywise,
    entrywise_cases,
)

__all__ = ["LAYERS"]


def _linear(
    draw: Draws, _: Any, leading: Any, D_in: int, D_out: int, *, bias: bool = True
) -> Inputs:
    params = {"weight": draw.normal(D_in, D_out)} | ({"bias": draw.normal(D_out)} if bias else {})
    return params, draw.normal(*leading, D_in), {}


def _linear_cases(draw: Draws, make: Maker) -> Cases:
    return {
        **make.each(ROWS, 5, 7, bias=False),
        "bias": make((2, 3), 5, 7),
        "bias, 7 rows": make((7,), 5, 6),
        "bias, many rows": make((1031,), 5, 7),
        "one column": make((3,), 5, 1),
    }


def _embedding(draw: Draws, _: Any, leading: Any, D: int, V: int, *, unused: int = 0) -> Inputs:
    return {"weight": draw.normal(V, D)}, draw.integers(*leading, below=V - unused), {}


def _embedding_cases(draw: Draws, make: Maker) -> Cases:
    return {
        **make.each(ROWS, 7, 11),
        "repeated": make((7, 13), 5, 3),
        "large vocabulary": make((5, 331), 3, 1009, unused=12),
        "large, B=0": make((0, 5), 3, 1009, unused=12),
    }


def _unembedding(draw: Draws, _: Any, leading: Any, D: int, V: int) -> Inputs:
    return {"weight": draw.normal(V, D)}, draw.normal(*leading, D), {}


def _unembedding_cases(draw: Draws, make: Maker) -> Cases:
    return {**make.each(ROWS, 7, 11), "capped": make((2, 3), 7, 11, soft_cap=1.5)}


def _softmax_cases(draw: Draws, make: Maker) -> Cases:
    far = make((3,), 13, far=1e2)  # e¹⁰⁰ is infinite in float32
    return entrywise_cases(draw, make) | {"far from zero": far}


def _soft_cap(draw: Draws, _: Any, leading: Any, D: int) -> Inputs:
    return {}, draw.normal(*leading, D), {"cap": 0.7}


def _soft_cap_cases(draw: Draws, make: Maker) -> Cases:
    return entrywise_cases(draw, make) | {"a cap of 30": make((2, 3), 7, scale=20.0, cap=30.0)}


def _learned_positions(
    draw: Draws, _: Any, leading: Any, D: int, *, rows: int | None = None
) -> Inputs:
    weight = draw.normal(rows or leading[-1] + 3, D)
    return {"weight": weight}, draw.normal(*leading, D), {"positions": np.arange(leading[-1])}


def _learned_positions_cases(draw: Draws, make: Maker) -> Cases:
    each, many = draw.integers(2, 5, below=11), draw.integers(5, 331, below=997)
    return {
        **make.each(BATCHES, 7, rows=11),
        "no batch": make((5,), 7, rows=11, positions=np.arange(5) + 6),
        "for each text": make((2, 5), 7, rows=11, positions=each),
        "two leading axes": make((3, 2, 5), 7, rows=11),
        "many positions": make((5, 331), 3, rows=1009, positions=many),
    }


def _dropout(draw: Draws, _: Any, leading: Any, D: int) -> Inputs:
    return {}, draw.normal(*leading, D), {"rate": 0.1, "key": draw.key()}


def _dropout_cases(draw: Draws, make: Maker) -> Cases:
    largest = float(prng.uniform((5, 3), (2, 13, 7)).max())
    at_a_draw = 1.0 - (largest + 2.0**-30)  # the comparison is one of float32 numbers
    return {
        **{f"rate {r}": make((2, 13), 7, rate=r, key=(5, 3)) for r in (0.0, 0.3, 1.0)},
        "no key": make((2, 13), 7, rate=0.3, key=None),
        "B=0": make((0, 13), 7, rate=0.3, key=(5,)),
        "no axes": ({}, np.asarray(draw.normal()), {"rate": 0.3, "key": (5, 3)}),
        "rate at a draw": make((2, 13), 7, rate=at_a_draw, key=(5, 3)),
    }


LAYERS: Layers = {
    "dropout": ("D", _dropout, _dropout_cases),
    "embedding": ("D V", _embedding, _embedding_cases),
    "learned_positions": ("D", _learned_positions, _learned_positions_cases),
    "linear": ("D_in D_out", _linear, _linear_cases),
    "soft_cap": ("D", _soft_cap, _soft_cap_cases),
    "softmax": ("D", entrywise, _softmax_cases),
    "unembedding": ("D V", _unembedding, _unembedding_cases),
}
