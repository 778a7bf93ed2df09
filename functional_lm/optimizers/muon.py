"""Muon: momentum orthogonalised by Newton-Schulz (Jordan et al. 2024), with NorMuon's scaling.

Every leaf is a matrix (d_in, d_out), several side by side, or a stack of either. For each matrix,
with its gradient G, step t = 1, 2, ..., learning rate η, and G = U·S·Vᵀ meaning its SVD:

    M ← β·M + (1 − β)·G
    X = M/(1 − βᵗ)           or, with Nesterov's momentum, β·M/(1 − βᵗ⁺¹) + (1 − β)·G/(1 − βᵗ)
    O = newton_schulz(X)     about U·Vᵀ of X
    update = −η·(√max(1, d_out/d_in)·O + λ·p)

NorMuon (Li et al. 2025, algorithm 1) gives all neurons, the columns of p, a share in the update:

    v ← β₂·v + (1 − β₂)·mean of O² over d_in        O ← O/(√v + ε), scaled to the norm it had

Its bias correction of v would cancel in the norm.
"""

import functools
import math
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from .. import pytree
from ..contract import Array, Tree, expect_number
from ..speed.runtime import cores
from ..speed.threads import one_thread, run
from .schedules import Schedule, as_schedule
from .transformation import GradientTransformation, expect_gradient

__all__ = ["MuonState", "muon", "newton_schulz"]

A, B, C = 3.4445, -4.7750, 2.0315
STEPS = 5

TOGETHER = 2**18
"""Most entries of the matrices that a task computes at once: more of them would leave the cache,
and with fewer, threads would often wait for each other between short products."""


class MuonState(NamedTuple):
    """The state of `muon`."""

    count: np.int64  # type: ignore[assignment]  # updates made; optax has this name too
    mu: Tree  # momentum, like params
    nu: Tree  # (..., d_out) mean squares of the neurons' updates; () without NorMuon


