"""Inputs that a check draws itself, in the shapes given: friendly ones hide most real mistakes.

Scales of one, biases of zero, ids that never repeat, masks that hide nothing and a ``g`` with
memory of its own for every entry let a wrong backward pass. Each kind of draw replaces some of
them. It counts only where ``forward`` still agrees with the oracle: elsewhere the inputs are not
what the layer is made for, such as a negative variance.
"""

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from .. import prng, pytree
from ..contract import Array, Key, Tree
from .accuracy import compare_float64
from .explain import explain
from .forward_mode import check_jvp
from .inputs import finite, normal_like
from .limits import norm
from .report import Report
from .subject import BrokenLayer, Examination, Subject

__all__ = ["check_own_inputs"]

DRAWS = 2
"""Of each kind."""

DIFFERENCES = 100.0
"""Times the usual limit where the oracle takes differences: few draws say little of its noise."""


def check_own_inputs(examination: Examination) -> None:
    """Compare the gradients at inputs of each kind; the first that shows a mistake is explained."""
    report = examination.report
    if report.findings or not all(leaf.ok for leaf in report.leaves.values()):
        return
    (inputs, g), *_ = examination.draws
    keywords = examination.subject.keywords(np.float64)
    for number, (what, redraw) in enumerate(KINDS.items()):
        drawn: list[Any] = [redraw((number, i), inputs, g, keywords) for i in range(DRAWS)]
        if any(one is None for one in drawn):
            continue
        other = _examined(examination, [one[:2] for one in drawn], drawn[0][2])
        if not all(_agrees(other, *draw) for draw in other.draws):
            continue
        try:
            compare_float64(other)
        except BrokenLayer as error:
            other.report.findings.append(error.finding)
        else:
            for leaf in other.report.leaves.values():
                if leaf.float64_limit is not None and not examination.oracle.has_float32:
                    leaf.float64_limit *= DIFFERENCES
            check_jvp(other, "float64")
            explain(other)
        if other.report.findings:
            for finding in other.report.findings:
                message = f"{finding.message} (with {what}; not at the inputs given)"
                report.findings.append(
                    dataclasses.replace(finding, check="inputs", message=message)
                )
            for path, leaf in other.report.leaves.items():
                if not leaf.ok:
                    report.leaves[path] = leaf
            return


def _examined(
    examination: Examination, draws: list[tuple[Any, Any]], keywords: dict[str, Any]
) -> Examination:
    """Return the same check at other inputs, with a report of its own."""
    subject = Subject(examination.subject.layer, keywords, strict=examination.subject.strict)
    return dataclasses.replace(
        examination,
        subject=subject,
        oracle=examination.oracle.with_keywords(keywords),
        draws=draws,
        draw=lambda i: draws[i % len(draws)],
        report=Report(examination.report.name),
        comparisons=[],
        returned=None,
    )


def _agrees(examination: Examination, inputs: Any, g: Any) -> bool:
    """Tell whether ``forward`` takes the inputs and computes what the oracle does."""
    try:
        exact = examination.oracle.results(inputs, g, "float64")
        y, _ = examination.subject.forward(inputs)
        pairs = pytree.zip_with_path(exact.get("y", y), y)
    except Exception:  # whatever is raised where inputs make no sense
        return False
    gradients = pytree.leaves({name: exact[name] for name in ("params", "x")})
    largest = max((float(np.abs(leaf).max(initial=0.0)) for leaf in gradients), default=0.0)
    if largest < 1e-6 * max(float(np.abs(leaf).max(initial=0.0)) for leaf in pytree.leaves(g)):
        return False  # nothing but rounding to compare, as softmax has for equal entries of g
    everything = pytree.leaves((exact, y))
    if examination.subject.float_faults or not all(np.isfinite(leaf).all() for leaf in everything):
        return False
    return all(norm(mine - theirs) <= 1e-10 * norm(finite(theirs)) for _, theirs, mine in pairs)


