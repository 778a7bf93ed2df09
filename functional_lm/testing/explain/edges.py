"""Signatures of a mistake at one edge of the reference: what its backward does or reads there.

With E the error of the Jacobian, and ``down`` and ``up`` as in `network`, a factor wᵢ at entry i of
an edge gives E = down·diag(w − 1)·up. That is linear in w, which is solved for at every edge: for
all wrong leaves together if one place explains them, else for one. Then it gets a name.
"""

import itertools
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from ...contract import Array
from .evidence import Cause, Evidence, close, fit
from .factors import FUNCTIONS, fitting
from .network import Edge, Jacobians, jacobians_of

__all__ = [
    "MOST",
    "around",
    "errors",
    "factor_at_an_edge",
    "least_squares",
    "solve",
    "together",
    "two_terms",
]

MOST = 256
"""Entries of an edge that are solved for together."""


class Place(NamedTuple):
    """The edges of one piece of code, and what a factor at each of their entries does."""

    edges: list[Edge]
    entries: Array
    gram: Array  # ⟨effect of entry i, effect of entry j⟩
    factors: Array  # that fit E best
    known: Array  # which of them have one value


def factor_at_an_edge(evidence: Evidence) -> Cause | None:
    """Some cotangent inside is masked, or multiplied by an array that has a name or divided."""
    here = jacobians_of(evidence.examination)
    if here.network is None:
        return None
    for paths in together(evidence, here):
        error = errors(here, paths)
        left_out = _left_out(here, paths, error)
        if left_out is not None:
            return left_out
        places = list(_solved(here, paths, error))
        for signature in (_mask, _named, _powers):
            found = [cause for place in places if (cause := signature(evidence, place, paths))]
            if found:
                return min(found)[1]
    return None


def _left_out(here: Jacobians, paths: list[str], error: Array) -> Cause | None:
    """The path through one edge is left out."""
    assert here.network is not None
    for edge in reversed(here.network.edges):
        down, up = around(here, paths, np.r_[edge.place])
        if edge.step.name != "output" and close(down @ up, -error, 1e-8):
            return "missing term", f"the term through {edge} is left out"
    return None


def together(evidence: Evidence, here: Jacobians) -> list[list[str]]:
    """Return the groups of leaves that one mistake is looked for in: all wrong ones, then one."""
    leaves = evidence.examination.report.leaves
    wrong = [path for path in here.paths if not leaves[path].within("float64")]
    fits = [path for path in wrong if here.exact[path].shape == here.ours[path].shape]
    return [fits, [evidence.path]] if len(fits) > 1 else [[evidence.path]]


def errors(here: Jacobians, paths: list[str]) -> Array:
    """Return the errors of the Jacobians of some leaves, side by side."""
    return np.concatenate([here.ours[path] - here.exact[path] for path in paths], axis=1)


def _solved(here: Jacobians, paths: list[str], error: Array) -> Iterator[Place]:
    """Yield the places where factors explain the error."""
    assert here.network is not None
    codes: dict[Any, list[Edge]] = {}
    for edge in here.network.edges:
        codes.setdefault(edge.code, []).append(edge)
    singles = [[edge] for edges in codes.values() if len(edges) > 1 for edge in edges]
    for edges in [*codes.values(), *singles]:
        entries = np.concatenate([np.r_[edge.place] for edge in edges])
        if not entries.size or entries.size > MOST:
            continue
        down, up = around(here, paths, entries)
        place = solve(edges, entries, down, up, error)
        if place is not None:
            yield place


def solve(edges: list[Edge], entries: Array, down: Array, up: Array, error: Array) -> Place | None:
    """Return the factors w for which down·diag(w − 1)·up is the error, if there are some."""
    gram = (down.T @ down) * (up @ up.T)
    along = np.einsum("gk,gl,kl->k", down, error, up, optimize=True)
    excess, known = least_squares(gram, along)
    if not close(down * excess @ up, error, 1e-7):
        return None
    return Place(edges, entries, gram, 1 + excess, known)


def least_squares(gram: Array, along: Array) -> tuple[Array, Array]:
    """Return the shortest solution of gram·z = along, and which entries all solutions share."""
    sizes, vectors = np.linalg.eigh(gram)
    kept = sizes > 1e-12 * max(sizes.max(initial=0.0), 1e-300)
    basis = vectors[:, kept]
    return basis @ ((basis.T @ along) / sizes[kept]), (basis**2).sum(axis=1) > 1 - 1e-6


def around(here: Jacobians, paths: list[str], entries: Array) -> tuple[Array, Array]:
    """Return the cotangents of some entries of edges, and the derivatives of these by leaves."""
    ups = [here.up(path)[entries] for path in paths]
    return here.down[:, entries], np.concatenate(ups, axis=1)