def muon(
    learning_rate: float | Schedule,
    beta: float = 0.95,
    eps: float = 1e-8,
    weight_decay: float = 0.0,
    nesterov: bool = True,
    *,
    columns: Mapping[str, tuple[int, ...]] | None = None,
    row_beta: float | None = None,
) -> GradientTransformation:
    """Return Muon for matrices alone; see `partition` for the other leaves.

    The first five arguments and their defaults are those of ``optax.contrib.muon``.

    Args:
        learning_rate: η, or a schedule that maps the number of updates made to it.
        beta: β, the decay of the momentum.
        eps: ε, added to norms.
        weight_decay: λ; the decay of a step is η·λ·p.
        nesterov: look ahead along the momentum.
        columns: by path, the widths of the matrices that lie side by side in a leaf, such as
            ``{"blocks.0.mixer.qkv.weight": (128, 128, 128)}``. Others are one matrix.
        row_beta: β₂ of NorMuon, 0.95 in the paper. None: plain Muon.

    Raises:
        ValueError: for β or β₂ outside [0, 1), a negative ε or λ; from ``init``, for a leaf with
            fewer than two axes, or widths that do not add up to its columns.
    """
    schedule = as_schedule(learning_rate)
    below_one = math.nextafter(1.0, 0.0)
    beta = expect_number("beta", beta, low=0.0, high=below_one)
    eps = expect_number("eps", eps, low=0.0)
    weight_decay = expect_number("weight_decay", weight_decay, low=0.0)
    if row_beta is not None:
        row_beta = expect_number("row_beta", row_beta, low=0.0, high=below_one)

    def init(params: Tree) -> MuonState:
        for path, leaf in pytree.leaves_with_path(params):
            widths = (columns or {}).get(path, leaf.shape[-1:])
            if leaf.ndim < 2 or sum(widths) != leaf.shape[-1]:
                raise ValueError(
                    f"muon needs matrices whose columns add up: {path} has the shape {leaf.shape} "
                    f"and the columns {widths}; give it to another optimizer with partition"
                )
        nu = () if row_beta is None else pytree.map(lambda p: np.zeros_like(p[..., 0, :]), params)
        return MuonState(np.int64(0), pytree.zeros_like(params), nu)

    def update(
        grads: Tree, state: MuonState, params: Tree, norm: float | None = None
    ) -> tuple[Tree, MuonState]:
        expect_gradient(grads, params)
        count = int(state.count) + 1
        rate = float(schedule(count - 1))
        # X of the docstring is M + ahead·(1 − β)·G over a number, by which ε is multiplied instead.
        ahead, over = 0.0, 1 - beta**count
        if nesterov and beta:
            later = (1 - beta ** (count + 1)) / beta
            ahead, over = later / over, later

        def several(matrices: list[tuple[Array, ...]]) -> None:
            x = np.empty((len(matrices), *sorted(matrices[0][0].shape)), matrices[0][0].dtype)
            for scratch, (_, g, m, _, mu, *_) in _beside(x, matrices):
                np.multiply(g, 1 - beta, out=scratch)
                np.multiply(m, beta, out=mu)
                mu += scratch
                scratch *= ahead
                scratch += mu
            x = newton_schulz(x, eps * over)
            for o, (p, _, _, update, _, *rows) in _beside(x, matrices):
                scale = -rate * math.sqrt(max(1.0, p.shape[1] / p.shape[0]))
                if row_beta is None:
                    np.multiply(o, scale, out=update)
                else:
                    v, nu = rows
                    squares = np.einsum("ij,ij->j", o, o)
                    np.add(v * row_beta, squares * ((1 - row_beta) / len(o)), out=nu)
                    weights = 1 / (np.sqrt(nu) + eps)
                    scale *= math.sqrt(squares.sum())
                    scale /= math.sqrt(squares @ np.square(weights)) + eps
                    np.multiply(o, weights * scale, out=update)
                if weight_decay:
                    update -= p * (rate * weight_decay)

        updates, mu = (pytree.map(np.empty_like, params) for _ in range(2))
        nu = pytree.map(np.empty_like, state.nu)
        trees = [
            params,
            grads,
            state.mu,
            updates,
            mu,
            *([] if row_beta is None else [state.nu, nu]),
        ]
        alike: dict[Any, list[tuple[Array, ...]]] = {}
        leaves = zip(*map(pytree.leaves, trees), strict=True)
        for (path, _), of_leaf in zip(pytree.leaves_with_path(params), leaves, strict=True):
            for piece in _matrices(of_leaf[0].shape, (columns or {}).get(path)):
                whole = [leaf[piece] for leaf in of_leaf[:5]]
                neurons = [leaf[(*piece[:-2], piece[-1])] for leaf in of_leaf[5:]]
                alike.setdefault(tuple(sorted(whole[0].shape)), []).append((*whole, *neurons))
        tasks = [
            functools.partial(several, matrices[start : start + count])
            for (m, n), matrices in sorted(alike.items(), reverse=True)
            for count in [max(1, min(TOGETHER // (m * n), math.ceil(len(matrices) / cores())))]
            for start in range(0, len(matrices), count)
        ]
        with one_thread():
            run(tasks)
        return updates, MuonState(np.int64(count), mu, nu)

    return GradientTransformation(init, update)


def newton_schulz(x: Array, eps: float = 1e-8) -> Array:
    """Return nearly the orthogonal matrix nearest to each x (..., m, n), U·Vᵀ of its SVD U·S·Vᵀ.

    The singular vectors are exact; the singular values lie between 0.68 and 1.13 unless those of x
    are tiny. With X = x/‖x‖, or its transpose if x has more columns than rows, five times:

        A = Xᵀ·X        X ← X·(a·I + b·A + c·A²)

    Completing the square, for Z = c^¼·X, leaves only products and additions to diagonals:

        G = Zᵀ·Z        P = (G + b/(2√c)·I)² + (a − b²/(4c))·I        Z ← Z·P

    If Z is long, the next G = P·G·P is cheaper as G·P², as all of these commute, and Z is
    multiplied once, by the product of all P.
    """
    norm = np.sqrt(np.einsum("...ij,...ij->...", x, x))[..., None, None]
    z = x * (C**0.25 / (norm + eps))
    wide = x.shape[-2] < x.shape[-1]
    z = z.mT if wide else z
    if z.shape[-2] > 1.7 * z.shape[-1]:
        gram = z.mT @ z
        product = p = _factor(gram)
        for _ in range(STEPS - 1):
            gram = _symmetric(gram, _symmetric(p, p))
            p = _factor(gram)
            product = _symmetric(product, p)
        z = z @ (product * C**-0.25)
    else:
        for _ in range(STEPS):
            z = z @ _factor(_symmetric(z.mT, z))
        z *= C**-0.25
    return z.mT if wide else z


def _factor(gram: Array) -> Array:
    """Return P of G."""
    shifted = gram.copy()
    np.einsum("...ii->...i", shifted)[...] += B / (2 * C**0.5)
    p = _symmetric(shifted, shifted)
    np.einsum("...ii->...i", p)[...] += A - B * B / (4 * C)
    return p


def _symmetric(a: Array, b: Array) -> Array:
    """Return a·b if that is symmetric, computing the blocks on the diagonal and to their right."""
    n = b.shape[-1]
    product = np.empty((*b.shape[:-2], n, n), b.dtype)
    size = 48 if n >= 96 else n
    for start in range(0, n, size):
        own, later = slice(start, start + size), slice(start + size, None)
        np.matmul(a[..., own, :], b[..., start:], out=product[..., own, start:])
        if later.start < n:
            product[..., later, own] = product[..., own, later].mT
    return product


def _beside(x: Array, matrices: list[tuple[Array, ...]]) -> Iterator[tuple[Array, Any]]:
    """Yield each matrix of a stack, transposed if those beside it are tall, with those."""
    for one, others in zip(x, matrices, strict=True):
        yield one if one.shape == others[0].shape else one.T, others


def _matrices(shape: tuple[int, ...], widths: tuple[int, ...] | None) -> Iterator[Any]:
    """Yield the index of each matrix in a leaf."""
    stops = np.cumsum(widths or shape[-1:]).tolist()
    for stack in np.ndindex(shape[:-2]):
        for start, stop in zip([0, *stops], stops, strict=False):
            yield (*stack, slice(None), slice(start, stop))
