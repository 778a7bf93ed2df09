"""Signatures of a mistake at one edge of the reference: what its backward does or reads there.

With E the error of the Jacobian, and ``down`` and ``up`` as in `network`, a factor wᵢ at entry i of
an edge gives E = down·diag(w − 1)·up. That is linear in w, which is solved for at every edge: for
all wrong leaves together if one place explains them, else for one. Then it gets a name.
"""

import itertools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

from ...contract import Array
from ..oracle import JaxOracle
from .evidence import Cause, Evidence, close
from .factors import FUNCTIONS, fitting
from .jacobians import Jacobians, jacobians_of
from .network import CHUNK, Edge
from .terms import text_of

__all__ = [
    "factor_at_an_edge",
    "keyword_elsewhere",
    "mapped_otherwise",
    "not_summed",
    "other_entries_read",
    "read_elsewhere",
    "selected_otherwise",
    "two_terms",
]

NEARLY = 1e-3
"""What a trial may leave of an error: constants such as an eps may differ a little."""

MOST_TRIED = 6_000_000
"""Entries of all edges together, over all trials of what is read."""

MOST_SOLVED = 3_000_000
"""Entries of a matrix of effects."""

MOST = 256
"""Entries of an edge that are solved for together."""

LINEAR = {"add", "sub", "neg", "reduce_sum", "broadcast_in_dim", "reshape", "transpose", "squeeze"}
LINEAR |= {"concatenate", "slice", "select_n", "stack", "copy", "convert_element_type", "pad"}
LINEAR |= {"output", "gather", "cumsum", "rev", "expand_dims", "add_any", "while", "cond", "scan"}
"""Operations whose derivative does not depend on their floating operands, or is not taken apart."""


SELECTING = {"reduce_max", "reduce_min", "select_n", "max", "min", "clamp"}

SPREADING = {"reduce_sum", "broadcast_in_dim", "gather", "slice", "rev", "concatenate", "pad"}
"""In their backward each entry of the operand reads one entry of g, or each of g is read once."""

MAPS = {*SPREADING, "cumsum", "transpose", "reshape", "dot_general"}


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
    for paths in _together(evidence, here):
        error = _errors(here, paths)
        places = list(_solved(here, paths, error))
        for signature in (_mask, _named):
            found = [cause for place in places if (cause := signature(evidence, place, paths))]
            if found:
                return min(found)[1]
    return None


def _together(evidence: Evidence, here: Jacobians) -> list[list[str]]:
    """Return the groups of leaves that one mistake is looked for in: all wrong ones, then one."""
    leaves = evidence.examination.report.leaves
    wrong = [path for path in here.paths if not leaves[path].within("float64")]
    fits = [path for path in wrong if here.exact[path].shape == here.ours[path].shape]
    return [fits, [evidence.path]] if len(fits) > 1 else [[evidence.path]]


def _errors(here: Jacobians, paths: list[str]) -> Array:
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
        down, up = _around(here, paths, entries)
        place = _solve(edges, entries, down, up, error)
        if place is not None:
            yield place


def _solve(edges: list[Edge], entries: Array, down: Array, up: Array, error: Array) -> Place | None:
    """Return the factors w for which down·diag(w − 1)·up is the error, if there are some."""
    gram = (down.T @ down) * (up @ up.T)
    along = np.einsum("gk,gl,kl->k", down, error, up, optimize=True)
    excess, known = _least_squares(gram, along)
    if not close(down * excess @ up, error, 1e-7):
        return None
    return Place(edges, entries, gram, 1 + excess, known)


def _least_squares(gram: Array, along: Array) -> tuple[Array, Array]:
    """Return the shortest solution of gram·z = along, and which entries all solutions share."""
    sizes, vectors = np.linalg.eigh(gram)
    kept = sizes > 1e-12 * max(sizes.max(initial=0.0), 1e-300)
    basis = vectors[:, kept]
    return basis @ ((basis.T @ along) / sizes[kept]), (basis**2).sum(axis=1) > 1 - 1e-6


