"""Signatures that a wrong leaf shows as a whole, and those of a wrong shape."""

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np

from ... import pytree
from ..oracle import JaxOracle
from .evidence import Evidence, close, fit, leaf_of, name_constant

Cause = tuple[str, str]
"""A key of `report.CAUSES`, and the sentence."""


def never_written(evidence: Evidence) -> Cause | None:
    """Nothing but zeros, whatever goes in."""
    if all(not ours.any() and exact.any() for ours, exact in evidence.pairs):
        return "never written", "it is zero for every g, and should not be"
    return None


def g_ignored(evidence: Evidence) -> Cause | None:
    """The same answer for two cotangents."""
    inputs = evidence.comparisons[0].inputs
    answers = [evidence.response(c.g)[0] for c in evidence.comparisons[:2]]
    if len(answers) == 2 and answers[0].any() and np.array_equal(answers[0], answers[1]):
        ones = pytree.map(np.ones_like, evidence.comparisons[0].g)
        exact = leaf_of(evidence.examination.oracle.results(inputs, ones, "float64"), evidence.path)
        like = "; it is right for g = 1 only" if evidence.close(answers[0], exact) else ""
        return "g ignored", f"it is the same for any g{like}"
    return None


def not_linear(evidence: Evidence) -> Cause | None:
    """Found before, by scaling and adding cotangents."""
    for finding in evidence.examination.report.findings:
        if finding.cause == "not linear in g" and finding.leaf in (evidence.path, ""):
            return "not linear in g", "a vjp is linear in g, and this one is not"
    return None


def sign_or_constant(evidence: Evidence) -> Cause | None:
    """The truth times one number."""
    factors = [fit(ours, exact) for ours, exact in evidence.pairs]
    first = factors[0]
    if first is None or abs(first - 1) < 1e-6 or not evidence.always(lambda t: first * t):
        return None
    if abs(first + 1) < 1e-7:
        return "sign", "it is exactly −1 times what it should be"
    called = name_constant(first, evidence)
    return "constant factor", f"every entry is {called} times what it should be"


def exchanged(evidence: Evidence) -> Cause | None:
    """This leaf has the truth of another, and that one has the truth of this."""
    return swapped(evidence, mutual=True)


def swapped(evidence: Evidence, mutual: bool = False) -> Cause | None:
    """The truth of another leaf."""
    exact, ours = (
        [dict(pytree.leaves_with_path(t)) for t in trees]
        for trees in zip(*((c.exact, c.ours) for c in evidence.comparisons), strict=True)
    )
    path = evidence.path
    for other in exact[0]:
        if other in (path, "y"):
            continue
        pairs = [(mine[path], truth[other]) for mine, truth in zip(ours, exact, strict=True)]
        if mutual:
            pairs += [(mine[other], truth[path]) for mine, truth in zip(ours, exact, strict=True)]
        if all(close(a, b, evidence.tolerance) for a, b in pairs):
            return "swapped", f"this is the gradient of {other}"
    return None


def transposed(evidence: Evidence) -> Cause | None:
    """The truth with its axes in another order."""
    shape = evidence.exact.shape
    for axes in itertools.permutations(range(len(shape))) if 1 < len(shape) <= 4 else ():
        moved = tuple(shape[a] for a in axes)
        same = axes == tuple(range(len(shape)))
        if not same and moved == shape and evidence.always(lambda t, a=axes: t.transpose(a)):
            return "transposed", f"it is the right result with its axes in the order {list(axes)}"
    return None


def misplaced(evidence: Evidence) -> Cause | None:
    """The right numbers, at other indices."""
    shape = evidence.exact.shape
    for axis, size in enumerate(shape):
        for shift in range(1, size):
            if evidence.always(lambda t, s=shift, a=axis: np.roll(t, s, a)):
                return "misplaced", f"it is shifted by {shift} along axis {axis}"
        if size > 1 and evidence.always(lambda t, a=axis: np.flip(t, a)):
            return "misplaced", f"it is reversed along axis {axis}"
    for axis, size in enumerate(shape):
        order = _order_along(evidence, axis)
        if order is not None:
            return "misplaced", f"axis {axis} of size {size} is in another order: {order}"
    if evidence.exact.size > 3 and all(
        close(np.sort(ours, axis=None), np.sort(exact, axis=None), evidence.tolerance)
        for ours, exact in evidence.pairs
    ):
        return "misplaced", (
            "it has the right numbers in the wrong places: look for a reshape that needs a "
            "transposition before it, or for interleaved parts taken as halves"
        )
    return None


def _order_along(evidence: Evidence, axis: int) -> list[int] | None:
    """Return which slice of the truth each slice of ours is, if each is one."""
    orders = []
    for ours, exact in evidence.pairs[:2]:
        order = []
        for i in range(ours.shape[axis]):
            mine = np.take(ours, i, axis)
            matches = [
                j
                for j in range(exact.shape[axis])
                if close(mine, np.take(exact, j, axis), evidence.tolerance)
            ]
            if len(matches) != 1:
                return None
            order.append(matches[0])
        orders.append(order)
    same = all(order == orders[0] for order in orders)
    return orders[0] if same and sorted(orders[0]) == list(range(len(orders[0]))) else None


