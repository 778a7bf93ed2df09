"""Attention in tiles: the scores of all queries with all keys never exist together.

The same function as `attention`, exactly, but its memory grows with T + S and not with T·S: flash
attention (Dao et al. 2022, algorithms 1 and 4).

Forward. For one head, a tile is some queries times some keys. The softmax of a row is summed up
tile by tile, relative to the largest score m of the row so far ("online": Milakov and Gimelshein
2018). With A = Q·Kᵀ/√K of the tile and m' = max(m, max A):

    O ← O·exp(m − m') + exp(A − m')·V      l ← l·exp(m − m') + Σ exp(A − m')      m ← m'

and at the end O/l is the output. The sum l is the output for a value of one: V gets a column of
ones, and one product makes both.

VJP. Of the softmax only m and l of each row are kept, and the probabilities P = E/l of a tile are
made again, E = exp(A − m). With cotangent g of O, reading `attention` upwards,

    d_V = Pᵀ·g      d_P = g·Vᵀ      d_A = P·(d_P − D)      D = Σ over keys of d_P·P = Σ of g·O

D is a sum over the entries of a value instead of the keys, as Σₛ Pₛ·(g·Vₛ) = g·Σₛ Pₛ·Vₛ = g·O. The
division by l is that of the rows of g: with g' = g/l and D' = D/l,

    d_V = Eᵀ·g'     d_A = E·(g'·Vᵀ − D')     d_Q = d_A·K/√K     d_K = d_Aᵀ·Q/√K

summed over the tiles, and d_K and d_V also over the query heads that share them. The column of ones
subtracts: (g' | −D')·(V | 1)ᵀ = g'·Vᵀ − D'. One number, m + log l, would do in place of two. But
where scores are far from zero, rounding it would add an error to all of P that the forward did not
make.

A soft cap, ALiBi, a sink and dropout enter as in `attention`. The cap and ALiBi change the scores
of a tile; the sums of a row begin with its sink, m = z and l = 1; and dropout masks E where it
meets V, not in l:

    O ← O·exp(m − m') + (exp(A − m')·μ)·V      μ = mask/(1 − rate)
    d_V = (E·μ)ᵀ·g'     d_A = E·(μ·g'·Vᵀ − D')     d_z = −Σ over rows of exp(z − m)·D'

The vjp draws the mask again. Entry (b, h, t, s) is the same draw whatever the tiles, and the same
as in `attention`.

Tiles that causality or a window hides are skipped. A row that sees no key has zero output and
gradient.

JVP. Σ over keys of P·V is O, so that the mean that softmax subtracts from t_A can wait until the
end, and one pass over the tiles is enough. With t_A = (t_Q·Kᵀ + Q·t_Kᵀ)/√K, behind a cap times
1 − τ²,

    t_O = (Σ (E·t_A·μ)·V + (E·μ)·t_V − O·(exp(z − m)·t_z + Σ E·t_A))/l

Shapes: x is ``QKV(q, k, v)`` with q (B, T, H, K), k (B, S, G, K) and v (B, S, G, Kv);
y (B, T, H, Kv); the sinks z (H,).
"""

import math
from collections.abc import Callable, Iterator
from functools import partial
from itertools import product
from typing import Any, NamedTuple

import numpy as np

from ...contract import (
    Array,
    Key,
    Tree,
    expect_cotangent,
    expect_int,
    expect_residuals,
    expect_tangent,
)
from ...heads import (
    FULL,
    QKV,
    Visibility,
    alibi_bias,
    alibi_slopes,
    distances,
    dropout_multiplier,
    expect_attention,
    init_sinks,
    visible,
)
from ...numerics import row_dot
from ...speed.threads import one_thread, run

__all__ = ["Residuals", "forward", "init", "jvp", "vjp", "weights"]

SHARES_MEMORY = "y is kept in the residuals: its rows say what vjp has to subtract"


class Settings(NamedTuple):
    """What changes the scores and weights of tiles, and the size of these."""

    visibility: Visibility  # with a mask (B, H, T, S), a view
    soft_cap: float | None
    slopes: tuple[float, ...] | None  # of ALiBi, one for each head
    dropout: float
    key: Key | None
    block_q: int
    block_k: int


class Residuals(NamedTuple):
    """What `vjp` needs: nothing of the size of the scores."""

    q: Array  # (B, T, H, K), over √K
    k: Array  # (B, S, G, K)
    v: Array  # (B, S, G, Kv+1), then 1
    top: Array  # (B, T, H, 1), the largest score m of the row
    total: Array  # (B, T, H, 1), the sum l of exp(scores − m)
    y: Array  # (B, T, H, Kv)
    sinks: Array | None  # (H,)
    settings: Settings


