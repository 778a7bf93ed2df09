"""The decoder-only transformer: tokens to logits.

Forward: embedding → dropout → blocks → norm → unembedding. With tied embeddings the unembedding
reads the embedding's weight, and the two cotangents of that weight add.

Shapes: tokens (T,) or (B, T); logits (T, V) or (B, T, V).
"""

import dataclasses
from typing import Any, NamedTuple

import numpy as np

from .. import pytree
from ..contract import (
    Array,
    Key,
    Tree,
    expect_bool,
    expect_choice,
    expect_floating,
    expect_int,
    expect_number,
    expect_params,
    expect_shape,
    expect_tokens,
)
from ..layers import dropout, embedding, rms_norm, rotary, unembedding
from ..prng import fold_in
from . import self_attention, transformer_block

MAX_PARAMETERS = 10**11
"""More than any machine of today can hold twice; a size beyond is a slip of the keyboard."""


@dataclasses.dataclass(frozen=True)
class Config:
    """The sizes and settings of a transformer.

    Settings not given are resolved at once, so `dataclasses.replace` keeps them: pass
    ``d_ff=None, n_kv_heads=None`` along with another ``d_model`` or ``n_heads``.

    Attributes:
        vocab_size: V, the number of tokens.
        d_model: D, the size of the residual path.
        n_heads: H, the query heads; a divisor of d_model, with an even head size d_model/n_heads.
        n_kv_heads: G, the key/value heads; a divisor of n_heads. Not given: n_heads.
        n_layers: the number of blocks.
        d_ff: F, the hidden size of the feed-forward layers. Not given: int(2.5·d_model).
        max_seq_len: the longest sequence that forward takes, in tokens.
        dropout: the rate of dropout after the embedding and on each residual branch.
        tie_embeddings: whether the unembedding is the embedding's weight.
        norm_eps: added to the mean square inside the root of each norm.
        rope_theta: the base of the rotary wavelengths.
        rope_pairing: "interleaved" or "half"; see `layers.rotary`.

    Raises:
        TypeError: for a setting of the wrong type.
        ValueError: for sizes that do not fit each other.
    """

    vocab_size: int
    d_model: int = 128
    n_heads: int = 4
    n_kv_heads: int | None = None
    n_layers: int = 4
    d_ff: int | None = None
    max_seq_len: int = 256
    dropout: float = 0.0
    tie_embeddings: bool = True
    norm_eps: float = 1e-6
    rope_theta: float = 10000.0
    rope_pairing: str = "interleaved"

    def __post_init__(self) -> None:
        """Check every setting and resolve those not given."""
        for name in ("vocab_size", "d_model", "n_heads", "n_layers", "max_seq_len"):
            self._set(name, expect_int(name, getattr(self, name)))
        n_kv_heads = self.n_heads if self.n_kv_heads is None else self.n_kv_heads
        self._set("n_kv_heads", expect_int("n_kv_heads", n_kv_heads))
        d_ff = int(2.5 * self.d_model) if self.d_ff is None else self.d_ff
        self._set("d_ff", expect_int("d_ff", d_ff))
        self_attention.expect_heads(self.d_model, self.n_heads, int(n_kv_heads))
        if self.d_model // self.n_heads % 2:
            raise ValueError(
                "the head size d_model/n_heads must be even for rotary positions: "
                f"got {self.d_model}/{self.n_heads}; halve n_heads or double d_model"
            )
        self._set("dropout", expect_number("dropout", self.dropout, low=0.0, high=1.0))
        self._set("norm_eps", expect_number("norm_eps", self.norm_eps, low=0.0))
        self._set("rope_theta", expect_number("rope_theta", self.rope_theta, low=1e-30))
        self._set("tie_embeddings", expect_bool("tie_embeddings", self.tie_embeddings))
        expect_choice("rope_pairing", self.rope_pairing, rotary.PAIRINGS)
        size = self.vocab_size * self.d_model
        size += self.n_layers * self.d_model * (4 * self.d_model + 3 * d_ff)
        if size > MAX_PARAMETERS:
            raise ValueError(
                f"a model must have at most {MAX_PARAMETERS:.0e} parameters: got about {size:.1e}; "
                "lower n_layers, d_model or d_ff"
            )

    def _set(self, name: str, value: Any) -> None:
        object.__setattr__(self, name, value)


