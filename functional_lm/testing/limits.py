"""How large an error may be.

float64: each leaf is within 1e-11 of the oracle, relative to its norm. A true gradient can be
exactly zero (softmax does not see a constant added to all keys), so there is a floor of rounding
relative to the largest entry of the whole gradient. Where XLA's float32 error is known, the limit
is tighter still: that error is what the conditioning of the formula makes of rounding, and in
float64 the same formula has 2⁻²⁹ of it. Only where XLA's float32 is off by more than a thousandth
(a softmax whose rows are saturated: the true gradient is a difference of equal numbers) does the
oracle itself not have the digits for 1e-11; there the limit is four times its own rounding.

float32: as accurate as XLA. With T the float64 oracle at the same float32 inputs, M our result and
J JAX's in float32, all as root mean squares over the draws, ‖M − T‖ may be ``factor`` times
‖J − T‖, plus a few units of rounding of what is computed. No fixed tolerance would do: the error
of attention at large scores is a thousand times that at small ones, in XLA as here.

Units in the last place are for any binary floating format and any value. NumPy's `spacing` gives
infinity at the largest numbers and its `assert_array_max_ulp` overflows there; both refuse
bfloat16. Here the unit comes from the exponent alone, in float64.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..contract import Array

__all__ = [
    "FORMATS",
    "SMALLEST_NORMAL",
    "UNIT_ROUNDOFF",
    "float32_limit",
    "float64_limit",
    "flush",
    "largest_number",
    "norm",
    "root_mean_square",
    "ulp_error",
    "unit_in_last_place",
]

UNIT_ROUNDOFF = 2.0**-24  # of float32
SMALLEST_NORMAL = 2.0**-126  # of float32; XLA's CPU flushes what is below
FLOAT64_OVER_FLOAT32 = 2.0**-29  # their units of rounding


def norm(x: Array) -> float:
    """Return the Euclidean norm, in float64."""
    return float(np.sqrt(np.sum(np.square(np.asarray(x, np.float64)))))


def root_mean_square(values: Sequence[float]) -> float:
    """Return the root of the mean square; NaN if any value is."""
    return math.sqrt(sum(value * value for value in values) / len(values))


def float64_limit(
    oracle: Array,
    largest: float,
    *,
    tolerance: float = 1e-11,
    xla_error: float | None = None,
) -> float:
    """Return the largest ‖ours − oracle‖ allowed in float64.

    Args:
        oracle: the leaf that JAX computed.
        largest: the largest absolute entry of the whole tree.
        tolerance: the relative error allowed; larger for an oracle that is itself approximate.
        xla_error: ‖XLA's float32 − oracle‖ of this leaf, where it is known.
    """
    size, floor = norm(oracle), math.sqrt(oracle.size) * largest
    limit = tolerance * (size + 1e-2 * floor)
    if xla_error is None:
        return limit
    rounding = 64 * UNIT_ROUNDOFF * (size + floor) + 64 * xla_error
    limit = min(limit, FLOAT64_OVER_FLOAT32 * rounding)
    return max(limit, FLOAT64_OVER_FLOAT32 * 4 * xla_error)


def float32_limit(
    xla_error: float, oracle_norm: float, size: int, largest: float, factor: float
) -> float:
    """Return the largest root mean square of ‖ours − oracle‖ allowed in float32."""
    return factor * xla_error + 4 * UNIT_ROUNDOFF * (oracle_norm + math.sqrt(size) * largest)


def flush(x: Array) -> Array:
    """Return float64 with entries below the smallest normal float32 set to zero."""
    x = np.asarray(x, np.float64)
    return np.where(np.abs(x) < SMALLEST_NORMAL, 0.0, x)


FORMATS = {  # significant bits with the hidden one, smallest and largest normal exponent
    "float16": (11, -14, 15),
    "bfloat16": (8, -126, 127),
    "float32": (24, -126, 127),
    "float64": (53, -1022, 1023),
}


def largest_number(name: str) -> float:
    """Return the largest finite number of a format.

    >>> largest_number("float16")
    65504.0
    """
    bits, _, highest = FORMATS[name]
    return math.ldexp(2.0 - 2.0 ** (1 - bits), highest)


def unit_in_last_place(value: Any, dtype: Any) -> Array:
    """Return the distance of neighbouring numbers of a format around each value, as float64.

    With p significant bits and 2ᵉ ≤ |value| < 2ᵉ⁺¹ it is 2^(e − p + 1); below the smallest normal
    number it stays at that of the smallest. Infinity and NaN give NaN.

    Args:
        value: anything that converts to float64.
        dtype: float16, bfloat16, float32 or float64, or its name.

    Raises:
        ValueError: for another format.

    >>> float(unit_in_last_place(1.0, "float32")) == 2.0**-23
    True
    """
    name = dtype if isinstance(dtype, str) else np.dtype(dtype).name
    if name not in FORMATS:
        raise ValueError(f"dtype must be one of {', '.join(FORMATS)}: got {name}; cast first")
    bits, lowest, highest = FORMATS[name]
    value = np.abs(np.asarray(value, np.float64))
    exponent = np.where(value == 0, lowest, np.clip(np.frexp(value)[1] - 1, lowest, highest))
    unit = np.ldexp(1.0, np.maximum(exponent - bits + 1, -1074))
    return np.where(np.isfinite(value), unit, np.nan)


def ulp_error(got: Any, exact: Any, dtype: Any) -> Array:
    """Return |got − exact| in units in the last place of the exact value, entry by entry.

    A correctly rounded result has at most ½. The same infinity on both sides gives 0, anything
    else that is not finite NaN or infinity.

    Args:
        got: the result, of the format.
        exact: what it should be, in float64.
        dtype: the format.

    >>> float(ulp_error(np.float32(1) + np.float32(2**-23), 1.0, "float32"))
    1.0
    """
    got = np.asarray(got).astype(np.float64)
    exact = np.asarray(exact, np.float64)
    with np.errstate(invalid="ignore", over="ignore"):
        # Halves, since the difference of the two largest numbers overflows.
        error = np.abs(got / 2 - exact / 2) / unit_in_last_place(exact, dtype) * 2
    same = np.isinf(exact) & (got == exact)
    return np.where(same, 0.0, error)
