"""The loop that samples one token after another."""

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from ..contract import Array, Key, expect_int
from .sampling import keep_top_k, sample, scale_by_temperature


def generate(
    next_logits: Callable[[Array], Array],
    prompt: Sequence[int] | Array,
    *,
    key: Key,
    max_new_tokens: int,
    temperature: float = 1.0,
    top_k: int | None = None,
) -> Iterator[int]:
    """Yield new tokens, each drawn given all before it.

    The same key gives the same tokens.

    Args:
        next_logits: maps the tokens so far, (T,), to the logits (V,) of the next; it decides what
            to do when they get longer than the model takes.
        prompt: the first tokens, at least one.
        key: randomness; token i uses ``key + (i,)``.
        max_new_tokens: how many to yield.
        temperature: 0 always takes the most likely token.
        top_k: draw from the k most likely tokens only.

    Raises:
        ValueError: for an empty prompt.
    """
    tokens = np.array(prompt)
    if tokens.ndim != 1 or tokens.size == 0:
        raise ValueError(
            f"a prompt must have at least one token: got shape {tokens.shape}; pass some text"
        )
    expect_int("max_new_tokens", max_new_tokens, minimum=0)
    for i in range(max_new_tokens):
        logits = scale_by_temperature(next_logits(tokens), temperature)
        if top_k is not None:
            logits = keep_top_k(logits, top_k)
        token = sample((*key, i), logits)
        yield token
        tokens = np.append(tokens, token)
