"""The loops that sample one token after another, and where their text stops."""

import contextlib
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeAlias, TypeVar

import numpy as np

from ..contract import Array, Key, expect_int
from .decoder import Decoder, expect_prompts
from .drafts import DOUBT, DOUBT_OF_SAMPLES, Drafts
from .sampling import Transform, most_likely, sample

__all__ = ["BURST", "SPECULATE", "Model", "generate", "generate_batch", "until_stop"]

BURST = 0.01
"""Seconds that a decoder may run before its tokens are yielded."""

SPECULATE = 15
"""The most tokens that are drafted for one pass."""

Model: TypeAlias = Decoder | Callable[[Array], Array]
"""A decoder, or a function from the tokens so far, (T,), to the logits (V,) of the next."""

_T = TypeVar("_T")


def generate(
    model: Model,
    prompt: Sequence[int] | Array,
    *,
    key: Key | None = None,
    max_new_tokens: int,
    transform: Transform | None = None,
    speculate: int = SPECULATE,
) -> Iterator[int]:
    """Yield new tokens, each drawn given all before it. No key: the most likely one each time.

    The same key gives the same tokens. A decoder that `looks_ahead` drafts the next tokens where
    the text repeats itself (see `Drafts`), runs them in the same pass, and keeps those that turn
    out right. Every token is still chosen from its own logits with its own key, so that drafts
    change the speed alone. That is speculative decoding (Leviathan et al. 2023, section 2.3) with
    a draft that is certain of its token t: their rule takes t with probability p(t), and else
    draws from p without t. A draw from p does just that. But logits of several tokens in one pass
    are rounded differently, so that two tokens whose logits agree to rounding may change places.

    Args:
        model: a `Decoder`, which has a cache; or any function from the tokens so far, (T,), to
            the logits (V,) of the next, which must handle texts longer than the model takes.
        prompt: the first tokens, at least one.
        key: randomness; token i uses ``key + (i,)``.
        max_new_tokens: how many to yield.
        transform: changes the logits before each choice; see `sampling`.
        speculate: the most tokens to draft for a pass; 0 drafts none.

    Raises:
        ValueError: for an empty prompt, or logits that are not finite.
    """
    most = expect_int("speculate", speculate, minimum=0)
    if most and isinstance(model, Decoder) and model.looks_ahead:
        (text,) = expect_prompts([prompt])
        n_tokens = expect_int("max_new_tokens", max_new_tokens, minimum=0)
        yield from _with_drafts(model, text, key, transform, n_tokens, most)
        return
    rows = generate_batch(
        model, [prompt], keys=[key], max_new_tokens=max_new_tokens, transforms=[transform]
    )
    for (token,) in rows:
        yield token


def generate_batch(
    model: Model,
    prompts: Sequence[Sequence[int] | Array] | Array,
    *,
    keys: Sequence[Key | None] | None = None,
    max_new_tokens: int,
    transforms: Sequence[Transform | None] | None = None,
) -> Iterator[list[int]]:
    """Yield a new token of each of several texts at a time: a decoder takes all in one pass.

    Text i gets what `generate` yields for ``prompts[i]``, ``keys[i]`` and ``transforms[i]``, up to
    the rounding of the logits.

    Args:
        model: as `generate` takes it. A decoder belongs to this generation until that ends.
        prompts: B of them, each with at least one token; they may differ in length.
        keys: one for each; None for the most likely tokens. Default: None for all.
        max_new_tokens: how many of each.
        transforms: one for each, or None. Default: None for all.

    Raises:
        ValueError: for no prompt or an empty one, another number of keys or transforms, or logits
            that are not finite.
    """
    texts = expect_prompts(prompts)
    if not isinstance(model, Decoder) and not callable(model):
        raise TypeError(
            f"a model must be a Decoder or a function from tokens to logits: got "
            f"{type(model).__name__}; pass Decoder(model, params)"
        )
    n_tokens = expect_int("max_new_tokens", max_new_tokens, minimum=0)
    keys = _expect_one_each("keys", keys, len(texts))
    transforms = _expect_one_each("transforms", transforms, len(texts))
    if isinstance(model, Decoder) and all(each is None for each in (*keys, *transforms)):
        yield from _greedy(model, texts, n_tokens)
        return
    new: list[int] = []
    for i in range(n_tokens):
        if not isinstance(model, Decoder):
            logits: Iterable[Array] = map(model, texts)
        else:
            logits = model.prefill(texts) if i == 0 else model.step(new)
        new = _choose(logits, texts, keys, i, transforms)
        yield new
        texts = [np.append(*pair) for pair in zip(texts, new, strict=True)]


