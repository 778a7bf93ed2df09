"""The language model as a loss: tokens and targets to the mean cross-entropy.

Forward: transformer → cross-entropy. ``vjp`` is the forward read upwards.

Shapes: tokens and targets (T,) or (B, T); the loss is a scalar, in nats per kept token.
"""

from typing import Any, NamedTuple

import numpy as np

from ..contract import Array, Key, Scalar, Tree
from ..losses import cross_entropy
from . import transformer
from .transformer import Config


class Residuals(NamedTuple):
    """What `vjp` needs: the residuals of the model and of the loss."""

    transformer: transformer.Residuals
    cross_entropy: cross_entropy.Residuals


def init(key: Key, *, config: Config, dtype: Any = np.float32) -> Tree:
    """Draw the parameters of the transformer; see `transformer.init`."""
    return transformer.init(key, config=config, dtype=dtype)


def forward(
    params: Tree, tokens: Array, *, targets: Array, config: Config, key: Key | None = None
) -> tuple[Scalar, Residuals]:
    """Return the mean loss of predicting ``targets[..., t]`` from ``tokens[..., : t + 1]``.

    Targets of −100 do not count. No key: no dropout.

    Raises:
        TypeError: for tokens or targets that are not integers.
        ValueError: for more than ``max_seq_len`` tokens, or an id outside ``[0, V)``.
    """
    logits, r_transformer = transformer.forward(params, tokens, config=config, key=key)
    loss, r_cross_entropy = cross_entropy.forward({}, logits, targets=targets)
    return loss, Residuals(r_transformer, r_cross_entropy)


def vjp(residuals: Residuals, g: Any) -> tuple[Tree, None]:
    """Return ``(d_params, None)`` for the scalar cotangent g."""
    _, d_logits = cross_entropy.vjp(residuals.cross_entropy, g)
    return transformer.vjp(residuals.transformer, d_logits)