def _around(here: Jacobians, paths: list[str], entries: Array) -> tuple[Array, Array]:
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
    zeros, ones = (np.where(known, a, True).reshape(shape) for a in (zero, one))
    for axis, size in enumerate(shape):
        others = tuple(a for a in range(len(shape)) if a != axis)
        none, all_ = zeros.all(others), ones.all(others)
        if size > 1 and (none ^ all_).all():
            if _repeats(evidence, np.flatnonzero(none), size):
                return (0, -edge.place.start), (
                    "scatter",
                    f"of entries of {where} that share an index only the last is left: they must "
                    "add; use np.add.at or a sum by segment",
                )
            lost = ", ".join(map(str, np.flatnonzero(none)[:8]))
            text = f"{where} is left out at index {lost} of axis {axis} (size {size})"
            return (0, -edge.place.start), ("slice kept", text)
    text = f"{where} is masked: {np.count_nonzero(zero & known)} entries of it are zero"
    return (1, -edge.place.start), ("extra mask", text + ", and forward masks nothing there")


def _repeats(evidence: Evidence, lost: Array, size: int) -> bool:
    """Tell whether some ids occur again behind each lost index, and behind no other."""
    for ids in evidence.integers:
        whole = ids.reshape(-1)
        _, from_last = np.unique(whole[::-1], return_index=True)
        last = size - 1 - from_last
        if whole.size == size and np.array_equal(np.setdiff1d(np.arange(size), last), lost):
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
                excess = (1 / values if inverse else values).reshape(-1) - 1
            known = place.known
            if not np.isfinite(excess).all() or not close(
                excess[known], place.factors[known] - 1, 1e-5
            ):
                off = excess - (place.factors - 1)
                if known.all() or not np.isfinite(excess).all():
                    continue
                if off @ place.gram @ off > 1e-9 * (excess @ place.gram @ excess):
                    continue
            if _holds(evidence, paths, edge, rank, inverse):
                cause = "missing factor" if inverse else "extra factor"
                what = "is left out" if inverse else "is applied once too often"
                text = f"the factor {name} {what} at {edge}"
                return (rank, not inverse, -edge.place.start), (cause, text)
    return None


def _holds(evidence: Evidence, paths: list[str], edge: Edge, rank: int, inverse: bool) -> bool:
    """Tell whether a named factor explains the error at the inputs of the second draw as well."""
    if len(evidence.comparisons) < 2:
        return True
    there = jacobians_of(evidence.examination, 1)
    arrays = _arrays(evidence, there, edge.shape, 1)
    _, values = next(itertools.islice(arrays, rank, None))
    down, up = _around(there, paths, np.r_[edge.place])
    with np.errstate(all="ignore"):
        excess = (1 / values if inverse else values).reshape(-1) - 1
    return close(down * excess @ up, _errors(there, paths), 1e-6)


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


def selected_otherwise(evidence: Evidence) -> Cause | None:
    """Where forward takes a maximum or selects, the backward lets other entries through."""
    here = jacobians_of(evidence.examination)
    if here.network is None:
        return None
    for edge in here.network.edges:
        if edge.step.name not in SELECTING or edge.place.stop - edge.place.start > MOST:
            continue
        arriving = _arriving(here, edge)
        if arriving is None:
            continue
        for paths in _together(evidence, here):
            error = _errors(here, paths)
            down, up = _around(here, paths, np.r_[edge.place])
            place = _solve([edge], np.r_[edge.place], arriving, up, error)
            if place is None:
                continue
            square = (arriving**2).sum(axis=0)
            slopes = np.where(
                square > 0, (down * arriving).sum(axis=0) / (square + (square == 0)), 0
            )
            mine = slopes + place.factors - 1
            cause = _selection(slopes[place.known], mine[place.known])
            if cause:
                step = text_of(edge.step.name, edge.step.line)
                text = f"the backward of {step} lets g through at other entries than forward took"
                if cause == "missing factor":
                    text = f"in {step} equal entries share g, and each gets all of it"
                return cause, text
    return None


def _selection(slopes: Array, mine: Array) -> str:
    """Return what it means that a selection has these slopes in our backward."""
    passing = np.abs(mine - 1) < 1e-6
    if not (passing | (np.abs(mine) < 1e-6)).all():
        return ""
    taken = slopes > 1e-6
    if (passing == taken).all():
        return "missing factor"
    if (taken <= passing).all():
        return "mask leak"
    return "extra mask" if (passing <= taken).all() else "misread"


