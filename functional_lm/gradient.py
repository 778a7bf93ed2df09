"""From a layer with a scalar output to the gradient of its parameters, and to its curvature."""

import contextlib
import contextvars
import math
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import numpy as np

from . import pytree
from .contract import Array, Differentiable, Key, Layer, Scalar, Tree, expect_int, pack, unpack
from .numerics import rows, softmax, softmax_vjp
from .prng import normal

__all__ = [
    "ValueAndGrad",
    "gauss_newton_product",
    "hessian_product",
    "lanczos",
    "ready",
    "value_and_grad",
    "when_ready",
]

_told: contextvars.ContextVar[Any] = contextvars.ContextVar("told", default=None)


def ready(path: str, d_params: Tree) -> Tree:
    """Return a part of a gradient that is complete, such as that of ``blocks.3``; see `when_ready`.

    A ``vjp`` may say so of parts that it has before others.
    """
    if (tell := _told.get()) is not None:
        tell(path, d_params)
    return d_params


@contextlib.contextmanager
def when_ready(tell: Callable[[str, Tree], None]) -> Iterator[None]:
    """Have ``tell(path, d_params)`` called with each part of a gradient as soon as it is `ready`.

    Another process can add it meanwhile. The part is not to be written to.
    """
    before = _told.set(tell)
    try:
        yield
    finally:
        _told.reset(before)


class ValueAndGrad(Protocol):
    """`value_and_grad`, or a replacement for it in a training loop, such as `sharded`."""

    def __call__(
        self, layer: Differentiable, params: Tree, x: Any, **side: Any
    ) -> tuple[Scalar, Tree]:
        """Return ``(loss, d_params)``."""


def value_and_grad(
    layer: Differentiable, params: Tree, x: Any, *, cotangent: float = 1.0, **side: Any
) -> tuple[Scalar, Tree]:
    """Run a loss forward and back.

    Args:
        layer: anything with ``forward`` and ``vjp`` whose output is a scalar.
        params: its parameters.
        x: its positional input.
        cotangent: of the loss; the gradient is multiplied by it.
        **side: its keyword-only inputs.

    Returns:
        ``(loss, d_params)``; ``d_params`` has the structure, shapes and dtypes of ``params``.

    Raises:
        ValueError: if the output is not a scalar.
    """
    loss, residuals = layer.forward(params, x, **side)
    if np.shape(loss) != ():
        raise ValueError(
            f"value_and_grad needs a scalar loss: got shape {np.shape(loss)}; "
            "end the model with a loss, or call forward and vjp with a cotangent of that shape"
        )
    d_params, _ = layer.vjp(residuals, np.full_like(loss, cotangent))
    return loss, d_params


def gauss_newton_product(layer: Layer, params: Tree, x: Any, vector: Tree, **side: Any) -> Tree:
    """Return G·v, with G the Gauss-Newton matrix of the mean cross-entropy of logits.

    G = Jᵀ·H·J, with J the Jacobian of the logits z (N, V) by the parameters and H the Hessian of
    the loss by the logits. For p = softmax(z), ∂loss/∂z = (p − onehot)/N in each row, hence

        H·t = p·(t − Σ p·t)/N

    The targets drop out. G is symmetric and positive semidefinite. It is the Hessian of the loss
    without the second derivatives of the logits (Schraudolph 2002, section 3).

    Args:
        layer: its ``forward`` returns logits (..., V), and it has a ``jvp``. An auxiliary loss
            beside the logits does not count.
        params: its parameters.
        x: its positional input.
        vector: v, like params; None for a leaf that is not trained, which is then None in G·v.
        **side: its keyword-only inputs.

    Raises:
        AttributeError: for a layer without a ``jvp``, or one inside.
        ValueError: for a vector that is not like params.
    """
    output, residuals = layer.forward(params, x, **side)
    logits, auxiliary = unpack(output)
    t_params = pytree.map(lambda p, v: np.zeros_like(p) if v is None else v, params, vector)
    t_x = pytree.map(lambda leaf: np.zeros_like(leaf) if leaf.dtype.kind == "f" else None, x)
    t_logits, _ = unpack(layer.jvp(residuals, (t_params, t_x)))
    g = softmax_vjp(softmax(logits), t_logits) / max(len(rows(logits)), 1)  # H is symmetric
    unread = None if auxiliary is None else np.zeros_like(auxiliary)
    d_params, _ = layer.vjp(residuals, pack(g, unread))
    return pytree.map(lambda p, v, d: None if v is None else d, params, vector, d_params)


