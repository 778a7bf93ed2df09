"""Signatures of one term among several: by replays of the reference, and by the error itself."""

import itertools
from typing import Any

import numpy as np

from ... import pytree
from ...contract import Array
from ..oracle import JaxOracle
from .evidence import Cause, Evidence, close, fit, name_constant
from .factors import FUNCTIONS, fitting, is_mask
from .replay import Replays, Site

STOPPED = 50
"""So many paths are left out in pairs."""

__all__ = ["error_along", "replayed", "text_of"]

_SAYS = {
    "unmasked": ("mask leak", "it is the gradient that passes {step} everywhere, unmasked"),
    "factor": ("missing factor", "it is the gradient with the local slope of {step} set to one"),
    "elsewhere": ("wrong point", "the slope of {step} is taken at another value than its input"),
    "input": ("wrong point", "the slope of {step} is written by its output, but given its input"),
    "not transposed": ("jacobian not transposed", "g meets W in {step} where it needs Wᵀ"),
    "part": ("slice kept", "only a part of the sum through {step} is kept"),
    "reshaped": ("misplaced", "g is reshaped where {step} has to be undone by exchanging axes"),
}
_ORDER = ("path", *_SAYS, "value")


def replayed(evidence: Evidence) -> Cause | None:
    """One replay of the oracle, or two stopped or scaled paths, give what the layer gives."""
    replays = replays_of(evidence)
    if replays is None:
        return None
    first = evidence.comparisons[0]
    leaf = _floating_paths(first.inputs).index(evidence.path)
    found: list[tuple[Site, float]] = []
    effects: list[tuple[Site, Array]] = []
    silent: list[Site] = []  # paths that cancel others, or lead nowhere
    weights = [replays.weights({site: 0.0}) for site in replays.sites]
    cotangents = replays.gradients(weights, first.inputs, first.g)
    for site, leaves in zip(replays.sites, cotangents, strict=True):
        altered = leaves[leaf].astype(np.float64)
        if site.kind not in ("path", "value"):
            if evidence.close(evidence.ours, altered):
                found.append((site, 1.0))
            continue
        effect = evidence.exact - altered
        if not np.abs(effect).max(initial=0.0) > 1e-9 * np.abs(evidence.exact).max():
            silent += [site] if site.kind == "path" else []
            continue
        if site.kind == "path":
            effects.append((site, effect))
        scale = fit(evidence.ours - altered, effect)
        if scale is not None and evidence.close(evidence.ours, altered + scale * effect):
            found.append((site, 0.0 if abs(scale) < 1e-7 else scale))
    found = [item for item in found if _confirmed(evidence, replays, dict([item]))]
    if found:
        return _best(evidence, replays, found)
    return _two_paths(evidence, replays, effects) or _two_stops(evidence, replays, effects, silent)


def _two_paths(
    evidence: Evidence, replays: Replays, effects: list[tuple[Site, Array]]
) -> Cause | None:
    """Two paths side by side, each scaled: the error is a combination of their two effects."""
    effects = _distinct(effects)[:80]
    if len(effects) < 2 or evidence.exact.size < 5:
        return None
    error = (evidence.ours - evidence.exact).reshape(-1)
    rows = np.stack([effect.reshape(-1) for _, effect in effects])
    gram, along = rows @ rows.T, rows @ error
    for i, j in itertools.combinations(range(len(effects)), 2):
        both = np.ix_([i, j], [i, j])
        if np.linalg.det(gram[both]) < 1e-9 * gram[i, i] * gram[j, j]:
            continue  # one is a multiple of the other
        a, b = np.linalg.solve(gram[both], along[[i, j]])
        changes = {effects[i][0]: float(1 + a), effects[j][0]: float(1 + b)}
        explains = evidence.close(a * rows[i] + b * rows[j], error)
        if explains and _confirmed(evidence, replays, changes):
            named = [f"{_where(site)} {_times(evidence, c)}" for site, c in changes.items()]
            left_out = all(abs(scale) < 1e-7 for scale in changes.values())
            cause = "missing term" if left_out else "wrong term"
            text = " and that through ".join(named)
            return cause, f"two terms are wrong: that through {text}"
    return None