def _arriving(here: Jacobians, edge: Edge) -> Array | None:
    """Return the cotangent of the operation's result, at each entry of the operand."""
    assert here.network is not None
    out = here.network.cotangent_of(edge.target, here.down)
    shape = tuple(edge.step.outputs[0].aval.shape)
    if out is None:
        return None
    index = np.arange(out.shape[1]).reshape(shape)
    for axis in sorted(edge.step.params.get("axes", ())) if shape != edge.shape else ():
        index = np.expand_dims(index, axis)
    return out[:, np.broadcast_to(index, edge.shape).reshape(-1)]


def other_entries_read(evidence: Evidence) -> Cause | None:
    """A product meets other entries than forward had: each is to be found somewhere else."""
    here = jacobians_of(evidence.examination)
    if here.network is None:
        return None
    pool = np.sort(
        np.concatenate([here.operands, *(a.reshape(-1) for a in evidence.names[0].values())])
    )
    for edge in here.network.edges:
        if edge.step.name not in ("mul", "dot_general"):
            continue
        partners = [e for e in here.network.edges if e.step is edge.step and e is not edge]
        solved = _partner(here, evidence.path, edge, partners[0]) if partners else None
        if solved is None:
            continue
        excess, known = solved
        right = here.operands[partners[0].place]
        wrong = known & (np.abs(excess) > 1e-6 * np.abs(right).max())
        mine = (right + excess)[wrong]
        place = np.searchsorted(pool, mine).clip(1, pool.size - 1)
        distance = np.minimum(np.abs(pool[place] - mine), np.abs(pool[place - 1] - mine))
        near = (distance <= 1e-7 * np.abs(right).max()) | (np.abs(mine) < 1e-9)
        if wrong.sum() > 1 and near.all() and np.abs(mine).max() > 1e-9:
            return "misread", (
                f"in the backward of {edge} it meets entries that forward does not have there: "
                f"{wrong.sum()} entries of {partners[0]} are read at wrong places"
            )
    return None


def _partner(here: Jacobians, path: str, edge: Edge, other: Edge) -> tuple[Array, Array] | None:
    """Return how far the other factor of a product is from what a leaf's error asks for."""
    assert here.network is not None
    out = here.network.cotangent_of(edge.target, here.down)
    size, up, error = other.place.stop - other.place.start, here.up(path), _errors(here, [path])
    if out is None or size > MOST or size * error.size > MOST_SOLVED:
        return None
    if edge.step.name == "mul":
        if out.shape[1] != size or edge.shape != other.shape:
            return None
        effects = np.einsum("gk,kl->glk", out, up[edge.place])
    else:
        letters = iter("abcdefghijkmnopqrstuvw")
        contracted, batched = edge.step.params["dimension_numbers"]
        names = [[""] * len(e.shape) for e in (edge, other)]
        sides = (edge.operand, other.operand)
        for pairs in (contracted, batched):
            for axes in zip(*(pairs[side] for side in sides), strict=True):
                letter = next(letters)
                for name, axis in zip(names, axes, strict=True):
                    name[axis] = letter
        free: list[list[str]] = [[], []]
        for i, name in enumerate(names):
            for axis, letter in enumerate(name):
                if not letter:
                    name[axis] = next(letters)
                    free[i].append(name[axis])
        shared = [names[0][axis] for axis in batched[edge.operand]]
        order = free if edge.operand == 0 else free[::-1]
        result = "".join([*shared, *order[0], *order[1]])
        mine, theirs = ("".join(name) for name in names)
        effects = np.einsum(
            f"z{result},{mine}y->zy{theirs}",
            out.reshape(-1, *edge.step.outputs[0].aval.shape),
            up[edge.place].reshape(*edge.shape, -1),
            optimize=True,
        )
    rows = effects.reshape(-1, size)
    excess, known = _least_squares(rows.T @ rows, rows.T @ error.reshape(-1))
    return (excess, known) if close(rows @ excess, error.reshape(-1), 1e-7) else None


def mapped_otherwise(evidence: Evidence) -> Cause | None:
    """A sum, a broadcast or another map of indices is undone along other axes or indices."""
    here = jacobians_of(evidence.examination)
    if here.network is None:
        return None
    error = _errors(here, [evidence.path])
    for edge in here.network.edges:
        if edge.step.name not in MAPS or edge.place.stop - edge.place.start > MOST:
            continue
        out = here.network.cotangent_of(edge.target, here.down)
        if out is None or out.shape[1] > MOST:
            continue
        down, up = _around(here, [evidence.path], np.r_[edge.place])
        left, right = np.linalg.pinv(out), np.linalg.pinv(up)
        right_map = left @ down
        excess = left @ error @ right
        if not close(out @ excess @ up, error, 1e-7) or not close(out @ right_map, down, 1e-7):
            continue
        known = np.einsum("ij,ji->i", up, right) > 1 - 1e-6
        cause = _changed_map(right_map, right_map + excess, edge, known)
        if cause is not None:
            return cause
    return None


