"""Decoding with a cache: each new token takes one pass over itself, not over the whole text."""

import contextlib
import functools
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from ..contract import Array, Tree, expect_logits, expect_tokens
from ..models.language_model import LanguageModel
from ..speed.threads import one_thread
from .window import window_start

__all__ = ["LATE", "PASS_TIME", "SHORT", "Decoder", "expect_prompts"]

SHORT = 32
"""Up to so many tokens of a text, one pass of the quick decoder takes less time than a step."""

LATE = 16
"""How many accepted tokens may wait for a pass that takes them into the cache."""

PASS_TIME = 1.1, 0.05
"""Of a model without a quicker decoder: a step is mostly the start of its many small operations."""


class Decoder:
    """A language model with a cache, for one or several texts at once::

        decoder = Decoder(model, params)
        logits = decoder.prefill([[1, 2, 3], [4]])  # (2, V), after each prompt
        logits = decoder.step(logits.argmax(axis=1))  # (2, V), after one more token of each

    Of one text it also takes several tokens at once, of which the last may be guesses::

        decoder.prefill([[1, 2, 3]])
        logits = decoder.look_ahead([4, 5, 6])  # (3, V), after each of them
        decoder.accept(2)  # the text goes on with 4, 5; the 6 is taken back

    The logits are those of the model's forward for the same tokens, up to rounding. Of a text
    longer than ``max_seq_len``, the model sees the window that begins at `window_start`. A model
    whose layers have a ``step`` decodes with a cache; any other runs its forward on the whole
    window for each token.

    Attributes:
        model: the language model.
        likeliest: the tokens (B,) with the largest logits, the first of equal ones.
        cached: whether the model decodes with a cache.
        drafted: how many guesses `look_ahead` has taken.
        accepted: how many of them turned out right.
    """

    def __init__(self, model: LanguageModel, params: Tree) -> None:
        """Check the parameters, and whether the model can decode with a cache.

        Raises:
            TypeError: for parameters that are not float32 or float64.
            ValueError: for parameters that do not fit the model.
        """
        self.model = model
        self.likeliest: list[int] = []
        self._params = params
        self._max_seq_len = model.config.max_seq_len
        self._texts: list[list[int]] = []
        self._room = 0  # tokens until a window is full
        self._logits: Array | None = None  # None: the fast decoder has them
        self._cache: Any = None
        self._fast_decoder = getattr(model.model, "fast_decoder", None)
        self._fast: Any = None
        self._ahead: list[int] = []  # the tokens of `look_ahead`
        self._after: Any = None  # the cache after them
        self._late: list[int] = []  # tokens of the text that are not in the cache yet
        self.drafted = self.accepted = 0
        self.cached = model.can_step and self._steps_agree()

    def prefill(self, prompts: Sequence[Sequence[int] | Array] | Array) -> Array:
        """Start from prompts, in one pass, and return the logits after each.

        Args:
            prompts: B of them, each with at least one token; they may differ in length.

        Returns:
            Logits (B, V).

        Raises:
            TypeError: for tokens that are not integers.
            ValueError: for no prompt, an empty prompt, or a token outside ``[0, V)``;
                for logits that are not finite.
        """
        texts = expect_prompts(prompts)
        for text in texts:
            expect_tokens("a prompt", text, self.model.config.vocab_size)
        self._texts, self._ahead = [text.tolist() for text in texts], []
        with self.undisturbed():
            self._fill()
        return self.logits

    def step(self, tokens: Sequence[int] | Array) -> Array:
        """Take one more token of each text, and return the logits after it.

        Args:
            tokens: (B,), in the order of the prompts.

        Returns:
            Logits (B, V).

        Raises:
            TypeError: for tokens that are not integers.
            ValueError: before `prefill`, or `accept` after `look_ahead`; for another number of
                tokens, or one outside ``[0, V)``; for logits that are not finite.
        """
        if not self._texts:
            raise ValueError("step must begin with prefill: got none; call prefill(prompts) first")
        tokens = np.asarray(tokens)
        expect_tokens("tokens", tokens, self.model.config.vocab_size)
        if tokens.shape != (len(self._texts),):
            raise ValueError(
                f"step takes one token of each of the {len(self._texts)} texts: "
                f"got shape {tokens.shape}; prefill sets how many there are"
            )
        self._expect_accepted()
        with self.undisturbed():
            self.advance(tokens.tolist())
        return self.logits

    def look_ahead(self, tokens: Sequence[int] | Array) -> Array:
        """Take the next token of the one text and guesses of those behind it, in one pass.

        `accept` must follow; it says how many of them the text goes on with.

        Args:
            tokens: (T,), up to `room` of them.

        Returns:
            Logits (T, V), after each of the tokens.

        Raises:
            TypeError: for tokens that are not integers.
            ValueError: before `prefill`, for several texts, for more than `room` tokens or none, or
                one outside ``[0, V)``; for logits that are not finite; or if the model cannot, see
                `looks_ahead`.
        """
        if len(self._texts) != 1 or not self.looks_ahead:
            raise ValueError(
                "look_ahead needs one text and a model that takes several tokens at once: got "
                f"{len(self._texts)} texts, looks_ahead={self.looks_ahead}; call step"
            )
        tokens = np.asarray(tokens)
        expect_tokens("tokens", tokens, self.model.config.vocab_size)
        if tokens.ndim != 1 or not 1 <= len(tokens) <= max(self.room, 1):
            raise ValueError(
                f"look_ahead takes one token to {max(self.room, 1)}, as many as the window has "
                f"room for: got shape {tokens.shape}; leave guesses out"
            )
        self._expect_accepted()
        with self.undisturbed():
            self.advance_along(tokens.tolist())
        return self.logits

    def accept(self, n: int) -> None:
        """Let the text go on with the first n of the tokens of `look_ahead`, at least one.

        Raises:
            ValueError: for another number.
        """
        if not 1 <= n <= len(self._ahead):
            raise ValueError(
                f"accept takes 1 to {len(self._ahead)}, the number of tokens in look_ahead: got "
                f"{n}; accept the first one at least"
            )
        ahead, self._ahead = self._ahead, []
        self.drafted += len(ahead) - 1
        self.accepted += n - 1
        if len(ahead) == 1:  # `advance` has done the rest
            return
        self._texts[0] += ahead[:n]
        self._room -= n
        if self._fast is not None:
            self._fast.keep(n)
        elif self.cached and n == len(ahead):
            self._cache, self._late = self._after, []
        elif self.cached:
            self._late += ahead[:n]

    def _expect_accepted(self) -> None:
        if self._ahead:
            raise ValueError(
                f"accept must follow look_ahead: got {len(self._ahead)} tokens that are neither "
                "accepted nor taken back; call accept(n)"
            )

    @functools.cached_property
    def looks_ahead(self) -> bool:
        """Whether the model takes several tokens of a text at once, and lets them be taken back.

        A layer with a ``step`` must take several positions, and leave the cache that it is given
        as good as before; a model without one must not let a token see those behind it.
        """
        if self._max_seq_len < 3:
            return False
        if self.cached and self._fast_decoder is not None:
            return True
        V = self.model.config.vocab_size
        tokens = np.arange(3)[None] % V
        with np.errstate(all="ignore"):
            expected = [self._last_logits(tokens[:, :n]) for n in (2, 3)]
            try:
                if self.cached:
                    cache = self.model.init_cache(self._params, 1, 3)
                    _, cache = self.model.step(self._params, tokens[:, :1], cache)
                    for last in (tokens[0, 2] + 1) % V, tokens[0, 2]:  # the first is taken back
                        both = np.array([[tokens[0, 1], last]])
                        found, _ = self.model.step(self._params, both, cache, after_each=True)
                else:
                    found = self._all_logits(tokens)[:, 1:]
                return np.shape(found) == (1, 2, V) and _agree(found[0], np.stack(expected))
            except Exception:  # a custom layer that takes one position at a time
                return False

    @property
    def pass_time(self) -> tuple[float, float]:
        """About what `look_ahead` takes, and each guess on top of that, over the time of a step."""
        return PASS_TIME if self._fast is None else self._fast.pass_time

    @property
    def room(self) -> int:
        """How many more tokens the window of the longest text takes before it moves."""
        if self.cached:
            return self._room
        n = max(map(len, self._texts))
        return self._max_seq_len - (n - window_start(n, self._max_seq_len))

    @contextlib.contextmanager
    def undisturbed(self) -> Iterator[None]:
        """Return the context for calls of `advance`; entering it takes a few microseconds.

        The products of several texts are small, and threads would only slow them down; for one
        text BLAS uses threads where a matrix is large.
        """
        alone = len(self._texts) == 1
        with np.errstate(all="ignore"), contextlib.nullcontext() if alone else one_thread():
            yield

    @property
    def logits(self) -> Array:
        """The logits (B, V) after the last token of each text."""
        return self._fast.logits if self._logits is None else self._logits

    def advance(self, tokens: list[int]) -> None:
        """Do what `step` does, without its checks."""
        for text, token in zip(self._texts, tokens, strict=True):
            text.append(token)
        self._room -= 1
        if self._room < 0:
            self._fill()
        elif self._fast is not None:
            alone = len(tokens) == 1
            self.likeliest = [self._fast.step(tokens[0])] if alone else self._fast.step_all(tokens)
            self._logits = None
        else:
            rows = np.array([[*self._late, token] for token in tokens])
            logits, self._cache = self.model.step(self._params, rows, self._cache)
            self._late = []
            self._show(logits)

    def advance_along(self, tokens: list[int]) -> None:
        """Do what `look_ahead` does, without its checks."""
        self._ahead = tokens
        if len(tokens) == 1:
            self.advance(tokens)
        elif self._fast is not None:
            self.likeliest = self._fast.look_ahead(tokens)
            self._logits = None
        elif not self.cached:
            text = self._texts[0] + tokens
            window = np.array([text[window_start(len(text), self._max_seq_len) :]])
            self._show(self._all_logits(window)[0, -len(tokens) :])
        else:
            if len(self._late) > LATE:
                _, self._cache = self.model.step(self._params, np.array([self._late]), self._cache)
                self._late = []
            row = np.array([self._late + tokens])
            logits, self._after = self.model.step(self._params, row, self._cache, after_each=True)
            self._show(logits[0, len(self._late) :])

    def _fill(self) -> None:
        """Run the windows of all texts, from their start."""
        M = self._max_seq_len
        windows = [text[window_start(len(text), M) :] for text in self._texts]
        if not self.cached:
            self._show(np.stack([self._last_logits(np.array([window])) for window in windows]))
            return
        lengths = np.array([len(window) for window in windows])
        padded = np.zeros((len(windows), lengths.max()), np.int64)
        for row, window in zip(padded, windows, strict=True):
            row[: len(window)] = window
        self._room = M - int(lengths.max())
        if self._fast_decoder is not None:
            self._fast = self._fast or self._fast_decoder(self._params)
            if len(windows) == 1 and len(windows[0]) <= SHORT:
                self._fast.start(1)
                self._fast.look_ahead(windows[0])
                self._fast.keep(len(windows[0]))
                self._show(self._fast.logits[-1:])
                return
        cache = self.model.init_cache(self._params, len(windows), M)
        logits, self._cache = self.model.step(self._params, padded, cache, lengths=lengths)
        self._late = []
        if self._fast is not None:
            self._fast.load(self._cache)
            self._cache = None
        self._show(logits)

    def _show(self, logits: Array) -> None:
        expect_logits(logits)
        self._logits = logits
        self.likeliest = logits.argmax(axis=1).tolist()

    def _last_logits(self, tokens: Array) -> Array:
        return self._all_logits(tokens)[0, -1]

    def _all_logits(self, tokens: Array) -> Array:
        return self.model.logits(self._params, tokens)[0]

    def _steps_agree(self) -> bool:
        """Tell whether steps give what a forward gives: not if a layer that mixes has no step."""
        tokens = np.arange(min(3, self._max_seq_len))[None] % self.model.config.vocab_size
        with np.errstate(all="ignore"):
            expected = self._last_logits(tokens)
            cache = self.model.init_cache(self._params, 1, tokens.size)
            for t in range(tokens.size):
                logits, cache = self.model.step(self._params, tokens[:, t : t + 1], cache)
        return _agree(logits[0], expected)


def _agree(found: Array, expected: Array) -> bool:
    """Tell whether logits are the same but for rounding."""
    scale = np.abs(expected).max(initial=0.0) or 1.0
    return bool(np.abs(found - expected).max(initial=0.0) <= 1e-3 * scale)


def expect_prompts(prompts: Any) -> list[Array]:
    """Return prompts as arrays (T,) of at least one token each.

    Raises:
        TypeError: for text in place of tokens.
        ValueError: for no prompt, or an empty one.
    """
    prompts = [prompts] if isinstance(prompts, (str, bytes)) else list(prompts)
    for text in prompts:
        if isinstance(text, (str, bytes)):
            raise TypeError(
                f"a prompt must be token ids: got the text {text[:20]!r}; "
                "pass tokenizer.encode(prompt)"
            )
    texts = [np.array(text) for text in prompts]
    if not texts:
        raise ValueError("there must be at least one prompt: got none; pass [prompt]")
    for text in texts:
        if text.ndim != 1 or text.size == 0:
            raise ValueError(
                f"a prompt must have at least one token: got shape {text.shape}; pass some text"
            )
    return texts