def jacobian_not_transposed(evidence: Evidence) -> Cause | None:
    """The Jacobian times g, where its transpose is needed."""
    oracle = evidence.examination.oracle
    first = evidence.comparisons[0]
    if not isinstance(oracle, JaxOracle) or np.shape(first.g) != evidence.exact.shape:
        return None
    for c, (ours, _) in zip(evidence.comparisons[:2], evidence.pairs, strict=False):
        if not evidence.close(ours, oracle.pushforward(c.inputs, evidence.path, c.g)):
            return None
    return "jacobian not transposed", (
        "it is the Jacobian times g, where a vjp needs its transpose: look for W in place of Wᵀ, "
        "or for a rotation that should be turned back"
    )


def diagonal_only(evidence: Evidence) -> Cause | None:
    """The diagonal of the Jacobian times g: what each entry does to the others is left out."""
    g = evidence.comparisons[0].g
    if np.shape(g) != evidence.exact.shape or not 1 < evidence.exact.size <= 256:
        return None
    diagonal = np.diag([exact for _, exact in evidence.unit_responses(g)])
    if not evidence.close(evidence.ours, g * diagonal.reshape(g.shape)):
        return None
    return "missing sum", (
        "each entry has the slope of its own output only: the sum over the other outputs that it "
        "is part of is missing"
    )


def other_setting(evidence: Evidence) -> Cause | None:
    """The truth for another value of a keyword, such as no mask."""
    oracle = evidence.examination.oracle
    if not isinstance(oracle, JaxOracle):
        return None
    for name, value, cause in _other_settings(oracle.settings):
        try:
            changed = oracle.with_keywords({name: value})
            truths = [
                leaf_of(changed.results(c.inputs, c.g, "float64"), evidence.path)
                for c in evidence.comparisons[:2]
            ]
        except Exception:  # whatever the reference raises for that value
            continue
        if all(evidence.close(pair[0], t) for pair, t in zip(evidence.pairs, truths, strict=False)):
            return cause, f"it is the gradient for {name}={value!r}"
    return None


def _other_settings(settings: dict[str, Any]) -> Iterator[tuple[str, object, str]]:
    for name, value in settings.items():
        if isinstance(value, (bool, np.bool_)):
            masks = "causal" in name or "mask" in name
            yield name, not value, "mask leak" if masks else "wrong term"
        elif isinstance(value, (float, np.floating)) and value != 0:
            yield name, 0.0, "missing term"
        elif isinstance(value, np.ndarray) and value.dtype == bool:
            yield name, np.ones_like(value), "mask leak"
        elif hasattr(value, "_fields"):  # a NamedTuple of settings, such as Visibility
            for field, other, cause in _other_settings(value._asdict()):
                yield name, value._replace(**{field: other}), cause


def explain_shape(received: Any, exact: Any, others: dict[str, Any]) -> Cause:
    """Explain a leaf of another shape than the exact one, or that of the others by path."""
    received, required = np.asarray(received), exact.shape
    shown = f"got {received.shape} for {required}"
    for axes in _subsets(received.ndim):
        summed = received.sum(axis=axes)
        for keep in (summed, summed.reshape(required) if summed.size == exact.size else summed):
            if keep.shape == required and close(keep, exact, 1e-8):
                which = ", ".join(f"{a} (size {received.shape[a]})" for a in axes)
                if all(received.shape[a] == 1 for a in axes):
                    return "structure", f"the numbers are right, but axis {which} must go"
                return "missing sum", f"sum it over axis {which}: broadcasting forward adds back"
    for axes in itertools.permutations(range(received.ndim)) if received.ndim <= 4 else ():
        moved = received.transpose(axes)
        if moved.shape == required and close(moved, exact, 1e-8):
            return "transposed", f"it is the right result transposed; {shown}"
    for path, other in others.items():
        if other is not None and other.shape == received.shape and close(received, other, 1e-8):
            return "swapped", f"this is the gradient of {path}"
    if received.size == exact.size and close(received.reshape(required), exact, 1e-8):
        return "structure", f"the numbers are right, in another shape: reshape it; {shown}"
    for axes in _subsets(exact.ndim):
        for keepdims in (False, True):
            summed = exact.sum(axis=axes, keepdims=keepdims)
            if summed.shape == received.shape and close(received, summed, 1e-8):
                return "structure", f"it is summed over axis {list(axes)}, which it must not be"
    if len(required) < received.ndim:
        return "missing sum", f"it has axes that the input does not have: {shown}"
    if sorted(received.shape) == sorted(required):
        return "transposed", f"its axes stand in another order: {shown}"
    return "structure", f"{shown}; a gradient has the shape of what it is the gradient of"


def _subsets(ndim: int) -> list[tuple[int, ...]]:
    axes = range(ndim)
    return [s for size in range(1, ndim + 1) for s in itertools.combinations(axes, size)]
