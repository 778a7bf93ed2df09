"""Signatures that a wrong leaf shows as a whole, and those of a wrong shape."""

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from ... import pytree
from ..oracle import SOON, JaxOracle
from .evidence import Cause, Evidence, close, fit, leaf_of, name_constant
from .network import MOST_OUTPUTS, jacobians_of

__all__ = [
    "diagonal_only",
    "exchanged",
    "explain_shape",
    "g_ignored",
    "jacobian_not_transposed",
    "misplaced",
    "not_linear",
    "other_number",
    "other_setting",
    "sign_or_constant",
    "swapped",
    "transposed",
]


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
            first, *_ = evidence.comparisons
            zero = evidence.response(pytree.map(np.zeros_like, first.g))[0]
            held = (zero != 0) & (evidence.ours == zero)
            if held.any() and evidence.close(
                np.where(held, 0.0, evidence.ours), np.where(held, 0.0, evidence.exact)
            ):
                count = np.count_nonzero(held)
                return "never written", (
                    f"{count} entries are the same for any g, as what lay in memory before would "
                    "be; all others are right"
                )
            twice = evidence.response(pytree.map(lambda a: 2 * a, first.g))[0]
            if zero.any() and evidence.close(twice - evidence.ours, evidence.ours - zero):
                return (
                    "missing factor",
                    "g is left out of a term: what is added is the same for any g",
                )
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
    path, comparisons = evidence.path, evidence.comparisons
    trees = [[dict(pytree.leaves_with_path(t)) for t in (c.ours, c.exact)] for c in comparisons]
    for other in trees[0][1]:
        pairs = [(ours[path], exact[other]) for ours, exact in trees]
        if mutual:
            pairs += [(ours[other], exact[path]) for ours, exact in trees]
        if other not in (path, "y") and all(evidence.close(a, b) for a, b in pairs):
            right = all(evidence.close(ours[other], exact[other]) for ours, exact in trees)
            return "misread" if right else "swapped", f"this is the gradient of {other}"
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
    for axis, size in enumerate(evidence.exact.shape):
        if size * evidence.exact.size > 10**7:
            continue  # to compare all slices would take long
        mine, truth = (np.moveaxis(a, axis, 0).reshape(size, -1) for a in evidence.pairs[0])
        order = np.linalg.norm(mine[:, None] - truth, axis=-1).argmin(axis=-1).tolist()
        if sorted(order) == list(range(size)) and evidence.always(
            lambda t, o=order, a=axis: t.take(o, a)
        ):
            return "misplaced", f"axis {axis} of size {size} is in another order: {order}"
    if evidence.exact.size > 3 and all(
        evidence.close(np.sort(ours, axis=None), np.sort(exact, axis=None))
        for ours, exact in evidence.pairs
    ):
        return "misplaced", (
            "it has the right numbers in the wrong places: look for a reshape that needs a "
            "transposition before it, or for interleaved parts taken as halves"
        )
    return None


def jacobian_not_transposed(evidence: Evidence) -> Cause | None:
    """The Jacobian times g, where its transpose is needed."""
    oracle = evidence.examination.oracle
    first = evidence.comparisons[0]
    shape = evidence.exact.shape
    if not isinstance(oracle, JaxOracle) or getattr(first.g, "shape", None) != shape:
        return None
    for i, (c, (ours, _)) in enumerate(zip(evidence.comparisons[:2], evidence.pairs, strict=False)):
        if c.g.size <= MOST_OUTPUTS:
            jacobian = jacobians_of(evidence.examination, i).exact[evidence.path]
            times_g = (jacobian @ c.g.reshape(-1)).reshape(shape)
        else:
            times_g = oracle.pushforward(c.inputs, evidence.path, c.g)
        if not evidence.close(ours, times_g):
            return None
    return "jacobian not transposed", (
        "it is the Jacobian times g, where a vjp needs its transpose: look for W in place of Wᵀ, "
        "or for a rotation that should be turned back"
    )