def _changed_map(exact: Array, ours: Array, edge: Edge, known: Array) -> Cause | None:
    """Say how a map of cotangents, (result, operand), differs from what it should be."""
    step = text_of(edge.step.name, edge.step.line)
    outer = tuple(edge.step.outputs[0].aval.shape)
    whole, mine = (a.reshape(*outer, *edge.shape) for a in (exact, ours))
    if exact.shape[0] == exact.shape[1] and close(ours, exact.T, 1e-6):
        return "jacobian not transposed", f"the Jacobian of {step} is applied, not its transpose"
    for first, count in ((len(outer), len(edge.shape)), (0, len(outer))):
        for a, b in itertools.combinations(range(first, first + count), 2):
            if whole.shape[a] == whole.shape[b] > 1 and close(mine, whole.swapaxes(a, b), 1e-6):
                which = f"axes {a - first} and {b - first}"
                return "transposed", f"{which} are exchanged where {step} is undone"
    reads = np.abs(ours[:, known]) > 1e-6
    single = edge.step.name in SPREADING and known.any() and (reads.sum(axis=0) <= 1).all()
    if single and close(ours[:, known].sum(axis=0), exact[:, known].sum(axis=0), 1e-6):
        return "misread", f"entries of g are read at wrong indices where {step} is undone"
    return None


def not_summed(evidence: Evidence) -> Cause | None:
    """Where a sum is broadcast again, the backward treats each entry alone."""
    here = jacobians_of(evidence.examination)
    if here.network is None:
        return None
    error = _errors(here, [evidence.path])
    for summed in here.network.edges:
        entries = np.r_[summed.place]
        if summed.step.name != "reduce_sum" or entries.size > MOST:
            continue
        down, up = _around(here, [evidence.path], entries)
        alone = error + down @ up  # what ours has in the place of this path
        for edge in here.network.edges:
            if edge.shape != summed.shape or not edge.floating or edge.step is summed.step:
                continue
            arriving = here.down[:, edge.place]
            place = _solve([edge], entries, arriving, up, alone)
            if place is None or np.count_nonzero(place.known) < 4:
                continue
            slopes = (place.factors - 1).reshape(summed.shape)
            axes = tuple(summed.step.params["axes"])
            if np.ptp(slopes, axis=axes).max() <= 1e-6 * np.abs(slopes).max() and slopes.any():
                step = text_of(summed.step.name, summed.step.line)
                return "missing sum", f"each entry of {edge} is taken alone where {step} adds them"
    return None


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
    path, error = evidence.path, _errors(here, [evidence.path]).reshape(-1)
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


def read_elsewhere(evidence: Evidence) -> Cause | None:
    """The backward reads another value than forward used, at one operand or wherever it is used."""
    here = jacobians_of(evidence.examination)
    if here.network is None:
        return None
    most = MOST_TRIED // here.network.size
    concerned = _concerned(here, evidence.path)
    trials = list(itertools.islice(_trials(here, concerned), most))
    left = dict.fromkeys(range(len(trials)), 0.0)  # how much of the error each leaves, at worst
    for draw in range(min(3, len(evidence.comparisons))):
        there = trials
        if draw:
            again = _trials(jacobians_of(evidence.examination, draw), concerned)
            there = list(itertools.islice(again, most))
        left = {
            i: max(left[i], rest)
            for i, rest in _rests(evidence, draw, {i: there[i] for i in left})
            if rest < NEARLY
        }
    if not left:
        return None
    exact = [i for i, rest in left.items() if rest < 1e-6]
    return trials[min(exact) if exact else min(left, key=lambda i: left[i])].cause


class Trial(NamedTuple):
    """What to read at some edges, and what it would mean."""

    cause: Cause
    reads: list[tuple[Edge, Array]]
    anew: bool = False  # whether what follows is computed with it, too
    cut: tuple[Edge, ...] = ()  # edges without a cotangent


