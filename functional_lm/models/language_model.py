"""The language model as a loss: tokens and targets to the mean cross-entropy.

Forward: backbone → unembedding and cross-entropy in one, so that the logits of all tokens never
exist together. ``vjp`` is the forward read upwards. The parameters are those of the `transformer`.

Shapes: tokens and targets (T,) or (B, T); the loss is a scalar, in nats per kept token.
"""

from typing import Any, NamedTuple

import numpy as np

from ..contract import Array, Key, Scalar, Tree, expect_tokens
from ..losses import linear_cross_entropy
from . import backbone, transformer
from .config import Config


class Residuals(NamedTuple):
    """What `vjp` needs: the residuals of the backbone and of the loss."""

    backbone: backbone.Residuals
    loss: linear_cross_entropy.Residuals
    tied: bool


def init(key: Key, *, config: Config, dtype: Any = np.float32) -> Tree:
    """Draw the parameters of the transformer; see `transformer.init`."""
    return transformer.init(key, config=config, dtype=dtype)


def forward(
    params: Tree,
    tokens: Array,
    *,
    targets: Array,
    config: Config,
    key: Key | None = None,
    recompute: bool = False,
) -> tuple[Scalar, Residuals]:
    """Return the mean loss of predicting ``targets[..., t]`` from ``tokens[..., : t + 1]``.

    Targets of −100 do not count. No key: no dropout.

    Args:
        params: from `init`.
        tokens: integers (T,) or (B, T).
        targets: integers of that shape.
        config: sizes and settings.
        key: randomness of dropout.
        recompute: leave the gradient of the head to the vjp; for evaluation, which needs none.

    Raises:
        TypeError: for tokens or targets that are not integers.
        ValueError: for more than ``max_seq_len`` tokens, or an id outside ``[0, V)``.
    """
    body, table = transformer.split_head(params, config)
    transformer.expect_sequences(tokens, config)
    expect_tokens("targets", targets, config.vocab_size, ignore_index=-100)
    x, r_backbone = backbone.forward(body, np.atleast_2d(tokens), config=config, key=key)
    x = x.reshape(*tokens.shape, config.d_model)
    loss, r_loss = linear_cross_entropy.forward(table, x, targets=targets, recompute=recompute)
    return loss, Residuals(r_backbone, r_loss, config.tie_embeddings)


def vjp(residuals: Residuals, g: Any) -> tuple[Tree, None]:
    """Return ``(d_params, None)`` for the scalar cotangent g."""
    d_table, d_x = linear_cross_entropy.vjp(residuals.loss, g)
    d_x = d_x.reshape(residuals.backbone.norm.x_hat.shape)  # a text alone is a batch of one
    return transformer.vjp_below_head(residuals.backbone, d_x, d_table, tied=residuals.tied)