PRESETS: dict[str, dict[str, int]] = {
    "tiny": {"d_model": 128, "n_heads": 4, "n_layers": 4},
    "small": {"d_model": 256, "n_heads": 8, "n_layers": 4},
    "medium": {"d_model": 512, "n_heads": 8, "n_layers": 4},
}
"""Sizes by name, for ``Config(vocab_size=..., **PRESETS["tiny"])``: 0.76, 3.0 and 12.1 million
parameters at a vocabulary of 65."""


class Residuals(NamedTuple):
    """What `vjp` needs: the residuals of each layer."""

    embedding: embedding.Residuals
    dropout: dropout.Residuals
    blocks: tuple[transformer_block.Residuals, ...]
    norm: rms_norm.Residuals
    unembedding: unembedding.Residuals
    tied: bool
    batched: bool  # whether tokens came as (B, T)


def init(key: Key, *, config: Config, dtype: Any = np.float32) -> Tree:
    """Draw the parameters: ``embedding``, ``blocks``, ``norm`` and, if not tied, ``unembedding``.

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
    params = {
        "embedding": embedding.init(fold_in(key, 0), **table),
        "blocks": tuple(
            transformer_block.init(block_key, **block)
            for block_key in (fold_in(fold_in(key, 1), i) for i in range(config.n_layers))
        ),
        "norm": rms_norm.init(d_model=config.d_model, dtype=dtype),
    }
    if not config.tie_embeddings:
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
    tied = config.tie_embeddings
    expect_params(params, ["embedding", "blocks", "norm"] + ["unembedding"] * (not tied))
    batched = _expect_sequences(tokens, params, config)
    positions = np.arange(tokens.shape[-1])

    x, r_embedding = embedding.forward(params["embedding"], np.atleast_2d(tokens))  # (B, T, D)
    x, r_dropout = dropout.forward({}, x, rate=config.dropout, key=fold_in(key, 0))
    r_blocks = []
    for i, block in enumerate(params["blocks"]):
        x, r_block = transformer_block.forward(
            block,
            x,
            n_heads=config.n_heads,
            n_kv_heads=config.n_kv_heads,
            positions=positions,
            norm_eps=config.norm_eps,
            rope_theta=config.rope_theta,
            rope_pairing=config.rope_pairing,
            dropout=config.dropout,
            key=fold_in(key, i + 1),
        )
        r_blocks.append(r_block)
    x, r_norm = rms_norm.forward(params["norm"], x, eps=config.norm_eps)
    table = params["embedding" if tied else "unembedding"]
    logits, r_unembedding = unembedding.forward(table, x)  # (B, T, V)

    residuals = Residuals(
        r_embedding, r_dropout, tuple(r_blocks), r_norm, r_unembedding, tied, batched
    )
    return logits if batched else logits[0], residuals


def vjp(residuals: Residuals, g: Array) -> tuple[Tree, None]:
    """Return ``(d_params, None)`` for the cotangent g of the logits."""
    g = g if residuals.batched else g[None]
    d_unembedding, g = unembedding.vjp(residuals.unembedding, g)
    d_norm, g = rms_norm.vjp(residuals.norm, g)
    d_blocks = []
    for r_block in reversed(residuals.blocks):
        d_block, g = transformer_block.vjp(r_block, g)
        d_blocks.append(d_block)
    _, g = dropout.vjp(residuals.dropout, g)
    d_embedding, _ = embedding.vjp(residuals.embedding, g)

    d_params = {"embedding": d_embedding, "blocks": tuple(reversed(d_blocks)), "norm": d_norm}
    if residuals.tied:  # one weight, used twice: cotangents add
        d_params["embedding"] = pytree.add(d_embedding, d_unembedding)
    else:
        d_params["unembedding"] = d_unembedding
    return d_params, None  # tokens are labels


def _expect_sequences(tokens: Any, params: Tree, config: Config) -> bool:
    """Check tokens and parameters against the config; tell whether the tokens are batched."""
    expect_tokens("tokens", tokens, config.vocab_size)
    if tokens.ndim not in (1, 2):
        raise ValueError(f"tokens must have shape (T,) or (B, T): got {tokens.shape}; reshape them")
    if tokens.shape[-1] > config.max_seq_len:
        raise ValueError(
            f"tokens must be at most max_seq_len={config.max_seq_len} long: "
            f"got {tokens.shape[-1]}; "
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
    return tokens.ndim == 2
