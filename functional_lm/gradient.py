"""From a layer with a scalar output to the gradient of its parameters."""

from typing import Any

import numpy as np

from .contract import Differentiable, Scalar, Tree


def value_and_grad(layer: Differentiable, params: Tree, x: Any, **side: Any) -> tuple[Scalar, Tree]:
    """Run a loss forward and back, with the cotangent 1.

    Args:
        layer: anything with ``forward`` and ``vjp`` whose output is a scalar.
        params: its parameters.
        x: its positional input.
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
    d_params, _ = layer.vjp(residuals, np.ones_like(loss))
    return loss, d_params