def hessian_product(layer: Differentiable, params: Tree, x: Any, vector: Tree, **side: Any) -> Tree:
    """Return H·v, with H the Hessian of a loss, by differences of its gradient.

    H·v = (∇L(θ + h·v) − ∇L(θ − h·v))/2h + O(h²), with ‖h·v‖ = ∛ε·‖θ‖ for the rounding ε of the
    dtype: about ten digits are right in float64 and four in float32.

    Args:
        layer: a loss, as in `value_and_grad`.
        params: θ.
        x: its positional input.
        vector: v, like params; None for a leaf that is not trained, which is then None in H·v.
        **side: its keyword-only inputs.
    """
    eps = max((float(np.finfo(leaf.dtype).eps) for leaf in pytree.leaves(params)), default=0.0)
    h = eps ** (1 / 3) * (_norm(params) or 1.0) / (_norm(vector) or 1.0)

    def gradient(h: float) -> Tree:
        moved = pytree.map(lambda p, v: p if v is None else p + h * v, params, vector)
        return value_and_grad(layer, moved, x, **side)[1]

    def difference(p: Array, v: Any, above: Any, below: Any) -> Any:
        return None if v is None else (above - below) * (0.5 / h)

    return pytree.map(difference, params, vector, gradient(h), gradient(-h))


def lanczos(
    product: Callable[[Tree], Tree], like: Tree, key: Key, *, steps: int
) -> tuple[Array, Array]:
    """Return approximate eigenvalues of a symmetric matrix, the largest first.

    The matrix on the space of the first m vectors A^i·q, for a random q, is tridiagonal (Lanczos
    1950), and its eigenvalues approach those of A from the ends of the spectrum. Each new vector
    is made orthogonal to all before it, twice, so that rounding makes no copies.

    Args:
        product: maps v to A·v, trees like ``like``.
        like: a tree of arrays, for the shapes and dtypes of v.
        key: of q.
        steps: m, the products to take; fewer are taken if the space closes earlier.

    Returns:
        The eigenvalues (m,) float64, the largest first, and for each how far an eigenvalue of A is
        from it at most, but for rounding.

    Raises:
        ValueError: for a ``like`` without arrays.
    """
    leaves = pytree.leaves(like)
    if not leaves:
        raise ValueError(f"like must hold arrays: got {like!r}; pass the parameters")
    ends = np.cumsum([leaf.size for leaf in leaves])
    size = int(ends[-1])
    steps = min(expect_int("steps", steps), size)

    def tree(flat: Array) -> Tree:
        parts = iter(np.split(flat, ends[:-1]))
        return pytree.map(lambda leaf: next(parts).reshape(leaf.shape).astype(leaf.dtype), like)

    basis, diagonal, beside = np.zeros((steps, size)), np.zeros(steps), np.zeros(steps)
    after = normal(key, (size,), dtype=np.float64)
    for i in range(steps):
        basis[i] = after / np.linalg.norm(after)
        after = _flat(product(tree(basis[i])))
        diagonal[i] = basis[i] @ after
        for _ in range(2):
            after -= (basis[: i + 1] @ after) @ basis[: i + 1]
        beside[i] = np.linalg.norm(after)
        if beside[i] <= 1e-12 * np.abs(diagonal).max():
            steps = i + 1
            break
    values, vectors = np.linalg.eigh(
        np.diag(diagonal[:steps])
        + np.diag(beside[: steps - 1], 1)
        + np.diag(beside[: steps - 1], -1)
    )
    return values[::-1], (beside[steps - 1] * np.abs(vectors[-1]))[::-1]


def _flat(tree: Tree) -> Array:
    return np.concatenate([np.ravel(leaf).astype(np.float64) for leaf in pytree.leaves(tree)])


def _norm(tree: Tree) -> float:
    return math.sqrt(sum(float(np.vdot(leaf, leaf)) for leaf in pytree.leaves(tree)))
