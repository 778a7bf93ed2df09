"""Clipping of the gradient by its norm (Pascanu, Mikolov and Bengio 2013)."""

import math

import numpy as np

from .. import pytree
from ..contract import Tree, expect_number
from ..entrywise import entrywise
from .transformation import GradientTransformation


def clip_by_global_norm(max_norm: float) -> GradientTransformation:
    """Scale the gradient so that the norm of all leaves together is at most ``max_norm``.

    The norm is accumulated in float64. A gradient within the bound, also one of norm zero, goes
    through unchanged.

    Raises:
        FloatingPointError: from ``update``, if a gradient is not finite; it names the first leaf.
    """
    max_norm = expect_number("max_norm", max_norm, low=0.0)

    def init(params: Tree) -> tuple[()]:
        return ()

    def update(grads: Tree, state: tuple[()], params: Tree) -> tuple[Tree, tuple[()]]:
        norm = pytree.global_norm(grads)
        if not math.isfinite(norm):
            raise FloatingPointError(_first_bad_leaf(grads))
        if norm <= max_norm:
            return grads, state
        factor = max_norm / norm
        return entrywise(lambda g, out: np.multiply(g, factor, out=out), grads), state

    return GradientTransformation(init, update)


def _first_bad_leaf(grads: Tree) -> str:
    for path, leaf in pytree.leaves_with_path(grads):
        finite = np.isfinite(leaf)
        if not finite.all():
            value = leaf[~finite].flat[0]
            return (
                f"the gradient must be finite: {path} has {leaf.size - finite.sum()} entries that "
                f"are not, the first is {value}; lower the learning rate or look at the batch"
            )
    return "the norm of the gradient must be finite: it overflows float64; look at the loss"
