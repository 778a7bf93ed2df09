"""What a model costs: parameters, arithmetic and memory for each token."""

from typing import Any, NamedTuple

import numpy as np

from .. import pytree
from ..models import LanguageModel


class Costs(NamedTuple):
    """Figures of a model at a length of context; FLOPs count a multiplication and an addition."""

    parameters: int
    training_flops: int  # per token: forward and backward
    training_bytes: int  # per token: residuals kept for the backward pass
    inference_flops: int  # per token: one forward at full context, with a cache if there is one
    inference_bytes: int  # per token: what the cache keeps of it


def costs(model: LanguageModel, seq_len: int | None = None) -> Costs:
    """Return the costs of a model. The backward pass takes twice the arithmetic of the forward.

    Residuals and cache are counted in a real forward.

    Args:
        model: the language model.
        seq_len: T; ``max_seq_len`` if not given.
    """
    T = model.config.max_seq_len if seq_len is None else seq_len
    params = model.init((0,))
    _, residuals = model.logits(params, np.zeros((1, T), np.int32), key=(0,))
    cache: Any = ()
    if model.can_step:
        _, cache = model.step(params, np.zeros((1, 1), np.int32), model.init_cache(params, 1, T))
    flops = model.flops(params, T)
    return Costs(
        parameters=model.n_parameters,
        training_flops=3 * flops,
        training_bytes=pytree.buffer_bytes(residuals, without=params) // T,
        inference_flops=flops,
        inference_bytes=pytree.buffer_bytes(cache) // T,
    )
