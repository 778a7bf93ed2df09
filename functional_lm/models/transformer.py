"""The decoder-only transformer: tokens to logits.

Forward: backbone → unembedding. With tied embeddings the unembedding reads the embedding's weight,
and the two cotangents of that weight add.

Shapes: tokens (T,) or (B, T); logits (T, V) or (B, T, V).
"""

from typing import Any, NamedTuple

import numpy as np

from ..contract import Array, Key, Tree, expect_params, expect_tokens
from ..layers import unembedding
from ..prng import fold_in
from . import backbone
from .config import MAX_PARAMETERS as MAX_PARAMETERS
from .config import PRESETS as PRESETS
from .config import Config as Config


class Residuals(NamedTuple):
    """What `vjp` needs: the residuals of each layer."""

    backbone: backbone.Residuals
    unembedding: unembedding.Residuals
    tied: bool
    batched: bool  # whether tokens came as (B, T)


def init(key: Key, *, config: Config, dtype: Any = np.float32) -> Tree:
    """Draw the parameters of the `backbone` and, if not tied, ``unembedding``."""
    params = backbone.init(key, config=config, dtype=dtype)
    if not config.tie_embeddings:
        table = {"vocab_size": config.vocab_size, "d_model": config.d_model, "dtype": dtype}
        params["unembedding"] = unembedding.init(fold_in(key, 2), **table)
    return params


def forward(
    params: Tree, tokens: Array, *, config: Config, key: Key | None = None
) -> tuple[Array, Residuals]:
    """Return the logits of the next token at every position. No key: no dropout.

    Args:
        params: from `init`.
        tokens: integers (T,) or (B, T).
        config: sizes and settings.
        key: randomness of dropout.

    Returns:
        Logits (T, V) or (B, T, V), and the residuals.

    Raises:
        TypeError: for tokens that are not integers.
        ValueError: for more than ``max_seq_len`` tokens, or an id outside ``[0, V)``.
    """
    body, table = split_head(params, config)
    batched = expect_sequences(tokens, config)
    x, r_backbone = backbone.forward(body, np.atleast_2d(tokens), config=config, key=key)
    logits, r_unembedding = unembedding.forward(table, x)  # (B, T, V)
    residuals = Residuals(r_backbone, r_unembedding, config.tie_embeddings, batched)
    return logits if batched else logits[0], residuals


def vjp(residuals: Residuals, g: Array) -> tuple[Tree, None]:
    """Return ``(d_params, None)`` for the cotangent g of the logits."""
    g = g if residuals.batched else g[None]
    d_table, g = unembedding.vjp(residuals.unembedding, g)
    return vjp_below_head(residuals.backbone, g, d_table, tied=residuals.tied)


def split_head(params: Tree, config: Config) -> tuple[Tree, Tree]:
    """Return the parameters of the backbone and those of the unembedding."""
    tied = config.tie_embeddings
    expect_params(params, ["embedding", "blocks", "norm"] + ["unembedding"] * (not tied))
    body = {name: params[name] for name in ("embedding", "blocks", "norm")}
    return body, params["embedding" if tied else "unembedding"]


def vjp_below_head(
    residuals: backbone.Residuals, g: Array, d_table: Tree, *, tied: bool
) -> tuple[Tree, None]:
    """Return the vjp of the backbone, joined with the cotangent that the head gave its table."""
    if tied:
        return backbone.vjp_tied(residuals, g, d_table)
    d_body, _ = backbone.vjp(residuals, g)
    return {**d_body, "unembedding": d_table}, None  # tokens are labels


def expect_sequences(tokens: Any, config: Config) -> bool:
    """Require tokens (T,) or (B, T); tell whether they are batched."""
    expect_tokens("tokens", tokens, config.vocab_size)
    if tokens.ndim not in (1, 2):
        raise ValueError(f"tokens must have shape (T,) or (B, T): got {tokens.shape}; reshape them")
    return tokens.ndim == 2
