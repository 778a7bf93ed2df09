"""Decoding with a cache: each new token takes one pass over itself, not over the whole text."""

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from ..contract import Array, Tree, expect_logits, expect_tokens
from ..models.language_model import LanguageModel
from ..speed.threads import one_thread
from .window import window_start

__all__ = ["Decoder", "expect_prompts"]


class Decoder:
    """A language model with a cache, for one or several texts at once::

        decoder = Decoder(model, params)
        logits = decoder.prefill([[1, 2, 3], [4]])  # (2, V), after each prompt
        logits = decoder.step(logits.argmax(axis=1))  # (2, V), after one more token of each

    The logits are those of the model's forward for the same tokens, up to rounding. Of a text
    longer than ``max_seq_len``, the model sees the window that begins at `window_start`. A model
    whose layers have a ``step`` decodes with a cache; any other runs its forward on the whole
    window for each token.

    Attributes:
        model: the language model.
        likeliest: the tokens (B,) with the largest logits, the first of equal ones.
        cached: whether the model decodes with a cache.
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
        self._fast: Any = None
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
        self._texts = [text.tolist() for text in texts]
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
            ValueError: before `prefill`, for another number of tokens, or one outside ``[0, V)``;
                for logits that are not finite.
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
        with self.undisturbed():
            self.advance(tokens.tolist())
        return self.logits

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
        elif self._fast is not None and len(tokens) == 1:
            self.likeliest = [self._fast.step(tokens[0])]
            self._logits = None
        else:
            column = np.array(tokens)[:, None]
            logits, self._cache = self.model.step(self._params, column, self._cache)
            self._show(logits)

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
        cache = self.model.init_cache(self._params, len(windows), M)
        logits, self._cache = self.model.step(self._params, padded, cache, lengths=lengths)
        self._room = M - int(lengths.max())
        fast = getattr(self.model.model, "fast_decoder", None)
        if fast is not None and len(windows) == 1:
            self._fast = self._fast or fast(self._params)
            self._fast.load(self._cache)
        self._show(logits)

    def _show(self, logits: Array) -> None:
        expect_logits(logits)
        self._logits = logits
        self.likeliest = logits.argmax(axis=1).tolist()

    def _last_logits(self, tokens: Array) -> Array:
        logits, _ = self.model.logits(self._params, tokens)
        return logits[0, -1]

    def _steps_agree(self) -> bool:
        """Tell whether steps give what a forward gives: not if a layer that mixes has no step."""
        tokens = np.arange(min(3, self._max_seq_len))[None] % self.model.config.vocab_size
        with np.errstate(all="ignore"):
            expected = self._last_logits(tokens)
            cache = self.model.init_cache(self._params, 1, tokens.size)
            for t in range(tokens.size):
                logits, cache = self.model.step(self._params, tokens[:, t : t + 1], cache)
        scale = np.abs(expected).max(initial=0.0) or 1.0
        return bool(np.abs(logits[0] - expected).max(initial=0.0) <= 1e-3 * scale)


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