def _rests(evidence: Evidence, draw: int, trials: dict[int, Trial]) -> Iterator[tuple[int, float]]:
    """Yield what each trial leaves of the error, relative to it."""
    here = jacobians_of(evidence.examination, draw)
    assert here.network is not None
    leaf = here.paths.index(evidence.path)
    ours, exact = evidence.pairs[draw]
    chosen = list(trials)
    for start in range(0, len(chosen), CHUNK):
        part = chosen[start : start + CHUNK]
        shifts = np.zeros((len(part), here.network.size))
        for row, i in enumerate(part):
            for edge, values in trials[i].reads:
                shifts[row, edge.place] = values.reshape(-1) - here.operands[edge.place]
        gates = np.array([[edge not in trials[i].cut for edge in here.network.edges] for i in part])
        anew = np.array([float(trials[i].anew) for i in part])
        g = [evidence.comparisons[draw].g] * len(part)
        leaves = here.network.pull(g, here.at.inputs, shifts, anew, gates)[1][leaf]
        for i, mine in zip(part, leaves, strict=True):
            rest = np.linalg.norm(ours - mine) / np.linalg.norm(ours - exact)
            yield i, float(rest) if np.isfinite(rest) else np.inf


def _concerned(here: Jacobians, path: str) -> list[Edge]:
    """Return the edges of the operations through which a leaf gets its gradient."""
    assert here.network is not None
    down, up = np.abs(here.down).max(axis=0), np.abs(here.up(path)).max(axis=1)
    edges = here.network.edges
    passed = {id(e.step) for e in edges if (down[e.place] * up[e.place]).any()}
    codes = {edge.code for edge in edges if id(edge.step) in passed}
    return [edge for edge in edges if edge.code in codes]


def _trials(here: Jacobians, concerned: list[Edge]) -> Iterator[Trial]:
    """Yield what a backward may read instead; in the same order at every draw."""
    assert here.network is not None
    edges = here.network.edges
    operands = {edge: here.operands[edge.place].reshape(edge.shape) for edge in edges}
    reading = [e for e in concerned if e.step.name not in LINEAR or not e.floating]
    for edge in reading:
        for how, values in variants(operands[edge]):
            cause = _meaning(here, edge, how)
            yield Trial((cause, f"{edge} is read {how}"), [(edge, values)])
        for how, values in _parts(operands[edge]) if edge.floating else ():
            yield Trial(("slice kept", f"of {edge} {how} is used"), [(edge, values)])
    for turns in _grouped(concerned, lambda edge: edge.code):
        if len(turns) > 1:
            yield from _in_a_loop(turns, operands, read=turns[0] in reading)
    floating = [edge for edge in reading if edge.floating]
    yield from _everywhere(here, floating, operands, anew=False)
    first = [members[0] for members in _grouped(edges, lambda edge: (edge.source, edge.shape))]
    for edge in floating:
        cause = "wrong point" if len(edge.step.inputs) == 1 else "misread"
        for other in first:
            if other.shape == edge.shape and other.source != edge.source and other.floating:
                text = f"{edge} is read from {other}"
                yield Trial((cause, text), [(edge, operands[other])])
    yield from _everywhere(here, [e for e in edges if e.floating], operands, anew=True)


def _grouped(edges: list[Edge], key: Callable[[Edge], Any]) -> list[list[Edge]]:
    groups: dict[Any, list[Edge]] = {}
    for edge in edges:
        groups.setdefault(key(edge), []).append(edge)
    return list(groups.values())


