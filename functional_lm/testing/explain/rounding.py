"""Right algebra, wrong rounding: a narrower format somewhere, or a cancellation."""

import numpy as np

from ...contract import Array
from ..inputs import jitter
from .evidence import Cause, Evidence, close, leaf_of

__all__ = ["held", "in_float32", "noisy", "small", "tiny"]

NEIGHBOURS = 6

_FORMATS = (("float32", 2.0**-24), ("float16", 2.0**-11), ("bfloat16", 2.0**-8))


def tiny(evidence: Evidence) -> Cause | None:
    """Right within what signatures can tell: too little for any of them."""
    if all(close(ours, exact, 1e-8) for ours, exact in evidence.pairs):
        return small(evidence)
    return None


def held(evidence: Evidence) -> Cause | None:
    """The result or a residual holds numbers of a narrower format, to the last bit."""
    error = _error(evidence)
    suspects = {"the result": evidence.ours} | {
        path: array for path, array in evidence.names[0].items() if path.startswith("residuals")
    }
    for name, unit in _FORMATS:
        holders = [path for path, array in suspects.items() if _is_held(array, name)]
        if holders and error < 30 * unit:
            return "precision", (
                f"the algebra is right (off by {error:.0e}), but {holders[0]} holds {name} "
                "numbers: a cast or an intermediate of that dtype"
            )
    return None


def noisy(evidence: Evidence) -> Cause | None:
    """A float64 result off by about the rounding of a narrower format, and as if by chance."""
    name = _format_of(_error(evidence), _FORMATS)
    return small(evidence) if name and _is_noise(evidence, dict(_FORMATS)[name]) else None


def small(evidence: Evidence) -> Cause | None:
    """The same, or a result off by very little."""
    error = _error(evidence)
    name = _format_of(error, _FORMATS)
    if name and not _is_noise(evidence, dict(_FORMATS)[name]):
        name = ""
    if not name and error > 1e-5:
        return None
    why = f"as {name} numbers would be: a cast or an intermediate of that dtype"
    if not name:
        why = "by the difference of two nearly equal numbers, or a constant with few digits"
    return "precision", f"the algebra looks right: it is off by {error:.0e}, {why}"


def _is_noise(evidence: Evidence, unit: float) -> bool:
    """Tell whether the error is another one at inputs a few roundings away.

    That of a wrong formula is the same there, to a few roundings.
    """
    c, examination = evidence.comparisons[0], evidence.examination
    here = (evidence.ours - evidence.exact).reshape(-1)
    alike = []
    for i in range(NEIGHBOURS):
        moved = jitter((9, i), c.inputs, 16 * unit)
        ours = examination.oracle.project(examination.subject.results(moved, c.g))
        exact = examination.oracle.results(moved, c.g, "float64")
        there = (leaf_of(ours, evidence.path) - leaf_of(exact, evidence.path)).reshape(-1)
        sizes = float(np.linalg.norm(here) * np.linalg.norm(there))
        alike.append(float(here @ there) / sizes if sizes else 0.0)
    return float(np.mean(alike)) < 0.5


def _format_of(error: float, formats: tuple[tuple[str, float], ...]) -> str:
    """Return the format whose rounding makes an error of this size, or "" if none does."""
    return next((name for name, unit in formats if unit / 30 < error < 30 * unit), "")


def _error(evidence: Evidence) -> float:
    size = float(np.linalg.norm(evidence.exact))
    return float(np.linalg.norm(evidence.ours - evidence.exact)) / size if size else 0.0


def in_float32(error: float, over_xla: float | None) -> Cause:
    """Explain a leaf that is right in float64 and inaccurate in float32."""
    name = _format_of(error, _FORMATS[1:])
    why = f", as {name} numbers would be: a cast or an intermediate of that dtype"
    if not name:
        times = "" if over_xla is None else f", {over_xla:.3g} times XLA's error"
        why = (
            f"{times}: a narrower intermediate, the difference of two large numbers, or a long sum "
            "without blocks"
        )
    text = f"right algebra, wrong rounding: right in float64, but off by {error:.0e} in float32"
    return "precision", text + why


def _is_held(array: Array, name: str) -> bool:
    """Tell whether all entries are numbers of a narrow format, and not simple ones like 0.5."""
    if array.size < 3 or not np.isfinite(array).all():
        return False
    with np.errstate(all="ignore"):
        if name == "bfloat16":
            bits = array.astype(np.float32).view(np.uint32)
            held = (bits & 0xFFFF == 0) & (array == array.astype(np.float32))
        else:
            held = array == array.astype(name)
    simple = array * 2**6 == np.round(array * 2**6)
    return bool(held.all() and np.count_nonzero(~simple) >= max(3, array.size // 2))
