"""Half precision: whether what comes out in bfloat16 or float16 is right, inexact or wrong.

No fixed tolerance can tell. Here the truth T is the float64 oracle at the same rounded inputs, and
the unit S of an error is what rounding does to the problem itself, the largest of

    what the reference loses when it computes in that dtype, every operation rounded,
    what T changes by when its inputs are rounded once more (the condition of the problem),
    half a unit in the last place of T.

All are root mean squares over draws. The result M is right if ‖M − T‖ ≤ 4 S. Beyond that the error
is split. Inputs that differ by a few units in the last place have other rounding errors, so their
mean is small; what stays in the mean is systematic:

    E‖mean of K errors‖² = ‖b‖² + σ²/K   and   E‖error‖² = ‖b‖² + σ²
    ⇒ ‖b‖² = (K‖mean‖² − mean ‖error‖²) / (K − 1)

An error that is mostly systematic is a wrong formula; one that is mostly random is inexact.
"""

from typing import Any

import numpy as np

from .. import pytree
from ..contract import Tree
from . import limits
from .accuracy import rows
from .inputs import jitter, normal_like
from .oracle import JaxOracle
from .subject import Examination

__all__ = ["DTYPES", "check_half"]

DTYPES = ("bfloat16", "float16")
POINTS, DITHERS = 3, 8


def rounded(tree: Tree, dtype: str) -> Tree:
    """Return the floating leaves in half precision."""
    return pytree.map(
        lambda leaf: leaf.astype(np.dtype(dtype)) if leaf.dtype.kind == "f" else leaf, tree
    )


def widened(tree: Tree) -> Tree:
    """Return what is in half precision as float64."""
    return pytree.map(
        lambda leaf: leaf.astype(np.float64) if _is_number(leaf) else leaf, tree
    )


def _is_number(leaf: Any) -> bool:
    return leaf.dtype.kind == "f" or leaf.dtype.name == "bfloat16"
