"""The transformer without its head: tokens to normalised vectors.

Forward: embedding → dropout → blocks → norm. ``vjp`` is the forward read upwards.

Shapes: tokens (B, T); y (B, T, D).
"""

from typing import Any, NamedTuple

import numpy as np

from ..compose import remat
from ..contract import (
    Array,
    Key,
    Layer,
    Tree,
    expect_floating,
    expect_params,
    expect_shape,
    expect_tokens,
)
from ..layers import dropout, embedding, rms_norm
from ..prng import fold_in
from . import transformer_block
from .config import Config


class Residuals(NamedTuple):
    """What `vjp` needs: the residuals of each layer."""

    embedding: embedding.Residuals
    dropout: dropout.Residuals
    blocks: tuple[Any, ...]
    norm: rms_norm.Residuals
    remat: bool


def init(key: Key, *, config: Config, dtype: Any = np.float32) -> Tree:
    """Draw the parameters: ``embedding``, ``blocks`` and ``norm``.

    Embeddings come from N(0, 0.02²), each matrix from N(0, 2/(d_in + d_out)); the two matrices of
    a block that write to the residual path are scaled by 1/√(2·n_layers), so that the variance
    there does not grow with depth (Radford et al. 2019, section 2.3).
    """
    block = {
        "d_model": config.d_model,
        "n_heads": config.n_heads,
        "n_kv_heads": config.n_kv_heads,
        "d_ff": config.d_ff,
        "output_scale": (2 * config.n_layers) ** -0.5,
        "dtype": dtype,
    }
    table = {"vocab_size": config.vocab_size, "d_model": config.d_model, "dtype": dtype}
    return {
        "embedding": embedding.init(fold_in(key, 0), **table),
        "blocks": tuple(
            transformer_block.init(block_key, **block)
            for block_key in (fold_in(fold_in(key, 1), i) for i in range(config.n_layers))
        ),
        "norm": rms_norm.init(d_model=config.d_model, dtype=dtype),
    }


def forward(
    params: Tree, tokens: Array, *, config: Config, key: Key | None = None
) -> tuple[Array, Residuals]:
    """Return a vector of root mean square near the norm's scale for each token, (B, T, D).

    Args:
        params: from `init`.
        tokens: integers (B, T).
        config: sizes and settings.
        key: randomness of dropout. No key: no dropout.

    Raises:
        TypeError: for tokens that are not integers.
        ValueError: for more than ``max_seq_len`` tokens, or an id outside ``[0, V)``.
    """
    expect_params(params, ["embedding", "blocks", "norm"])
    _expect_sequences(tokens, params, config)
    positions = np.arange(tokens.shape[1])

    x, r_embedding = embedding.forward(params["embedding"], tokens)  # (B, T, D)
    x, r_dropout = dropout.forward({}, x, rate=config.dropout, key=fold_in(key, 0))
    r_blocks = []
    for i, block in enumerate(params["blocks"]):
        x, r_block = _block(config.remat).forward(
            block,
            x,
            n_heads=config.n_heads,
            n_kv_heads=config.n_kv_heads,
            positions=positions,
            norm_eps=config.norm_eps,
            rope_theta=config.rope_theta,
            rope_pairing=config.rope_pairing,
            attention=config.attention,
            dropout=config.dropout,
            key=fold_in(key, i + 1),
        )
        r_blocks.append(r_block)
    y, r_norm = rms_norm.forward(params["norm"], x, eps=config.norm_eps)
    return y, Residuals(r_embedding, r_dropout, tuple(r_blocks), r_norm, config.remat)


def vjp(residuals: Residuals, g: Array) -> tuple[Tree, None]:
    """Return ``({"embedding", "blocks", "norm"}, None)`` for the cotangent g (B, T, D)."""
    d_params, g = _vjp_above_embedding(residuals, g)
    d_embedding, _ = embedding.vjp(residuals.embedding, g)
    return {**d_params, "embedding": d_embedding}, None  # tokens are labels


def vjp_tied(residuals: Residuals, g: Array, d_table: Tree) -> tuple[Tree, None]:
    """Return what `vjp` does for an embedding whose weight is the unembedding's too.

    One weight, used twice: the cotangents add, in place in ``d_table``, the cotangent that the
    unembedding gave; the caller owns it and gives it away.
    """
    d_params, g = _vjp_above_embedding(residuals, g)
    embedding.add_vjp(residuals.embedding, g, out=d_table["weight"])
    return {**d_params, "embedding": d_table}, None  # tokens are labels


def _vjp_above_embedding(residuals: Residuals, g: Array) -> tuple[Tree, Array]:
    d_norm, g = rms_norm.vjp(residuals.norm, g)
    d_blocks = []
    for r_block in reversed(residuals.blocks):
        d_block, g = _block(residuals.remat).vjp(r_block, g)
        d_blocks.append(d_block)
    _, g = dropout.vjp(residuals.dropout, g)
    return {"blocks": tuple(reversed(d_blocks)), "norm": d_norm}, g


def _block(rematerialised: bool) -> Layer:
    return remat(transformer_block) if rematerialised else transformer_block


def _expect_sequences(tokens: Any, params: Tree, config: Config) -> None:
    """Check tokens and parameters against the config."""
    expect_tokens("tokens", tokens, config.vocab_size)
    expect_shape("tokens", tokens, "B T")
    if tokens.shape[1] > config.max_seq_len:
        raise ValueError(
            f"tokens must be at most max_seq_len={config.max_seq_len} long: "
            f"got {tokens.shape[1]}; "
            "pass a window of them, or a config with a larger max_seq_len"
        )
    if not isinstance(params["blocks"], tuple):
        raise TypeError(
            f"params['blocks'] must be a tuple: got {type(params['blocks']).__name__}; "
            "pass tuple(blocks)"
        )
    if len(params["blocks"]) != config.n_layers:
        raise ValueError(
            f"params must hold n_layers={config.n_layers} blocks: got {len(params['blocks'])}; "
            "pass the config that they were initialised with"
        )
    expect_params(params["embedding"], ["weight"])
    table, sizes = params["embedding"]["weight"], {"V": config.vocab_size, "D": config.d_model}
    expect_floating(weight=table)
    expect_shape("embedding.weight", table, "V D", **sizes)