def _two_stops(
    evidence: Evidence, replays: Replays, effects: list[tuple[Site, Array]], silent: list[Site]
) -> Cause | None:
    """Two paths are left out, one of which leads through the other: their effects do not add up."""
    first = evidence.comparisons[0]
    leaf = _floating_paths(first.inputs).index(evidence.path)
    sites = [site for site, _ in _distinct(effects)[:STOPPED]]
    both = [*itertools.combinations(sites, 2), *itertools.product(sites, silent[:STOPPED])]
    pairs = [dict.fromkeys(pair, 0.0) for pair in both]
    weights = [replays.weights(changes) for changes in pairs]
    cotangents = replays.gradients(weights, first.inputs, first.g)
    for changes, leaves in zip(pairs, cotangents, strict=True):
        if evidence.close(evidence.ours, leaves[leaf]) and _confirmed(evidence, replays, changes):
            named = " and that through ".join(map(_where, changes))
            return "missing term", f"two terms are left out: that through {named}"
    return None


def _distinct(effects: list[tuple[Site, Array]]) -> list[tuple[Site, Array]]:
    """Leave out paths that have the effect of a later one: they are one chain."""
    kept: list[tuple[Site, Array]] = []
    for site, effect in reversed(effects):
        if not any(close(effect, other, 1e-9) for _, other in kept):
            kept.append((site, effect))
    return kept


def replays_of(evidence: Evidence) -> Replays | None:
    """Return the replays of the reference, made once for all leaves; None where there are none."""
    oracle, first = evidence.examination.oracle, evidence.comparisons[0]
    if not isinstance(oracle, JaxOracle):
        return None
    if "replays" not in oracle.memory:
        try:
            replays = Replays(oracle, first.inputs, first.g)
            (plain,) = replays.gradients([replays.normal], first.inputs, first.g)
        except Exception:  # a reference that cannot be taken apart is no fault of the layer
            oracle.memory["replays"] = None
            return None
        exact = pytree.leaves({name: first.exact[name] for name in ("params", "x")})
        same = all(close(a, b, 1e-9) or not b.any() for a, b in zip(plain, exact, strict=True))
        oracle.memory["replays"] = replays if same else None
    found: Replays | None = oracle.memory["replays"]
    return found


def error_along(evidence: Evidence) -> Cause | None:
    """In every row the error is a multiple of one, x, y or another array with a name."""
    error, g = evidence.exact - evidence.ours, evidence.names[0].get("g")
    if g is not None and evidence.close(error, g):
        return "missing term", "it lacks g itself: x also reaches y by a path that skips the layer"
    if g is not None and evidence.close(-error, g):
        return "wrong term", "g itself is added once too often"
    for ids in evidence.integers:
        chosen = ids[..., None] == np.arange(error.shape[-1]) if error.ndim else ids
        if chosen.size == error.size and chosen.any():
            one_hot = chosen.reshape(error.shape).astype(float)
            times = fit(error, one_hot) or 0.0
            if all(
                evidence.close(exact - ours, fit(exact - ours, one_hot) * one_hot)
                for ours, exact in evidence.pairs
            ):
                called = name_constant(times, evidence)
                return "missing term", f"at the entries that an index names it lacks {called}"
    name = _direction(evidence)
    if not name:
        return _multiple(evidence)
    what = "mean" if name == "a constant" else "projection on it"
    return "missing term", (
        f"the error of each row is a multiple of {name}: a {what} is missing or wrong"
    )


def _direction(evidence: Evidence) -> str:
    """Return the array of which the error of each row is a multiple, or ""."""
    error = evidence.exact - evidence.ours
    names = {"a constant": np.ones(1), **evidence.names[0]}
    for name, v in names.items() if error.ndim and error.shape[-1] > 2 else ():
        try:
            v = np.broadcast_to(v, error.shape)
        except ValueError:
            if v.size != error.size:
                continue
            v = v.reshape(error.shape)
        square = np.sum(v * v, axis=-1, keepdims=True)
        if square.all():
            along = np.sum(error * v, axis=-1, keepdims=True) / square
            if evidence.close(along * v, error):
                return name
    return ""