def _mask(evidence: Evidence, place: Place, paths: list[str]) -> tuple[Any, Cause] | None:
    """The factors are zeros and ones."""
    factors, known = place.factors, place.known
    zero, one = (np.abs(factors - value) < 1e-6 for value in (0.0, 1.0))
    if not ((zero | one)[known].all() and zero[known].any() and one[known].any()):
        return None
    if np.count_nonzero(known) < 4:
        return None
    edge = place.edges[-1]
    shape = edge.shape if len(place.edges) == 1 else (len(place.edges), *edge.shape)
    where = f"the cotangent of {edge}"
    if _keeps_the_last(evidence, one.reshape(shape), known.reshape(shape)):
        return (0, -edge.place.start), (
            "scatter",
            f"of entries of {where} that share an index only the last is left, where all must add; "
            "use np.add.at or a sum by segment",
        )
    zeros, ones = (np.where(known, a, True).reshape(shape) for a in (zero, one))
    for axis, size in enumerate(shape):
        others = tuple(a for a in range(len(shape)) if a != axis)
        none, all_ = zeros.all(others), ones.all(others)
        if size > 1 and (none ^ all_).all():
            lost = ", ".join(map(str, np.flatnonzero(none)[:8]))
            text = f"{where} is left out at index {lost} of axis {axis} (size {size})"
            return (0, -edge.place.start), ("slice kept", text)
    text = f"{where} is masked: {np.count_nonzero(zero & known)} entries of it are zero"
    return (1, -edge.place.start), ("extra mask", text + ", and forward masks nothing there")


def _keeps_the_last(evidence: Evidence, kept: Array, known: Array) -> bool:
    """Tell whether of the entries that share an id only the last is kept."""
    for ids in evidence.integers:
        whole = ids.reshape(-1)
        _, from_last = np.unique(whole[::-1], return_index=True)
        last = np.zeros(whole.size, bool)
        last[whole.size - 1 - from_last] = True
        for axes in itertools.combinations(range(kept.ndim), ids.ndim):
            if not last.all() and ids.shape == tuple(kept.shape[a] for a in axes):
                shape = [kept.shape[a] if a in axes else 1 for a in range(kept.ndim)]
                if ((last.reshape(shape) == kept) | ~known).all():
                    return True
    return False


def _named(evidence: Evidence, place: Place, paths: list[str]) -> tuple[Any, Cause] | None:
    """The factors are those of an array with a name, or their inverses."""
    if len(place.edges) > 1:
        return None
    (edge,) = place.edges
    here = jacobians_of(evidence.examination)
    for rank, (name, values) in enumerate(_arrays(evidence, here, edge.shape, 0)):
        for inverse in (True, False):
            with np.errstate(all="ignore"):
                factors = (1 / values if inverse else values).reshape(-1)
            if not np.isfinite(factors).all():
                continue
            known, times = place.known, 1.0
            varied = np.ptp(factors) > 1e-3 * np.abs(factors).max()
            if known.all() and varied and np.ptp(place.factors) > 1e-3:
                times = fit(place.factors, factors) or 1.0
            excess = times * factors - 1
            if not close(excess[known], place.factors[known] - 1, 1e-5):
                off = excess - (place.factors - 1)
                if known.all() or off @ place.gram @ off > 1e-9 * (excess @ place.gram @ excess):
                    continue
            if _holds(evidence, paths, edge, rank, inverse, times):
                cause = "missing factor" if inverse else "extra factor"
                what = "is left out" if inverse else "is applied once too often"
                if not inverse and _divides(here, values):
                    cause, name, what = "missing factor", f"1/{name}", "is left out"
                if abs(times - 1) > 1e-6:
                    what += f" (and the constant {times:.4g})"
                text = f"the factor {name} {what} at {edge}"
                return (rank, not inverse, -edge.place.start), (cause, text)
    return None


def _powers(evidence: Evidence, place: Place, paths: list[str]) -> tuple[Any, Cause] | None:
    """The factors are the product of powers of two arrays that have names."""
    (edge, *more), here = place.edges, jacobians_of(evidence.examination)
    if more or place.factors.size < 6 or not (place.known.all() and (place.factors > 0).all()):
        return None
    named = _positive(evidence, here, edge, 0)
    logs, target = np.array([*named.values()]).reshape(len(named), -1), np.log(place.factors)
    gram, along = logs @ logs.T, logs @ target
    names = list(named)
    for i, j in itertools.combinations(range(len(names)), 2):
        if gram[i, i] * gram[j, j] - gram[i, j] ** 2 < 1e-6 * gram[i, i] * gram[j, j]:
            continue
        powers = np.linalg.solve(gram[np.ix_([i, j], [i, j])], along[[i, j]])
        whole = np.rint(2 * powers) / 2
        if np.abs(powers - whole).max() > 1e-6 or not whole.all():
            continue
        if close(whole @ logs[[i, j]], target, 1e-6) and len(evidence.comparisons) > 1:
            there = jacobians_of(evidence.examination, 1)
            others = _positive(evidence, there, edge, 1)
            if names[i] not in others or names[j] not in others:
                continue
            exponents = np.array([others[names[i]], others[names[j]]]).reshape(2, -1)
            excess = np.exp(whole @ exponents) - 1
            down, up = around(there, paths, np.r_[edge.place])
            if close(down * excess @ up, errors(there, paths), 1e-6):
                cause, sign = ("extra factor", 1) if (whole > 0).all() else ("missing factor", -1)
                pairs = zip((names[i], names[j]), sign * whole, strict=True)
                called = " · ".join(f"|{name}|^{power:g}" for name, power in pairs)
                text = f"the factor {called} is {'left out' if sign < 0 else 'once too many'}"
                return (i + j, False, -edge.place.start), (cause, f"{text} at {edge}")
    return None