def diagonal_only(evidence: Evidence) -> Cause | None:
    """The diagonal of the Jacobian times g: what each entry does to the others is left out."""
    g = evidence.comparisons[0].g
    if getattr(g, "shape", None) != evidence.exact.shape or not 1 < evidence.exact.size <= 256:
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
    return _for_settings(evidence, _other_settings)


def other_number(evidence: Evidence) -> Cause | None:
    """The truth for another whole number among the keywords: one more or less, one or zero."""
    return _for_settings(evidence, _neighbours)


def _for_settings(
    evidence: Evidence, others: Callable[[dict[str, Any]], Iterator[tuple[str, object, str]]]
) -> Cause | None:
    oracle = evidence.examination.oracle
    if not isinstance(oracle, JaxOracle):
        return None
    memory = evidence.examination.memory
    for i, (name, value, cause) in enumerate(others(oracle.settings)):
        key = f"{others.__name__} {i}"
        if key not in memory:
            try:
                changed = oracle.keywords["float64"] | {name: value}
                memory[key] = [
                    oracle.results(c.inputs, c.g, "float64", keywords=changed, options=SOON)
                    for c in evidence.comparisons[:2]
                ]
            except Exception:  # whatever the reference raises for that value
                memory[key] = []
        truths = [leaf_of(tree, evidence.path) for tree in memory[key]]
        pairs = zip(evidence.pairs, truths, strict=False)
        if truths and all(evidence.close(pair[0], truth) for pair, truth in pairs):
            cause = cause or _of_support(evidence)
            return cause, f"it is the gradient for {name}={value!r}"
    return None


def _of_support(evidence: Evidence) -> str:
    """Return what it means that a setting is off by one: by which entries are zero."""
    jacobians = jacobians_of(evidence.examination)
    mine, true = (a[evidence.path] != 0 for a in (jacobians.ours, jacobians.exact))
    if (mine & ~true).any():
        return "misread" if (true & ~mine).any() else "mask leak"
    return "extra mask" if (true & ~mine).any() else "misread"


_PLAIN = ((0.0, "missing term"), (1.0, "wrong point"))
"""Values of a setting that stand for its absence, and the cause where it is absent."""


def _other_settings(settings: dict[str, Any]) -> Iterator[tuple[str, object, str]]:
    for name, value in settings.items():
        if isinstance(value, (bool, np.bool_)):
            masks = "causal" in name or "mask" in name
            yield name, not value, "mask leak" if masks else "wrong term"
        elif isinstance(value, (float, np.floating)):
            yield from ((name, v, c) for v, c in _PLAIN if value not in (0, v))
        elif isinstance(value, np.ndarray) and value.dtype == bool:
            yield name, np.ones_like(value), "mask leak"
        elif hasattr(value, "_fields"):  # a NamedTuple of settings, such as Visibility
            for field, other, cause in _other_settings(value._asdict()):
                yield name, value._replace(**{field: other}), cause


def _neighbours(settings: dict[str, Any]) -> Iterator[tuple[str, object, str]]:
    for name, value in settings.items():
        if isinstance(value, (int, np.integer)) and not isinstance(value, bool):
            others = dict.fromkeys((value + 1, value - 1, 1, 0))
            cause = "transposed" if name in ("axis", "dim") else ""
            yield from ((name, v, cause) for v in others if v != value)
        elif hasattr(value, "_fields"):
            for field, other, cause in _neighbours(value._asdict()):
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
    for axis, size in enumerate(required if received.ndim == len(required) else ()):
        parts, rest = divmod(received.shape[axis], size) if size else (0, 0)
        shape = received.shape[:axis], received.shape[axis + 1 :]
        for group in ((size, parts), (parts, size)) if parts > 1 and not rest else ():
            summed = received.reshape(*shape[0], *group, *shape[1])
            summed = summed.sum(axis=axis + (group[0] == size))
            if summed.shape == required and close(summed, exact, 1e-8):
                return "missing sum", f"axis {axis} has groups of {parts}: sum each; {shown}"
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
