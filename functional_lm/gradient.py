"""From a layer with a scalar output to the gradient of its parameters."""

from typing import Any, Protocol

import numpy as np

from .contract import Differentiable, Scalar, Tree

__all__ = ["ValueAndGrad", "value_and_grad"]


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