def _positive(evidence: Evidence, here: Jacobians, edge: Edge, draw: int) -> dict[str, Array]:
    """Return the logarithms of the arrays that fit an edge, by name."""
    found: dict[str, Array] = {}
    for name, values in itertools.islice(_arrays(evidence, here, edge.shape, draw), MOST):
        if "{" not in name and (values != 0).all() and np.ptp(np.abs(values)) > 1e-9:
            found.setdefault(name, np.log(np.abs(values)))
    return found


def _divides(here: Jacobians, values: Array) -> bool:
    """Tell whether forward divides by an array."""
    assert here.network is not None
    mine = np.unique(values)
    divisors = [e.place for e in here.network.edges if e.step.name == "div" and e.operand == 1]
    return any(close(np.unique(here.operands[place]), mine, 1e-12) for place in divisors)


def _holds(
    evidence: Evidence, paths: list[str], edge: Edge, rank: int, inverse: bool, times: float
) -> bool:
    """Tell whether a named factor explains the error at the inputs of the second draw as well."""
    if len(evidence.comparisons) < 2:
        return True
    there = jacobians_of(evidence.examination, 1)
    arrays = _arrays(evidence, there, edge.shape, 1)
    _, values = next(itertools.islice(arrays, rank, None))
    down, up = around(there, paths, np.r_[edge.place])
    with np.errstate(all="ignore"):
        excess = times * (1 / values if inverse else values).reshape(-1) - 1
    return close(down * excess @ up, errors(there, paths), 1e-6)


def _arrays(
    evidence: Evidence, here: Jacobians, shape: tuple[int, ...], draw: int
) -> Iterator[tuple[str, Array]]:
    """Yield (name, array) of what may be a factor of an edge; the same names at every draw."""
    assert here.network is not None
    named = [(name, a) for name, a in evidence.names[draw].items() if name != "g"]
    for edge in {edge.source: edge for edge in here.network.edges}.values():
        named.append((str(edge), here.operands[edge.place].reshape(edge.shape)))
    for text, function in FUNCTIONS.items():
        for name, array in named:
            for fitted in dict.fromkeys(fitting(array.shape, shape)):
                with np.errstate(all="ignore"):
                    values = np.broadcast_to(function(array).reshape(fitted), shape)
                yield text.replace("{}", name), values


def two_terms(evidence: Evidence) -> Cause | None:
    """Two terms are wrong at once, each by a factor that may change with the inputs."""
    scales = [_two_scales(evidence, draw) for draw in range(min(2, len(evidence.comparisons)))]
    common = {pair for pair in scales[0] if all(pair in others for others in scales)}
    if not common:
        return None
    here = jacobians_of(evidence.examination)
    assert here.network is not None
    pair = min(common, key=lambda p: (sum(c != 0 for c in scales[0][p]), p))
    edges = [here.network.edges[i] for i in pair]
    named = [
        f"{edge} ({'left out' if not scale else f'{scale:.4g} times what it should be here'})"
        for edge, scale in zip(edges, scales[0][pair], strict=True)
    ]
    cause = "wrong term" if any(scales[0][pair]) else "missing term"
    return cause, f"two terms are wrong: that through {named[0]}, and that through {named[1]}"


def _two_scales(evidence: Evidence, draw: int) -> dict[tuple[int, int], tuple[float, float]]:
    """Return by pair of edges the factors of their terms that explain the error at a draw."""
    here = jacobians_of(evidence.examination, draw)
    if here.network is None:
        return {}
    path, error = evidence.path, errors(here, [evidence.path]).reshape(-1)
    if np.count_nonzero(error) < 5:
        return {}
    effects = [
        (here.down[:, edge.place] @ here.up(path)[edge.place]).reshape(-1)
        for edge in here.network.edges
    ]
    rows = np.stack(effects)
    gram, along, whole = rows @ rows.T, rows @ error, float(error @ error)
    first, second = np.triu_indices(len(rows), 1)
    determinant = gram[first, first] * gram[second, second] - gram[first, second] ** 2
    apart = determinant > 1e-9 * gram[first, first] * gram[second, second]
    first, second, determinant = first[apart], second[apart], determinant[apart]
    a = (gram[second, second] * along[first] - gram[first, second] * along[second]) / determinant
    b = (gram[first, first] * along[second] - gram[first, second] * along[first]) / determinant
    explained = whole - a * along[first] - b * along[second] <= 1e-10 * whole
    found = {}
    for i, j, c, d in zip(*(v[explained] for v in (first, second, a, b)), strict=True):
        if close(c * rows[i] + d * rows[j], error, 1e-7):
            scales = tuple(0.0 if abs(1 + k) < 1e-6 else float(1 + k) for k in (c, d))
            if 1.0 not in np.round(scales, 6):
                found[int(i), int(j)] = scales
    return found  # type: ignore[return-value]
