"""Learned keys and values in front of those of a text, "prefix tuning" (Li and Liang 2021, eq. 3).

Forward. The same P keys and values come in front of those of each of the B texts:

    y.q = x.q        y.k[b] = [keys; x.k[b]]        y.v[b] = [values; x.v[b]]

VJP. Each text gives its cotangent to the prefix:

    d_keys = Σ_b g.k[b, :P]      d_values = Σ_b g.v[b, :P]
    d_x = (g.q, g.k[:, P:], g.v[:, P:])

JVP. The map is linear: the tangents of keys and values come in front, as these do.

Shapes: x is ``QKV(q, k, v)`` with k (B, S, G, K) and v (B, S, G, Kv); ``keys`` (P, G, K) and
``values`` (P, G, Kv); y has k and v of P + S positions.
"""

from typing import Any, NamedTuple

import numpy as np

from ...contract import (
    Array,
    Key,
    Tree,
    expect_cotangent,
    expect_inputs,
    expect_residuals,
    expect_shape,
    expect_sizes,
    expect_tangent,
)
from ...heads import QKV, expect_qkv
from ...prng import fold_in, normal

__all__ = ["Residuals", "forward", "init", "jvp", "vjp"]

SHARES_MEMORY = "queries pass as they are, and cotangents of x are parts of those of y"


class Residuals(NamedTuple):
    """What `vjp` needs."""

    keys: Array  # (P, G, K), for P and the dtype
    shapes: tuple[tuple[int, ...], ...]  # of y


def init(
    key: Key | None,
    *,
    size: int,
    n_kv_heads: int,
    key_size: int,
    value_size: int,
    dtype: Any = np.float32,
) -> Tree:
    """Draw P = ``size`` keys and values from N(0, 1), about as large as those of a text.

    From smaller ones, training takes longer.
    """
    P, G, K, Kv = expect_sizes(
        size=size, n_kv_heads=n_kv_heads, key_size=key_size, value_size=value_size
    )
    return {
        "keys": normal(fold_in(key, 0), (P, G, K), dtype=dtype),
        "values": normal(fold_in(key, 1), (P, G, Kv), dtype=dtype),
    }


def forward(params: Tree, x: QKV) -> tuple[QKV, Residuals]:
    """Return x with the keys and values of the prefix in front of its own."""
    expect_qkv(x)
    expect_inputs(params, "keys: P G K, values: P G Kv", x.k, "B S G K", "k")
    expect_shape("values", params["values"], "P G Kv", Kv=x.v.shape[-1])
    y = QKV(x.q, _behind(params["keys"], x.k), _behind(params["values"], x.v))
    return y, Residuals(params["keys"], tuple(part.shape for part in y))


def vjp(residuals: Residuals, g: QKV) -> tuple[Tree, QKV]:
    """Return ``({"keys", "values"}, QKV(d_q, d_k, d_v))`` for the cotangent g of y."""
    expect_residuals(residuals, Residuals)
    keys, (q, k, v) = residuals
    expect_cotangent(g.q, q, keys.dtype)
    expect_cotangent(g.k, k, keys.dtype)
    expect_cotangent(g.v, v, keys.dtype)
    P = len(keys)
    d_params = {"keys": g.k[:, :P].sum(axis=0), "values": g.v[:, :P].sum(axis=0)}
    return d_params, QKV(g.q, g.k[:, P:], g.v[:, P:])


def jvp(residuals: Residuals, t: tuple[Tree, QKV]) -> QKV:
    """Return t_y for the tangents ``({"keys", "values"}, QKV(t_q, t_k, t_v))``."""
    expect_residuals(residuals, Residuals)
    keys, (q, k, v) = residuals
    P, S = len(keys), k[1] - len(keys)
    of_params = {"keys": keys.shape, "values": (P, *v[2:])}
    of_heads = QKV._make([q, (k[0], S, *k[2:]), (v[0], S, *v[2:])])
    t_params, (t_q, t_k, t_v) = expect_tangent(t, (of_params, of_heads), keys.dtype)
    return QKV(t_q, _behind(t_params["keys"], t_k), _behind(t_params["values"], t_v))


def _behind(front: Array, own: Array) -> Array:
    """Return the same rows (P, G, K) in front of those of each text, (B, P + S, G, K)."""
    return np.concatenate([np.broadcast_to(front, (len(own), *front.shape)), own], axis=1)
