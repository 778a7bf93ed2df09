"""Right algebra, wrong rounding: a narrower format somewhere, or a cancellation."""

from collections.abc import Iterator

import numpy as np

from ...contract import Array
from .evidence import Evidence, close
from .whole_leaf import Cause

_FORMATS = (("float32", 2.0**-24), ("float16", 2.0**-11), ("bfloat16", 2.0**-8))


def tiny(evidence: Evidence) -> Cause | None:
    """Right within what signatures can tell: too little for any of them."""
    if all(close(ours, exact, 1e-8) for ours, exact in evidence.pairs):
        return small(evidence)
    return None


def held(evidence: Evidence) -> Cause | None:
    """The result or a residual holds numbers of a narrower format, to the last bit."""
    error = _error(evidence)
    for name, unit in _FORMATS:
        holders = [path for path, a in _suspects(evidence) if _is_held(a, name)]
        if holders and error < 30 * unit:
            return "precision", (
                f"the algebra is right (off by {error:.0e}), but {holders[0]} holds {name} "
                "numbers: a cast or an intermediate of that dtype"
            )
    return None


def narrow(evidence: Evidence) -> Cause | None:
    """A float64 result that is off by about the rounding of a narrower format."""
    error = _error(evidence)
    for name, unit in _FORMATS:
        if unit / 30 < error < 30 * unit:
            return "precision", (
                f"the algebra looks right, and the error of {error:.0e} is that of {name} numbers: "
                "a cast or an intermediate of that dtype"
            )
    return None


def small(evidence: Evidence) -> Cause | None:
    """A float64 result that is off by little, and by nothing else that is known."""
    error = _error(evidence)
    if error > 1e-5:
        return None
    return "precision", (
        f"the algebra looks right, since the error is no more than {error:.0e}: the difference of "
        "two nearly equal numbers, or a constant with few digits"
    )


def _error(evidence: Evidence) -> float:
    size = float(np.linalg.norm(evidence.exact))
    return float(np.linalg.norm(evidence.ours - evidence.exact)) / size if size else 0.0


def in_float32(error: float, over_xla: float | None) -> Cause:
    """Explain a leaf that is right in float64 and inaccurate in float32."""
    for name, unit in _FORMATS[1:]:
        if unit / 30 < error < 30 * unit:
            return "precision", (
                f"right algebra, wrong rounding: right in float64, but off by {error:.0e} in "
                f"float32, as {name} numbers would be: a cast or an intermediate of that dtype"
            )
    times = "" if over_xla is None else f", {over_xla:.3g} times XLA's error"
    return "precision", (
        f"right algebra, wrong rounding: right in float64, but off by {error:.0e} in float32"
        f"{times}: a narrower intermediate, the difference of two large numbers, or a long sum "
        "without blocks"
    )


def _suspects(evidence: Evidence) -> Iterator[tuple[str, Array]]:
    yield "the result", evidence.ours
    for path, array in evidence.names[0].items():
        if path.startswith("residuals"):
            yield path, array


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
