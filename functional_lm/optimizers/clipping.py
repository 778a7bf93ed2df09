"""Clipping of the gradient by its norm (Pascanu, Mikolov and Bengio 2013)."""

import math

import numpy as np

from .. import pytree
from ..contract import Tree, expect_number
from ..speed.entrywise import entrywise, global_norm
from .transformation import GradientTransformation, by_entry

__all__ = ["clip_by_global_norm"]


def clip_by_global_norm(max_norm: float) -> GradientTransformation:
    """Scale the gradient so that the norm of all leaves together is at most ``max_norm``.

    The norm is accumulated in float64. A gradient within the bound stays as it is.

    Raises:
        FloatingPointError: from ``update``, if a gradient is not finite; it names the first leaf.
    """
    max_norm = expect_number("max_norm", max_norm, low=0.0)

    def init(params: Tree) -> tuple[()]:
        return ()

    def update(
        grads: Tree, state: tuple[()], params: Tree, norm: float | None = None
    ) -> tuple[Tree, tuple[()]]:
        norm = global_norm(grads) if norm is None else norm
        if not math.isfinite(norm):
            found = pytree.first_not_finite(grads) or "it overflows float64"
            raise FloatingPointError(
                f"the gradient must be finite: {found}; lower the learning rate, or look at the "
                "batch"
            )
        if norm <= max_norm:
            return grads, state
        factor = max_norm / norm
        return entrywise(lambda g, out: np.multiply(g, factor, out=out), grads), state

    return GradientTransformation(init, update, by_entry)