Redraw = Callable[[Key, tuple[Tree, Any], Any, dict[str, Any]], tuple[Any, Any, Any] | None]
"""``(key, (params, x), g, keywords) -> (inputs, g, keywords)``; None where nothing would change."""


def _drawn(key: Key, tree: Tree, one: Callable[[Key, Array], Array]) -> Tree:
    numbers: Iterator[int] = iter(range(len(pytree.leaves(tree))))
    return pytree.map(lambda leaf: one((*key, next(numbers)), leaf), tree)


def _anew(key: Key, leaf: Array) -> Array:
    """Return normal numbers of about the same size, around a mean that is not zero."""
    if leaf.dtype.kind != "f":
        return leaf
    if not leaf.ndim:
        return leaf * np.exp(0.3 * prng.normal(key, (), dtype=np.float64))
    size = float(np.sqrt(np.mean(np.square(leaf)))) if leaf.size else 1.0
    return (0.3 + prng.normal(key, leaf.shape, dtype=np.float64)) * (size or 1.0)


def _stretched(key: Key, leaf: Array) -> Array:
    """Return the leaf with each entry times a positive number of its own; zeros are drawn anew."""
    if leaf.dtype.kind != "f":
        return leaf
    if not leaf.any():
        return 0.5 * prng.normal(key, leaf.shape, dtype=np.float64)
    return leaf * np.exp(0.4 * prng.normal(key, leaf.shape, dtype=np.float64))


def _repeated(key: Key, leaf: Array) -> Array:
    """Return integers in the same range that repeat, and booleans that are mixed."""
    if leaf.dtype.kind == "b":
        return prng.uniform(key, leaf.shape) < 0.7
    if leaf.dtype.kind not in "iu" or not leaf.size:
        return leaf
    low, high = int(leaf.min()), int(leaf.max())
    return prng.integers(key, leaf.shape, low=low, high=high + 1).astype(leaf.dtype)


def _with_new(one: Callable[[Key, Array], Array], *, x: bool = True) -> Redraw:
    def redraw(key: Key, inputs: Any, g: Any, keywords: dict[str, Any]) -> Any:
        params, given = inputs
        moved = _drawn((*key, 0), params, one), _drawn((*key, 1), given, one) if x else given
        return moved, normal_like((*key, 2), g), keywords

    return redraw


def _with_labels(key: Key, inputs: Any, g: Any, keywords: dict[str, Any]) -> Any:
    moved = _drawn((*key, 0), inputs, _repeated), _drawn((*key, 1), keywords, _repeated)
    same = all(
        np.array_equal(a, b)
        for a, b in zip(pytree.leaves((inputs, keywords)), pytree.leaves(moved), strict=True)
    )
    return None if same else (moved[0], normal_like((*key, 2), g), moved[1])


def _with_new_keywords(key: Key, inputs: Any, g: Any, keywords: dict[str, Any]) -> Any:
    if not any(leaf.dtype.kind == "f" and leaf.ndim for leaf in pytree.leaves(keywords)):
        return None
    return inputs, normal_like((*key, 2), g), _drawn((*key, 1), keywords, _anew)


def _with_broadcast_g(key: Key, inputs: Any, g: Any, keywords: dict[str, Any]) -> Any:
    def one(leaf: Array) -> Array:
        return np.broadcast_to(np.asarray(leaf.reshape(-1)[0]), leaf.shape) if leaf.size else leaf

    return inputs, pytree.map(one, normal_like(key, g)), keywords


KINDS: dict[str, Redraw] = {
    "params and x drawn anew": _with_new(_anew),
    "params drawn anew": _with_new(_anew, x=False),
    "params and x stretched, and zeros drawn anew": _with_new(_stretched),
    "ids that repeat and masks that hide": _with_labels,
    "floating keywords drawn anew": _with_new_keywords,
    "one number broadcast as g": _with_broadcast_g,
}
"""By what they are, in order of trial."""
