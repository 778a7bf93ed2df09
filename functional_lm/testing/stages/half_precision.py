"""Half precision: whether what comes out in bfloat16 or float16 is right, inexact or wrong.

No fixed tolerance can tell. The truth T is the float64 oracle at the same rounded inputs, and an
error is measured in units of what rounding does to the problem itself. The unit S is the largest of

    what the reference loses when it computes in that dtype, every operation rounded,
    what T changes by when its inputs are rounded once more (the condition of the problem),
    a quarter of a unit in the last place of T,

all as root mean squares over draws. A result M with ‖M − T‖ ≤ 2 S is right. A larger error is split
into a systematic part b and a random one of variance σ²: inputs that differ by a few units in the
last place have the same b and other rounding errors, so that of K errors

    E‖mean‖² = ‖b‖² + σ²/K   and   E‖error‖² = ‖b‖² + σ²
    ⇒ ‖b‖² = (K ‖mean‖² − mean ‖error‖²) / (K − 1).

A mostly systematic error is a wrong formula, and a mostly random one inexact. Sums in half
precision that stagnate have systematic errors too; so where the layer also runs in float32, that
decides: an inexact layer is much more accurate there, a wrong one is not.
"""

import dataclasses
import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from ... import pytree
from ...contract import Array, Tree, is_floating
from .. import limits
from ..inputs import cast, jitter
from ..numeric import NumericOracle
from ..report import HalfReport
from ..subject import Examination, Subject
from .accuracy import rows

__all__ = ["HALF", "check_half"]

HALF = ("bfloat16", "float16")
POINTS, DITHERS = 3, 8  # draws of g, and of inputs and g a few units in the last place away
RIGHT = 2.0  # units of error that are allowed
WITHOUT = 4.0  # the unit over the condition, where the reference does not run in that dtype
MOSTLY = 0.7  # of the error
FAR_BETTER = 1 / 32  # the share of the error that an inexact layer has left in float32
ILL = 0.2  # of the norm of T; inputs that cancel but for the dither have 0.25


@dataclasses.dataclass
class _Errors:
    """The errors of one leaf: sums of squares over the draws."""

    truth: float = 0.0
    largest: float = 0.0  # of the whole tree, times the root of the size
    ours: float = 0.0
    mean: float = 0.0  # of the mean over the dithers of one point
    reference: float = 0.0
    condition: float = 0.0
    float32: float = 0.0
    along: float = 0.0  # ⟨M, T⟩, for a constant factor
    returned: float = 0.0  # ‖M‖²


def check_half(examination: Examination, dtype: str) -> None:
    """Judge every leaf in half precision; see the top of this file."""
    oracle, given = examination.oracle, examination.subject
    assert not isinstance(oracle, NumericOracle)
    subject = Subject(given.layer, given.keywords(np.float64), strict=True)
    sums: dict[str, _Errors] = {}
    with_reference = with_float32 = True
    for point in range(POINTS):
        base, base_g = examination.draw(0)[0], examination.draw(point)[1]
        errors: dict[str, list[Array]] = {}
        for inputs, g in _dithered(base, base_g, point, dtype):
            wide, wide_g = _wide((inputs, g))
            exact = oracle.results(wide, wide_g, "float64")
            again, again_g = jitter((point, 5), (wide, wide_g), spread=_unit(dtype))
            moved = oracle.results(again, again_g, "float64")
            half = subject.results(inputs, g, rounded(subject.keywords(np.float64), dtype))
            if not _fits(examination, exact, half, dtype):
                return
            theirs = _attempt(oracle.half_results, inputs, g, dtype) if with_reference else None
            with_reference = theirs is not None
            single = _attempt(_in_float32, subject, inputs, g) if with_float32 else None
            with_float32 = single is not None
            results = {"ours": half, "condition": moved, "reference": theirs, "float32": single}
            for name, result in results.items():
                for path, true, mine, largest in rows(exact, result) if result else ():
                    of = sums.setdefault(path, _Errors())
                    counts = np.abs(true) < limits.largest_number(dtype)
                    true, mine = np.where(counts, true, 0), np.where(counts, _wide(mine), 0)
                    square = _square(mine - true)
                    setattr(of, name, getattr(of, name) + square)
                    if name == "ours":
                        errors.setdefault(path, []).append(mine - true)
                        of.truth += _square(true)
                        of.largest += true.size * largest**2
                        of.along += float(np.sum(mine * true))
                        of.returned += _square(mine)
        for path, members in errors.items():
            sums[path].mean += _square(np.mean(members, axis=0)) * DITHERS
    for path, of in sums.items():
        leaf = _judged(path, dtype, of, with_reference, with_float32)
        examination.report.half.append(leaf)
        if not leaf.ok:
            _find(examination, leaf, of)


