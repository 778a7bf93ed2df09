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
"""

import math
from collections.abc import Sequence

import numpy as np

from ..contract import Array

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