_LOWEST = -1e30  # below every score, and finite, so that it can be subtracted


init = init_sinks


def forward(
    params: Tree,
    x: QKV,
    *,
    visibility: Visibility = FULL,
    soft_cap: float | None = None,
    alibi: bool = False,
    dropout: float = 0.0,
    key: Key | None = None,
    block_q: int = 128,
    block_k: int = 512,
) -> tuple[Array, Residuals]:
    """Return each query's mean of the values, weighted by its match with the keys; (B, T, H, Kv).

    Args:
        params: ``{}``, or ``{"sinks"}``: a score for each head that takes part in its softmax.
        x: queries, keys and values.
        visibility: which keys a query may attend to. Default: all.
        soft_cap: the bound that scores approach smoothly, on both sides. Default: none.
        alibi: lower the scores of keys in proportion to their distance.
        dropout: the share of the weights that is dropped.
        key: randomness of dropout. No key: no dropout.
        block_q: the queries of a tile.
        block_k: the keys of a tile. The defaults are fastest in NumPy: a tile fits into the L2
            cache, and computing it takes much longer than a call.

    Raises:
        TypeError: for a mask that is not boolean.
        ValueError: for an H that is not a multiple of G, or a mask that does not broadcast.
    """
    B, T, S, H, G, visibility = expect_attention(params, x, visibility, soft_cap, alibi, dropout)
    if visibility.mask is not None:
        visibility = visibility._replace(mask=np.broadcast_to(visibility.mask, (B, H, T, S)))
    block_q, block_k = expect_int("block_q", block_q), expect_int("block_k", block_k)
    slopes = tuple(alibi_slopes(H).tolist()) if alibi else None
    settings = Settings(visibility, soft_cap, slopes, dropout, key, block_q, block_k)

    q, k, v = x.q * (1 / math.sqrt(x.q.shape[-1])), x.k, _with_column(x.v, 1.0)
    y = np.empty((B, T, H, x.v.shape[-1]), q.dtype)
    top, total = np.full_like(y[..., :1], _LOWEST), np.empty_like(y[..., :1])
    sinks = params.get("sinks")
    if sinks is not None:
        top[...] = sinks[:, None]

    def attend(b: int, h: int) -> None:
        group = h * G // H
        for rows, tiles in _tiles(T, S, b, settings):
            q_rows, m = q[b, rows, h], top[b, rows, h]  # (rows, 1), of the tiles so far
            out = np.zeros((len(m), v.shape[-1]), q.dtype)  # the last column is the sum l
            out[:, -1] = 0.0 if sinks is None else 1.0  # exp(z − m)
            multiplier = _multiplier((b, h, rows), q.shape, S, settings, q.dtype)
            for columns in tiles:
                tile = b, h, rows, columns
                scores, _ = _scores(q_rows, k[b, columns, group], tile, settings)
                larger = np.maximum(m, scores.max(axis=-1, keepdims=True))
                np.exp(np.subtract(scores, larger, out=scores), out=scores)
                out *= np.exp(m - larger)
                if multiplier is None:
                    out += scores @ v[b, columns, group]
                else:
                    out[:, -1] += scores.sum(axis=-1)
                    out[:, :-1] += (scores * multiplier[:, columns]) @ v[b, columns, group, :-1]
                m = larger
            if not out[:, -1].all():
                np.copyto(out[:, -1:], 1.0, where=_sees_nothing(visibility, (b, h, rows), S))
            y[b, rows, h] = out[:, :-1] / out[:, -1:]
            top[b, rows, h], total[b, rows, h] = m, out[:, -1:]

    _side_by_side(attend, B, H)
    return y, Residuals(q, k, v, top, total, y, sinks, settings)


