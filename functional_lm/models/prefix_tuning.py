"""A mixer of positions with learned rows in front of its input (Li and Liang 2021, section 4).

Forward: ``prefix`` puts P rows in front → the mixer → the outputs of those rows are left out.
``vjp`` is the forward read upwards. The mixer makes keys and values of the rows as of any others,
so whatever mixes positions can have them; in decoding they are in the cache before the text. The
positions of the text begin at P.

Shapes: x and y (B, T, D).
"""

from typing import Any, NamedTuple

import numpy as np

from ..compose import keyed
from ..contract import Array, Key, Layer, Tree, expect_inputs, expect_params, expect_residuals
from ..layers import prefix
from ..prng import fold_in

__all__ = ["Residuals", "forward", "init", "init_cache", "step", "vjp"]


class Residuals(NamedTuple):
    """What `vjp` needs: the residuals of both layers, and the mixer."""

    prefix: prefix.Residuals
    base: Any
    layer: Any


def init(
    key: Key | None,
    *,
    base: Layer,
    size: int,
    d_model: int,
    given: Tree = None,
    dtype: Any = np.float32,
) -> Tree:
    """Draw ``size`` rows; ``given`` are the parameters of the mixer, drawn if not given."""
    if given is None:
        given = base.init(fold_in(key, 0), dtype=dtype)
    rows = prefix.init(fold_in(key, 1), size=size, d_model=d_model, dtype=dtype)
    return {"base": given, "prefix": rows}


def forward(
    params: Tree, x: Array, *, base: Any, positions: Array, key: Key | None = None
) -> tuple[Array, Residuals]:
    """Return what the mixer makes of x behind the rows, shape (B, T, D).

    Args:
        params: of the mixer, ``base``, and of the ``prefix``.
        x: (B, T, D).
        base: the mixer.
        positions: of the tokens, (T,) or (B, T).
        key: randomness of the mixer.
    """
    expect_params(params, ["base", "prefix"])
    expect_inputs({}, "", x, "B T D")
    P = len(params["prefix"]["weight"])
    front = np.broadcast_to(np.arange(P), (*positions.shape[:-1], P))
    behind = np.concatenate([front, positions + P], axis=-1)
    h, r_prefix = prefix.forward(params["prefix"], x)  # (B, P + T, D)
    y, r_base = base.forward(params["base"], h, positions=behind, **keyed(base, key))
    return y[:, P:], Residuals(r_prefix, r_base, base)


def vjp(residuals: Residuals, g: Array) -> tuple[Tree, Array]:
    """Return ``({"base", "prefix"}, d_x)`` for the cotangent g (B, T, D)."""
    expect_residuals(residuals, Residuals)
    r_prefix, r_base, base = residuals
    unread = np.zeros((len(g), r_prefix.size, *g.shape[2:]), g.dtype)
    d_base, d_h = base.vjp(r_base, np.concatenate([unread, g], axis=1))
    d_prefix, d_x = prefix.vjp(r_prefix, d_h)
    return {"base": d_base, "prefix": d_prefix}, d_x


def init_cache(params: Tree, batch: int, length: int, *, base: Any) -> Any:
    """Return the mixer's cache after the rows, for texts of up to ``length`` tokens."""
    weight = params["prefix"]["weight"]
    nothing = np.zeros((batch, 0, weight.shape[1]), weight.dtype)
    rows, _ = prefix.forward(params["prefix"], nothing)  # (B, P, D)
    cache = base.init_cache(params["base"], batch, len(weight) + length)
    return base.step(params["base"], rows, cache)[1]


def step(
    params: Tree, x: Array, cache: Any, *, base: Any, lengths: Array | None = None
) -> tuple[Array, Any]:
    """Return the mixer's output for the next positions, and the cache after them."""
    return base.step(params["base"], x, cache, lengths=lengths)
