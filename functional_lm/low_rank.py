"""Two thin matrices A and B beside ranges of columns of a wide one, as adapters have them.

With rank R, P ranges and W columns in all, A is (D_in, P·R) and B (R, W): range i has the columns
from i·R of A, and its own of B, in the order of the ranges.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from .contract import (
    Array,
    Key,
    Layer,
    Tree,
    expect_floating,
    expect_int,
    expect_number,
    expect_params,
    expect_shape,
)
from .prng import bernoulli, fold_in, normal

__all__ = ["Columns", "Part", "dropped", "expect_thin", "init_low_rank", "parts_of", "scale_of"]

Columns: TypeAlias = Sequence[tuple[int, int]] | None
"""The ranges, ``(start, stop)`` each; None is one of all columns."""


class Part(NamedTuple):
    """The columns that belong to one range."""

    wide: slice  # of the wide matrix
    a: slice
    b: slice


def parts_of(columns: Columns, width: int, rank: int, b: Array | None = None) -> list[Part]:
    """Return the columns of each range.

    Args:
        columns: the ranges.
        width: of the wide matrix.
        rank: R.
        b: the matrix B, which must have as many columns as the ranges.

    Raises:
        ValueError: if it does not, or a range is empty or reaches beyond the width.
    """
    ranges = ((0, width),) if columns is None else columns
    stops = np.cumsum([stop - start for start, stop in ranges]).tolist()
    inside = all(0 <= start < stop <= width for start, stop in ranges)
    if not inside or (b is not None and b.shape[1] != stops[-1]):
        raise ValueError(
            f"b must have the columns {list(ranges)} of a matrix {width} wide: "
            f"got {'ranges outside' if b is None else b.shape}; pass what init returns"
        )
    return [
        Part(slice(*both), slice(i * rank, (i + 1) * rank), slice(stop - both[1] + both[0], stop))
        for i, (both, stop) in enumerate(zip(ranges, stops, strict=True))
    ]


def scale_of(alpha: float, rank: int, rslora: bool) -> float:
    """Return α/r, or α/√r, by which A·B is multiplied."""
    return expect_number("alpha", alpha) / (math.sqrt(rank) if rslora else rank)


def init_low_rank(
    key: Key | None,
    *,
    base: Layer,
    d_in: int,
    d_out: int | tuple[int, ...],
    rank: int,
    columns: Columns = None,
    scale: float = 1.0,
    given: Tree = None,
    dtype: Any = np.float32,
) -> Tree:
    """Return ``base``; ``a``, drawn from N(0, 1/D_in); and ``b`` of zeros, so that A·B is zero.

    Args:
        key: randomness.
        base: the projection that is adapted.
        d_in: D_in.
        d_out: D_out, or the sizes that add up to it.
        rank: R.
        columns: the ranges of columns to adapt; all if not given.
        scale: of the base's weight.
        given: the parameters of the base; drawn if not given.
        dtype: float32 or float64.
    """
    D_in, R = expect_int("d_in", d_in), expect_int("rank", rank)
    parts = parts_of(columns, int(np.sum(d_out)), R)
    if given is None:
        given = base.init(fold_in(key, 0), d_in=d_in, d_out=d_out, scale=scale, dtype=dtype)
    a = normal(fold_in(key, 1), (D_in, len(parts) * R), scale=D_in**-0.5, dtype=dtype)
    return {"base": given, "a": a, "b": np.zeros((R, parts[-1].b.stop), dtype)}


def expect_thin(params: Tree, x: Any, columns: Columns, *more: str) -> None:
    """Require ``base``, ``a``, ``b`` and ``more`` parameters, with thin matrices that fit x."""
    expect_params(params, ["base", "a", "b", *more])
    expect_floating(x=x, **{name: params[name] for name in ("a", "b", *more)})
    (D_in,) = expect_shape("x", x, "... D_in")
    expect_shape("a", params["a"], "D_in P·R", D_in=D_in)
    ranges = 1 if columns is None else len(columns)
    width = params["a"].shape[1]
    if width % ranges:
        raise ValueError(
            f"a must have as many columns for each of the {ranges} ranges: got {width}; "
            "pass what init returns"
        )
    expect_shape("b", params["b"], "R W", R=width // ranges)
    for name in more:
        expect_shape(name, params[name], "W", W=params["b"].shape[1])


def dropped(x: Array, rate: float, key: Key | None) -> tuple[Array, Array | None]:
    """Return x after dropout and what it was multiplied with, or x itself and None."""
    rate = expect_number("rate", rate, low=0.0, high=math.nextafter(1.0, 0.0))
    if key is None or rate == 0.0:
        return x, None
    multiplier = bernoulli(key, x.shape, p=1.0 - rate).astype(x.dtype) * (1.0 / (1.0 - rate))
    return x * multiplier, multiplier
