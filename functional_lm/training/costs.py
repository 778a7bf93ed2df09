"""What a transformer costs: parameters, arithmetic and memory for each token."""

from typing import NamedTuple

import numpy as np

from .. import pytree
from ..contract import Tree
from ..models import transformer
from ..models.transformer import Config


class Costs(NamedTuple):
    """Figures of a model at a length of context; FLOPs count a multiplication and an addition."""

    parameters: int
    training_flops: int  # per token: forward and backward
    training_bytes: int  # per token: residuals kept for the backward pass
    inference_flops: int  # per token: one forward at full context, if keys and values are kept
    inference_bytes: int  # per token: its keys and values


def costs(config: Config, seq_len: int | None = None) -> Costs:
    """Return the costs of a transformer.

    A matrix of N entries takes 2·N FLOPs for each token that goes through it, and twice that in
    the backward pass. Attention over a context of T takes 4·T·D for each token and block: scores
    and values. (Kaplan et al. 2020, section 2.1.) Residual bytes are counted in a real forward.

    Args:
        config: the model.
        seq_len: T; ``max_seq_len`` if not given.
    """
    T = config.max_seq_len if seq_len is None else seq_len
    params = transformer.init((0,), config=config)
    matrices = sum(leaf.size for leaf in pytree.leaves(params) if leaf.ndim > 1)
    if not config.tie_embeddings:  # looking a row up takes no arithmetic
        matrices -= params["embedding"]["weight"].size
    attention = 4 * T * config.d_model * config.n_layers
    forward = 2 * matrices + attention
    n_kv_heads = config.n_kv_heads or config.n_heads
    kv_entries = 2 * config.n_layers * n_kv_heads * (config.d_model // config.n_heads)
    return Costs(
        parameters=pytree.count(params),
        training_flops=3 * forward,
        training_bytes=_residual_bytes(params, config, T) // T,
        inference_flops=forward,
        inference_bytes=4 * kv_entries,
    )


def _residual_bytes(params: Tree, config: Config, seq_len: int) -> int:
    """Return the bytes that the residuals of one sequence keep, without the parameters."""
    tokens = np.zeros((1, seq_len), np.int32)
    _, residuals = transformer.forward(params, tokens, config=config, key=(0,))
    return pytree.buffer_bytes(residuals, without=params)