def _multiple(evidence: Evidence) -> Cause | None:
    """Wherever it is wrong, it is so by a multiple of g times an array that has a name."""
    errors = [ours - exact for ours, exact in evidence.pairs[:2]]
    wrong = [np.abs(error) > 1e-9 * np.abs(error).max() for error in errors]
    if min(map(np.count_nonzero, wrong)) < 4:
        return None
    for name, (text, function) in itertools.product(evidence.names[0], FUNCTIONS.items()):
        found = []
        for error, where, names in zip(errors, wrong, evidence.names, strict=False):
            g, array = names.get("g"), names[name]
            shape = next(fitting(g.shape, error.shape), None) if g is not None else None
            if g is None or shape is None or array.shape != error.shape:
                break
            with np.errstate(all="ignore"):
                along = (function(array) * g.reshape(shape))[where]
            times = fit(error[where], along) if np.isfinite(along).all() else None
            if times is None or not evidence.close(error[where], times * along):
                break
            found.append(times)
        if len(found) == len(errors) and np.ptp(found) <= 1e-7 * abs(found[0]):
            called = f"{name_constant(found[0], evidence)} times {text.replace('{}', name)}·g"
            cause = "extra term" if wrong[0].all() else "wrong term"
            return cause, f"where it is wrong, it is so by {called}"
    return None


def _floating_paths(inputs: Any) -> list[str]:
    """Return the paths of the leaves that have a gradient, in the order of the oracle."""
    leaves = pytree.leaves_with_path(dict(zip(("params", "x"), inputs, strict=True)))
    return [path for path, leaf in leaves if leaf.dtype.kind == "f"]


def _confirmed(evidence: Evidence, replays: Replays, changes: dict[Site, float]) -> bool:
    """Tell whether a replay matches at other inputs and another g as well."""
    if any(site.kind == "path" and abs(scale - 1) < 1e-9 for site, scale in changes.items()):
        return False
    weights = replays.weights(changes)
    for c, (ours, _) in zip(evidence.comparisons[1:3], evidence.pairs[1:3], strict=True):
        (leaves,) = replays.gradients([weights], c.inputs, c.g)
        if not evidence.close(ours, leaves[_floating_paths(c.inputs).index(evidence.path)]):
            return False
    return True


def _best(evidence: Evidence, replays: Replays, found: list[tuple[Site, float]]) -> Cause:
    """Choose among replays with one result: a stopped path first, the last of a chain."""

    def rank(item: tuple[Site, float]) -> tuple[bool, int, int]:
        site, scale = item
        return (scale not in (0.0, 1.0), _ORDER.index(site.kind), -site.column)

    site, scale = min(found, key=rank)
    if site.kind in _SAYS:
        cause, text = _SAYS[site.kind]
        if site.kind == "unmasked" and site.operation in ("max", "min", "clamp"):
            cause = "missing factor"
        if site.kind == "factor" and site.operation == "mul":
            operands = replays.operands(site, evidence.comparisons[0].inputs)
            if is_mask(operands[1 - site.operand]):
                cause, text = "mask leak", "it passes {step} everywhere, though that is a mask"
        return cause, text.format(step=_step(site))
    cause = "missing term" if scale == 0.0 else "wrong term"
    if site.kind == "value":
        if scale == 0.0:
            return cause, f"it is the gradient without the result of {_step(site)}"
        times = name_constant(scale, evidence)
        return cause, f"it is the gradient for {times} times the result of {_step(site)}"
    along = _direction(evidence) if scale == 0.0 else ""
    row = f" (the error of each row is a multiple of {along})" if along else ""
    return cause, f"the term through {_where(site)} {_times(evidence, scale)}{row}"


def _step(site: Site) -> str:
    return text_of(site.operation, site.line)


def text_of(operation: str, line: str) -> str:
    """Return what a report calls an operation of the reference."""
    return f"`{operation}` in `{line}`" if line else f"`{operation}`"


def _where(site: Site) -> str:
    return f"operand {site.operand + 1} of {_step(site)}"


def _times(evidence: Evidence, scale: float) -> str:
    if abs(scale) < 1e-7:
        return "is left out"
    if abs(scale + 1) < 1e-7:
        return "has the wrong sign"
    return f"is {name_constant(scale, evidence)} times what it should be"
