"""The loop that samples one token after another, and where its text stops."""

from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np

from ..contract import Array, Key, expect_int
from .sampling import Transform, sample


def generate(
    next_logits: Callable[[Array], Array],
    prompt: Sequence[int] | Array,
    *,
    key: Key,
    max_new_tokens: int,
    transform: Transform | None = None,
) -> Iterator[int]:
    """Yield new tokens, each drawn given all before it.

    The same key gives the same tokens.

    Args:
        next_logits: maps the tokens so far, (T,), to the logits (V,) of the next; it decides what
            to do when they get longer than the model takes.
        prompt: the first tokens, at least one.
        key: randomness; token i uses ``key + (i,)``.
        max_new_tokens: how many to yield.
        transform: changes the logits before each draw; see `sampling`.

    Raises:
        ValueError: for an empty prompt.
    """
    tokens = np.array(prompt)
    if tokens.ndim != 1 or tokens.size == 0:
        raise ValueError(
            f"a prompt must have at least one token: got shape {tokens.shape}; pass some text"
        )
    for i in range(expect_int("max_new_tokens", max_new_tokens, minimum=0)):
        logits = next_logits(tokens)
        if transform is not None:
            logits = transform(logits, tokens)
        token = sample((*key, i), logits)
        yield token
        tokens = np.append(tokens, token)


def until_stop(pieces: Iterable[str], stops: Sequence[str]) -> Iterator[str]:
    """Yield pieces of text until one of the stop strings appears; it is left out.

    A piece is held back as long as it may be the beginning of a stop string, so that a stream
    never shows a part of one.

    >>> list(until_stop(["a", "b", "E", "N", "x", "END", "c"], ["END"]))
    ['a', 'b', 'ENx']

    Raises:
        ValueError: for an empty stop string.
    """
    if not all(stops):
        raise ValueError("a stop string must not be empty: got ''; leave it out")
    held = ""
    for piece in pieces:
        held += piece
        found = [position for stop in stops if (position := held.find(stop)) >= 0]
        if found:
            if held[: min(found)]:
                yield held[: min(found)]
            return
        beginning = max((_overlap(held, stop) for stop in stops), default=0)
        if len(held) > beginning:
            yield held[: len(held) - beginning]
            held = held[len(held) - beginning :]
    if held:
        yield held


def _overlap(text: str, stop: str) -> int:
    """Return the length of the longest end of the text that begins the stop string."""
    longest = min(len(text), len(stop) - 1)
    return next((n for n in range(longest, 0, -1) if text.endswith(stop[:n])), 0)