def _greedy(decoder: Decoder, texts: list[Array], n_tokens: int) -> Iterator[list[int]]:
    """Yield the likeliest tokens in bursts, so that many tokens share one context of a decoder."""
    done = 0
    while done < n_tokens:
        if done == 0:
            decoder.prefill(texts)
        burst: list[list[int]] = []
        with decoder.undisturbed():
            deadline = time.perf_counter() + BURST
            while done < n_tokens and (not burst or time.perf_counter() < deadline):
                if done:
                    decoder.advance(decoder.likeliest)
                burst.append(decoder.likeliest)
                done += 1
        yield from burst


def _with_drafts(
    decoder: Decoder,
    text: Array,
    key: Key | None,
    transform: Transform | None,
    n_tokens: int,
    most: int,
) -> Iterator[int]:
    """Yield the tokens of one text; each pass takes the last one and a draft of the next."""
    if not n_tokens:
        return
    decoder.prefill([text])
    greedy = key is None and transform is None
    doubt = DOUBT if greedy else DOUBT_OF_SAMPLES
    drafts = Drafts(text.tolist(), decoder.pass_time, doubt)
    guess, new, done = list[int](), list[int](), 0
    while done < n_tokens:
        burst: list[int] = []
        with decoder.undisturbed() if greedy else contextlib.nullcontext():
            deadline = time.perf_counter() + BURST if greedy else 0.0
            while done < n_tokens and (not burst or time.perf_counter() < deadline):
                if done:
                    guess = drafts.guess(min(most, decoder.room - 1, n_tokens - done - 1))
                    with contextlib.nullcontext() if greedy else decoder.undisturbed():
                        decoder.advance_along([new[-1], *guess])
                if greedy:
                    new = decoder.likeliest
                    new = new[: 1 + _n_agreeing(guess, new)]
                else:
                    new = []
                    for logits, drafted in zip(decoder.logits, [*guess, None], strict=True):
                        new += _choose([logits], [text], [key], done + len(new), [transform])
                        text = np.append(text, new[-1])
                        if new[-1] != drafted:
                            break
                if done:
                    decoder.accept(len(new))
                drafts.extend(new)
                burst += new
                done += len(new)
        yield from burst


def _n_agreeing(guess: Sequence[int], found: Sequence[int]) -> int:
    """Return how many tokens of a guess come true before the first that does not."""
    pairs = enumerate(zip(guess, found, strict=False))
    return next((n for n, (guessed, token) in pairs if guessed != token), len(guess))


def _choose(
    logits: Iterable[Array],
    texts: Sequence[Array],
    keys: Sequence[Key | None],
    i: int,
    transforms: Sequence[Transform | None],
) -> list[int]:
    """Return a token of each text, the i-th new one."""
    chosen = []
    for each, text, key, transform in zip(logits, texts, keys, transforms, strict=True):
        changed = each if transform is None else transform(each, text)
        chosen.append(most_likely(changed) if key is None else sample((*key, i), changed))
    return chosen


def _expect_one_each(name: str, given: Sequence[_T] | None, n_rows: int) -> Sequence[_T | None]:
    if given is not None and len(given) != n_rows:
        raise ValueError(
            f"there must be one of {name} for each of the {n_rows} prompts: got {len(given)}; "
            "pass None for those that need none"
        )
    return [None] * n_rows if given is None else given


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
