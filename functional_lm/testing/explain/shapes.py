"""What a result of the wrong shape is, from its numbers."""

import itertools
from typing import Any

import numpy as np

from .evidence import close
from .whole_leaf import Cause


def explain_shape(received: Any, exact: Any, others: dict[str, Any]) -> Cause:
    """Return the likely cause of a leaf of another shape than its primal's.

    Args:
        received: the array that vjp returned.
        exact: what it should be.
        others: the true gradients of the other leaves.
    """
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
