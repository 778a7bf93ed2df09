"""Errors in units in the last place, for any binary floating format and any value.

NumPy's `spacing` gives infinity at the largest numbers and its `assert_array_max_ulp` overflows
there; both refuse bfloat16. Here the unit comes from the exponent alone, in float64.
"""

from typing import Any

import numpy as np

from ..contract import Array

FORMATS = {  # significant bits with the hidden one, smallest and largest normal exponent
    "float16": (11, -14, 15),
    "bfloat16": (8, -126, 127),
    "float32": (24, -126, 127),
    "float64": (53, -1022, 1023),
}


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