def rounded(tree: Tree, dtype: str) -> Tree:
    """Return the floating leaves in half precision."""
    return pytree.map(lambda leaf: leaf.astype(dtype) if is_floating(leaf) else leaf, tree)


def _wide(tree: Tree) -> Tree:
    """Return the floating leaves in float64."""
    return pytree.map(
        lambda leaf: np.asarray(leaf).astype(np.float64) if is_floating(leaf) else leaf, tree
    )


def _dithered(base: Any, g: Any, point: int, dtype: str) -> Iterator[tuple[Any, Any]]:
    """Yield the inputs and g a few units in the last place away, rounded."""
    for i in range(DITHERS):
        yield rounded(jitter((point, i, 3), (base, g), spread=4 * _unit(dtype)), dtype)


def _unit(dtype: str) -> float:
    """Return the unit roundoff."""
    return 2.0 ** -limits.FORMATS[dtype][0]


def _square(x: Array) -> float:
    return float(np.sum(np.square(x)))


def _attempt(function: Callable[..., Tree | None], *arguments: Any) -> Tree | None:
    """Return what a function returns; None if it raises."""
    try:
        return function(*arguments)
    except Exception:  # whatever code raises that is not made for this dtype
        return None


def _in_float32(subject: Subject, inputs: Any, g: Any) -> Tree | None:
    """Return the float32 results; None if any is in another dtype."""
    single, single_g = cast(_wide((inputs, g)), np.float32)
    found = subject.results(single, single_g, subject.keywords(np.float32))
    kinds = {leaf.dtype for leaf in pytree.leaves(found) if leaf is not None}
    return found if kinds == {np.dtype(np.float32)} else None


def _fits(examination: Examination, exact: Tree, half: Tree, dtype: str) -> bool:
    """Require the structure and the shapes of the oracle."""
    try:
        pairs = rows(exact, half)
    except (ValueError, TypeError) as error:
        examination.find("contract", f"{error} in {dtype}", dtype=dtype, cause="structure")
        return False
    for path, true, mine, _ in pairs:
        if np.shape(mine) != true.shape:
            what = f"{path} must have shape {true.shape} in {dtype}: got {np.shape(mine)}"
            examination.find("contract", what, leaf=path, dtype=dtype, cause="shape")
            return False
    return True


def _judged(path: str, dtype: str, of: _Errors, reference: bool, float32: bool) -> HalfReport:
    draws = POINTS * DITHERS
    size, ours, condition = (math.sqrt(x / draws) for x in (of.truth, of.ours, of.condition))
    floor = _unit(dtype) * max(size / 2, math.sqrt(of.largest / draws) / 16)
    theirs = math.sqrt(of.reference / draws) if reference else WITHOUT * condition
    unit = max(condition, floor, theirs if math.isfinite(theirs) else 0.0)
    systematic = math.sqrt(max(0.0, (DITHERS * of.mean - of.ours) / (DITHERS - 1) / draws))
    share = systematic / ours if ours else 0.0
    if not math.isfinite(ours):
        verdict = "wrong"
    elif ours <= RIGHT * unit:
        verdict = "ill-conditioned here" if condition > ILL * size else "right"
    elif float32:
        verdict = "inexact" if math.sqrt(of.float32 / draws) < FAR_BETTER * ours else "wrong"
    else:
        verdict = "wrong" if share > MOSTLY else "inexact"
    scale = size or 1.0
    return HalfReport(path, dtype, ours / scale, unit / scale, share, verdict)


def _find(examination: Examination, leaf: HalfReport, of: _Errors) -> None:
    """Add a finding, with what a single number can tell of the cause."""
    what = "inexact by a factor of" if leaf.verdict == "inexact" else "wrong: error"
    figure = f"{leaf.factor:.2g}" if leaf.verdict == "inexact" else f"{leaf.error:.1e}"
    message = f"{leaf.path} is {what} {figure} in {leaf.dtype}"
    cause, explanation = (
        "unknown",
        "if the layer takes float32 too, a check of that names the cause",
    )
    factor = of.along / of.truth if of.truth else 0.0
    rest = math.sqrt(max(0.0, of.returned - factor * of.along) / (of.truth or 1.0))
    if not math.isfinite(leaf.error):
        cause, explanation = "not finite", "it has NaN or infinity where the oracle has numbers"
    elif leaf.verdict == "inexact":
        cause, explanation = (
            "precision",
            "right algebra that rounds too often, or sums in this dtype",
        )
    elif not of.returned:
        cause, explanation = "never written", "it is zero"
    elif rest <= RIGHT * leaf.unit * max(1.0, abs(factor)):
        cause = "sign" if abs(factor + 1) < 0.05 else "constant factor"
        explanation = f"it is {factor:.3g} times what it should be"
    more = {"leaf": leaf.path, "dtype": leaf.dtype, "cause": cause, "explanation": explanation}
    examination.find("accuracy", message, **more)