def vjp(residuals: Residuals, g: Array) -> tuple[Tree, QKV]:
    """Return ``({"sinks"?}, QKV(d_q, d_k, d_v))`` for the cotangent g (B, T, H, Kv)."""
    expect_residuals(residuals, Residuals)
    q, k, v, top, total, y, sinks, settings = residuals
    (B, T, H, K), (_, S, G, _) = q.shape, k.shape
    expect_cotangent(g, y.shape, y.dtype)
    g = _with_column(g, -row_dot(g, y)) / total  # (B, T, H, Kv+1), g' and −D'
    d_q = np.empty(q.shape, y.dtype)
    d_k = np.zeros(k.shape, y.dtype)
    d_v = np.zeros((B, S, G, y.shape[-1]), y.dtype)

    def attend_vjp(b: int, group: int) -> None:
        heads = range(group * H // G, (group + 1) * H // G)
        for h, (rows, tiles) in product(heads, _tiles(T, S, b, settings)):
            q_rows, g_rows = q[b, rows, h], g[b, rows, h]
            d_q_rows = np.zeros_like(q_rows)
            multiplier = _multiplier((b, h, rows), q.shape, S, settings, q.dtype)
            for columns in tiles:
                k_columns, v_columns = k[b, columns, group], v[b, columns, group]
                exps, tanh = _scores(q_rows, k_columns, (b, h, rows, columns), settings)
                np.exp(np.subtract(exps, top[b, rows, h], out=exps), out=exps)  # (rows, columns)
                if multiplier is None:
                    d_v[b, columns, group] += exps.T @ g_rows[:, :-1]
                    d_scores = g_rows @ v_columns.T  # (rows, columns), (d_probs − D)/l
                else:
                    kept = multiplier[:, columns]
                    d_v[b, columns, group] += (exps * kept).T @ g_rows[:, :-1]
                    d_scores = (g_rows[:, :-1] @ v_columns[:, :-1].T) * kept + g_rows[:, -1:]
                d_scores *= exps
                if tanh is not None:
                    d_scores *= 1 - tanh * tanh
                d_q_rows += d_scores @ k_columns
                d_k[b, columns, group] += d_scores.T @ q_rows  # q is over √K
            d_q[b, rows, h] = d_q_rows

    _side_by_side(attend_vjp, B, G)
    d_params = {}
    if sinks is not None:
        d_params["sinks"] = (np.exp(sinks[:, None] - top) * g[..., -1:]).sum(axis=(0, 1, 3))
    return d_params, QKV(d_q * (1 / math.sqrt(K)), d_k, d_v)


def jvp(residuals: Residuals, t: tuple[Tree, QKV]) -> Array:
    """Return t_y (B, T, H, Kv) for the tangents ``({"sinks"?}, QKV(t_q, t_k, t_v))``."""
    expect_residuals(residuals, Residuals)
    q, k, v, top, total, y, sinks, settings = residuals
    (B, T, H, K), (_, S, G, _) = q.shape, k.shape
    of_sinks = {} if sinks is None else {"sinks": sinks.shape}
    of_heads = QKV._make([q.shape, k.shape, (B, S, G, y.shape[-1])])
    t_params, (t_q, t_k, t_v) = expect_tangent(t, (of_sinks, of_heads), y.dtype)
    t_q, t_y = t_q * (1 / math.sqrt(K)), np.empty_like(y)

    def attend_jvp(b: int, h: int) -> None:
        group = h * G // H
        for rows, tiles in _tiles(T, S, b, settings):
            q_rows, t_q_rows = q[b, rows, h], t_q[b, rows, h]
            out = np.zeros((len(q_rows), v.shape[-1]), y.dtype)  # the last column is Σ E·t_A
            if sinks is not None:
                out[:, -1:] = np.exp(sinks[h] - top[b, rows, h]) * t_params["sinks"][h]
            multiplier = _multiplier((b, h, rows), q.shape, S, settings, q.dtype)
            for columns in tiles:
                k_columns, t_k_columns = k[b, columns, group], t_k[b, columns, group]
                exps, tanh = _scores(q_rows, k_columns, (b, h, rows, columns), settings)
                np.exp(np.subtract(exps, top[b, rows, h], out=exps), out=exps)  # (rows, columns)
                t_scores = t_q_rows @ k_columns.T + q_rows @ t_k_columns.T
                if tanh is not None:
                    t_scores *= 1 - tanh * tanh
                t_exps = exps * t_scores
                out[:, -1] += t_exps.sum(axis=-1)
                if multiplier is not None:
                    exps *= multiplier[:, columns]
                    t_exps *= multiplier[:, columns]
                out[:, :-1] += t_exps @ v[b, columns, group, :-1] + exps @ t_v[b, columns, group]
            out[:, :-1] -= y[b, rows, h] * out[:, -1:]
            t_y[b, rows, h] = out[:, :-1] / total[b, rows, h]

    _side_by_side(attend_jvp, B, H)
    return t_y


def weights(residuals: Residuals) -> Array:
    """Return the attention weights P (B, H, T, S) of a forward, for statistics and pictures."""
    q, k, settings = residuals.q, residuals.k, residuals.settings
    (B, T, H, _), (_, S, G, _) = q.shape, k.shape
    probs = np.empty((B, H, T, S), q.dtype)
    for b, h in np.ndindex(B, H):
        tile = b, h, slice(0, T), slice(0, S)
        probs[b, h], _ = _scores(q[b, :, h], k[b, :, h * G // H], tile, settings)
    return np.exp(probs - residuals.top.swapaxes(1, 2)) / residuals.total.swapaxes(1, 2)


def _side_by_side(one: Callable[[int, int], None], n_examples: int, n_heads: int) -> None:
    """Call ``one(b, h)`` for each head of each example, in threads.

    The products of tiles are too small for the threads of BLAS.
    """
    with one_thread():
        run([partial(one, b, h) for b, h in np.ndindex(n_examples, n_heads)])


def _tiles(T: int, S: int, b: int, settings: Settings) -> Iterator[tuple[slice, list[slice]]]:
    """Yield some queries, and the keys in tiles that at least one of them sees."""
    causal, _, window, _, first = settings.visibility
    offset = _offset(settings.visibility, b)
    for start in range(0, T, settings.block_q):
        rows = slice(start, min(start + settings.block_q, T))
        stop = min(rows.stop + offset, S) if causal else S
        seen = 0 if window is None else max(start + offset - window + 1, 0)
        if first is not None:
            seen = max(seen, int(first[b, rows].min()))
        columns = range(seen, stop, settings.block_k)
        yield rows, [slice(column, min(column + settings.block_k, stop)) for column in columns]


def _offset(visibility: Visibility, b: int) -> int:
    """Return the offset of one example."""
    offset = visibility.offset
    return int(offset[b]) if isinstance(offset, np.ndarray) else offset


def _scores(
    q: Array, k: Array, tile: tuple[int, int, slice, slice], settings: Settings
) -> tuple[Array, Array | None]:
    """Return the scores of a tile, −∞ for hidden keys, and τ if there is a soft cap."""
    b, h, rows, columns = tile
    scores, tanh = q @ k.T, None
    if settings.soft_cap is not None:
        tanh = np.tanh(scores / settings.soft_cap)
        scores = tanh * settings.soft_cap
    if settings.slopes is not None:
        offset = _offset(settings.visibility, b) + rows.start - columns.start
        distance = distances(len(q), len(k), offset)
        scores += alibi_bias(settings.slopes[h], distance, scores.dtype)
    _hide(scores, settings.visibility, tile)
    return scores, tanh


def _multiplier(
    rows: tuple[int, int, slice], shape: tuple[int, ...], S: int, settings: Settings, dtype: Any
) -> Array | None:
    """Return what dropout multiplies the weights of some rows of one head by, (rows, S)."""
    (b, h, queries), (_, T, H, _) = rows, shape
    start = ((b * H + h) * T + queries.start) * S
    n_queries = queries.stop - queries.start
    return dropout_multiplier(settings.key, settings.dropout, (n_queries, S), dtype, start)


def _hide(scores: Array, visibility: Visibility, tile: tuple[int, int, slice, slice]) -> None:
    """Set the scores of the keys that a query may not see to −∞, in place."""
    causal, _, window, mask, first = visibility
    b, _, rows, columns = tile
    offset = _offset(visibility, b) + rows.start - columns.start
    sees_last = offset >= len(scores[0]) - 1  # as the first query does
    sees_first = window is None or offset + len(scores) <= window
    if causal and not (sees_last and sees_first):
        n_rows, n_columns = scores.shape
        hidden = ~np.asarray(visible(n_rows, n_columns, Visibility(True, offset, window)))
        np.copyto(scores, -math.inf, where=hidden)
    if first is not None:
        before = np.arange(columns.start, columns.stop) < first[b, rows, None]
        np.copyto(scores, -math.inf, where=before)
    if mask is not None:
        np.copyto(scores, -math.inf, where=~mask[tile])


def _sees_nothing(visibility: Visibility, rows: tuple[int, int, slice], S: int) -> Array:
    """Return (rows, 1) booleans, true for a query that may see no key."""
    causal, _, window, mask, first = visibility
    b, _, queries = rows
    own = None if mask is None else mask[rows]
    if first is not None:
        since = np.arange(S) >= first[b, queries, None]
        own = since if own is None else own & since
    n_queries, offset = queries.stop - queries.start, _offset(visibility, b) + queries.start
    allowed = visible(n_queries, S, Visibility(causal, offset, window, own))
    if allowed is None:
        allowed = np.ones((1, S), bool)
    return np.logical_not(allowed.any(axis=-1, keepdims=True))


def _with_column(x: Array, column: Any) -> Array:
    """Return x with one more column, of a number or of (B, T, H, 1)."""
    out = np.empty((*x.shape[:-1], x.shape[-1] + 1), x.dtype)
    out[..., :-1], out[..., -1:] = x, column
    return out