def _in_a_loop(turns: list[Edge], operands: dict[Edge, Array], *, read: bool) -> Iterator[Trial]:
    """Yield what goes wrong in all turns of a loop: some pass nothing, or read others' values."""
    edge, count = turns[0], len(turns)
    if edge.floating:
        for period in range(2, max(2, count // 2) + 1):
            for first in range(period):
                text = f"nothing passes {edge} in every {period}th turn of the loop"
                yield Trial(("missing term", text), [], cut=tuple(turns[first::period]))
        for kept, which in ((0, "first"), (-1, "last")):
            rest = tuple(turn for turn in turns if turn is not turns[kept])
            text = f"of the turns of the loop only the {which} passes something at {edge}"
            yield Trial(("slice kept", text), [], cut=rest)
            text = f"the {which} turn of the loop passes nothing at {edge}"
            yield Trial(("missing term", text), [], cut=(turns[kept],))
    for how, values in variants(np.stack([operands[turn] for turn in turns])) if read else ():
        text = f"{edge}, over the turns of the loop, is read {how}"
        yield Trial(("misread", text), list(zip(turns, values, strict=True)))


def _everywhere(
    here: Jacobians, edges: list[Edge], operands: dict[Edge, Array], *, anew: bool
) -> Iterator[Trial]:
    """Yield what may stand for a value wherever it is read, or where all that follows is, too."""
    again = ", and what follows from it is computed with that" if anew else ""
    groups = _grouped(edges, lambda edge: (edge.source, edge.shape))
    for members in groups:
        edge = members[0]
        for name, function in FUNCTIONS.items():
            with np.errstate(all="ignore"):
                values = function(operands[edge])
            text = f"{edge}, v, is read as {name.replace('{}', 'v')}{again}"
            if name != "{}":
                yield Trial(("wrong point", text), [(m, values) for m in members], anew)
        for how, values in variants(operands[edge]):
            text = f"{edge} is read {how}{again}"
            yield Trial((_meaning(here, edge, how), text), [(m, values) for m in members], anew)
        for other in (others[0] for others in groups):
            if other.shape == edge.shape and other is not edge:
                values, text = operands[other], f"{edge} is read from {other}{again}"
                yield Trial(("wrong point", text), [(m, values) for m in members], anew)


def _meaning(here: Jacobians, edge: Edge, how: str) -> str:
    """Return the cause that reading an array at wrong indices stands for."""
    if "exchanged" in how and edge.step.name == "dot_general":
        return "jacobian not transposed"
    if not edge.floating and edge.step.name == "gather":
        return "misplaced"  # its backward writes by these indices
    assert here.network is not None
    summed = "last index" in how and here.network.maker_of(edge) == "cumsum"
    return "mask leak" if summed else "misread"


def _parts(array: Array) -> Iterator[tuple[str, Array]]:
    """Yield (how, values) of an array that is used in part."""
    for axis, size in enumerate(array.shape):
        for index, which in ((0, "first"), (size - 1, "last")) if size > 1 else ():
            alone = np.zeros_like(array)
            where = (slice(None),) * axis + (index,)
            alone[where] = array[where]
            yield f"only the {which} index of axis {axis}", alone
            if size > 2:
                yield f"all but the {which} index of axis {axis}", array - alone


def keyword_elsewhere(evidence: Evidence) -> Cause | None:
    """An array among the keywords is read at wrong indices."""
    oracle = evidence.examination.oracle
    if not isinstance(oracle, JaxOracle):
        return None
    keywords = oracle.keywords["float64"]
    arrays = {k: v for k, v in keywords.items() if isinstance(v, np.ndarray) and v.size > 1}
    first, *others = evidence.comparisons[:2]
    for name, array in arrays.items():
        leaf = jacobians_of(evidence.examination).paths.index(evidence.path)
        for how, values in variants(array):
            pairs = zip((first, *others), evidence.pairs, strict=False)
            if np.array_equal(values, array):
                continue
            changed = arrays | {name: np.ascontiguousarray(values)}
            if all(
                evidence.close(ours, oracle.swept(changed, c.inputs, c.g)[leaf])
                for c, (ours, _) in pairs
            ):
                return "misread", f"it is the gradient for {name} read {how}"
    return None


def variants(array: Array) -> Iterator[tuple[str, Array]]:
    """Yield (how, values) of an array that is read at wrong indices."""
    axes = [axis for axis, size in enumerate(array.shape) if size > 1]
    for count in (1, 2):
        for some in itertools.combinations(axes, count):
            for index, which in ((0, "first"), (-1, "last")):
                one = array
                for axis in some:
                    one = np.take(one, [index], axis)
                named = " and ".join(map(str, some))
                how = f"at the {which} index of axis {named} for all"
                yield how, np.broadcast_to(one, array.shape)
    for axis in axes:
        for by in (1, -1):
            rolled = np.roll(array, by, axis)
            yield f"one index off along axis {axis}", rolled
            empty = np.moveaxis(rolled.copy(), axis, 0)
            empty[0 if by > 0 else -1] = 0
            yield f"one index off along axis {axis}", np.moveaxis(empty, 0, axis)
        yield f"backwards along axis {axis}", np.flip(array, axis)
    for a, b in itertools.combinations(axes, 2):
        if array.shape[a] == array.shape[b]:
            yield f"with axes {a} and {b} exchanged", array.swapaxes(a, b)
