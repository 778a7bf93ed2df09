"""A transformer's parameters as decoding wants them: with all that is constant folded in.

A token alone costs little arithmetic, so each pass over an array that can be saved counts. With
x̂ = x/√(Σx² + D·eps), a norm is x̂·√D·scale, and what multiplies x̂ goes into the matrix below it:

    attention     x̂ @ (√D·scale·qkv), where the queries are over √K already
    feed-forward  x̂ @ (−√D·scale·gate) = −a and x̂ @ (−√D·scale·up) = −u, so that
                  silu(a)·u = (−a)·(−u)/(1 + e^(−a)) needs no change of sign
    logits        x̂ @ (√D·scale·unembeddingᵀ)

Queries and keys are always interleaved: turning pairs "half" apart and turning neighbours is the
same but for the order of the columns, and the inner product of the two does not see the order.
"""

import math
from typing import NamedTuple

import numpy as np

from ..contract import Array, Tree
from ..models.transformer import Config
from ..numerics import row_dot
from ..rotation import rotations

SMALL_VOCABULARY = 1024
"""Up to so many tokens, the first block's projections are tabulated."""


class Block(NamedTuple):
    """The matrices of a block; with H query and G key/value heads of size K."""

    qkv: Array  # (D, (H+2G)·K)
    out: Array  # (H·K, D)
    gate_up: Array  # (2, D, F): −gate, −up
    down: Array  # (F, D)


class Folded(NamedTuple):
    """All that a step needs."""

    embedding: Array  # (V, D)
    blocks: tuple[Block, ...]
    unembedding: Array  # (D, V)
    first_qkv: Array | None  # (V, (H+2G)·K): the first block's, which depend on the token alone
    rotation: Array  # (S, K/2) complex: e^{iφ} at each position
    eps: float  # added to Σx²
    n_heads: int
    n_kv_heads: int


def fold(params: Tree, config: Config) -> Folded:
    """Return the folded parameters, which must fit the config."""
    table = params["embedding"]["weight"]
    unembedding = params["embedding" if config.tie_embeddings else "unembedding"]["weight"]
    root = math.sqrt(config.d_model)
    positions, head_size = np.arange(config.max_seq_len), config.d_model // config.n_heads
    blocks = tuple(
        Block(
            root * block["norm1"]["scale"][:, None] * _interleaved(block["attention"], config),
            block["attention"]["out"],
            -root * block["norm2"]["scale"][:, None] * block["mlp"]["gate_up"],
            block["mlp"]["down"],
        )
        for block in params["blocks"]
    )
    eps = config.d_model * config.norm_eps
    first_qkv = None
    if config.vocab_size <= SMALL_VOCABULARY:
        with np.errstate(invalid="ignore"):  # of a token of zeros, which may never come
            first_qkv = (table / np.sqrt(row_dot(table, table) + eps)) @ blocks[0].qkv
    return Folded(
        table,
        blocks,
        (root * params["norm"]["scale"] * unembedding).T,
        first_qkv,
        rotations(positions, head_size, config.rope_theta, table.dtype)[:, 0],
        eps,
        config.n_heads,
        config.n_kv_heads or config.n_heads,
    )


def half_to_interleaved(head_size: int) -> Array:
    """Return the order (K,) of columns that makes the halves of a head neighbours.

    >>> half_to_interleaved(6)
    array([0, 3, 1, 4, 2, 5])
    """
    return np.arange(head_size).reshape(2, -1).T.reshape(-1)


def _interleaved(attention: Tree, config: Config) -> Array:
    """Return qkv with the queries over √K, and the columns of each head in interleaved order."""
    head_size = config.d_model // config.n_heads
    qkv = attention["qkv"].copy()
    qkv[:, : config.d_model] *= 1 / math.sqrt(head_size)
    if config.rope_pairing == "half":
        heads = qkv.reshape(len(qkv), -1, head_size)
        n_turned = heads.shape[1] - (config.n_kv_heads or config.n_heads)
        heads[:, :n_turned] = heads[:, :n_turned, half_to_interleaved(head_size)]
    return qkv
