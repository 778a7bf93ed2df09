"""Decoding with a cache: each token costs one pass of its own, and not of all tokens before it."""

import contextlib
from collections.abc import Iterator, Sequence

import numpy as np

from ..contract import Array, Tree, expect_tokens
from ..models import transformer
from ..models.transformer import Config
from ..speed.threads import one_thread
from .folding import fold
from .many_rows import ManyRows
from .one_row import OneRow
from .prefill import keys_and_values
from .window import window_start


class Decoder:
    """The transformer with a cache of keys and values, for one or several texts at once::

        decoder = Decoder(params, config)
        logits = decoder.prefill([[1, 2, 3], [4]])  # (2, V), after each prompt
        logits = decoder.step(logits.argmax(axis=1))  # (2, V), after one more token of each

    The logits are those of `transformer.forward` for the same tokens, to rounding; of a text longer
    than ``max_seq_len`` the model sees what `window_start` says. `generate` and `generate_batch`
    take a decoder as their model. It serves one generation after another, quickest if each has as
    many texts as the one before: the parameters are copied into an order that suits the number.

    Attributes:
        config: of the transformer.
        likeliest: the tokens (B,) with the largest logits, the first of equal ones.
    """

    def __init__(self, params: Tree, config: Config) -> None:
        """Check the parameters.

        Args:
            params: of the `transformer`.
            config: its sizes and settings. There is no dropout.

        Raises:
            TypeError: for parameters that are not float32 or float64.
            ValueError: for parameters that do not fit the config.
        """
        transformer.forward(params, np.zeros(1, int), config=config)  # says what does not fit
        self.config = config
        self._params = params
        self.likeliest: list[int] = []
        self._texts: list[list[int]] = []
        self._starts: list[int] = []  # of the window of each text
        self._new: list[tuple[int, ...]] = []  # tokens (B,) that the texts do not hold yet
        self._room = 0  # steps until a window is full
        self._rows: OneRow | ManyRows | None = None
        self._batch_size = 0

    def prefill(self, prompts: Sequence[Sequence[int] | Array] | Array) -> Array:
        """Begin with prompts, in one pass, and return the logits after each.

        Args:
            prompts: B of them, each with at least one token; they may differ in length.

        Returns:
            Logits (B, V).

        Raises:
            TypeError: for tokens that are not integers.
            ValueError: for no prompt, an empty prompt, or a token outside ``[0, V)``;
                for logits that are not finite.
        """
        texts = [expect_prompt(prompt) for prompt in prompts]
        for text in texts:
            expect_tokens("a prompt", text, self.config.vocab_size)
        if not texts:
            raise ValueError("there must be at least one prompt: got none; pass [prompt]")
        if len(texts) != self._batch_size:
            weights = fold(self._params, self.config)
            self._rows = OneRow(weights) if len(texts) == 1 else ManyRows(weights, len(texts))
            self._batch_size = len(texts)
        self._texts = [text[:-1].tolist() for text in texts]
        self._starts = [0] * len(texts)
        self._new = []
        self._fill(range(len(texts)))
        with self.undisturbed():
            self.advance([int(text[-1]) for text in texts])
        return self.logits.copy()

    def step(self, tokens: Sequence[int] | Array) -> Array:
        """Go on with one token of each text, and return the logits after it.

        Args:
            tokens: (B,), in the order of the prompts.

        Returns:
            Logits (B, V).

        Raises:
            TypeError: for tokens that are not integers.
            ValueError: before `prefill`, for another number of tokens, or one outside ``[0, V)``;
                for logits that are not finite.
        """
        self._expect_begun()
        tokens = np.asarray(tokens)
        expect_tokens("tokens", tokens, self.config.vocab_size)
        if tokens.shape != (len(self._texts),):
            raise ValueError(
                f"step takes one token of each of the {len(self._texts)} texts: "
                f"got shape {tokens.shape}; prefill sets how many there are"
            )
        with self.undisturbed():
            self.advance(tokens.tolist())
        return self.logits.copy()

    @property
    def logits(self) -> Array:
        """The logits (B, V) after the last token of each text; the next step may write to them."""
        return self._expect_begun().logits

    @contextlib.contextmanager
    def undisturbed(self) -> Iterator[None]:
        """Return the context in which `advance` is to run; entering it costs some microseconds.

        Rows of several texts are multiplied with small blocks of matrices, which threads would
        only slow down. For a single row BLAS uses threads where a matrix is large.
        """
        one_row = isinstance(self._rows, OneRow)
        with np.errstate(all="ignore"), contextlib.nullcontext() if one_row else one_thread():
            yield

    def advance(self, tokens: list[int]) -> None:
        """Do what `step` does, without its checks."""
        if self._room == 0:
            self._move_on()
        self._room -= 1
        self._new.append(tuple(tokens))
        self.likeliest = self._rows.step(tokens)  # type: ignore[union-attr]

    def _move_on(self) -> None:
        """Fill the cache of those texts anew whose windows are full."""
        for i, text in enumerate(self._texts):
            text += [tokens[i] for tokens in self._new]
        self._new = []
        M = self.config.max_seq_len
        starts = [window_start(len(text) + 1, M) for text in self._texts]
        self._fill([i for i, start in enumerate(starts) if start != self._starts[i]])

    def _fill(self, rows: Sequence[int]) -> None:
        """Fill the cache of some texts with the windows that have room for one token more."""
        M = self.config.max_seq_len
        windows = []
        for row in rows:
            text = self._texts[row]
            self._starts[row] = window_start(len(text) + 1, M)
            windows.append(text[self._starts[row] :])
        lengths = [len(window) for window in windows]
        cache = self._expect_begun()
        cache.clear(rows)
        padded = np.zeros((len(rows), max(lengths)), np.int64)
        for i, window in enumerate(windows):
            padded[i, : len(window)] = window
        if padded.size:
            for layer, (k, v) in enumerate(keys_and_values(self._params, padded, self.config)):
                cache.load(layer, rows, lengths, k, v)
        pairs = zip(self._texts, self._starts, strict=True)
        self._room = M - max(len(text) - start for text, start in pairs)

    def _expect_begun(self) -> OneRow | ManyRows:
        if self._rows is None:
            raise ValueError("a decoder must begin with prefill: got none; call prefill(prompts)")
        return self._rows


def expect_prompt(prompt: Sequence[int] | Array) -> Array:
    """Return a prompt as an array (T,) of at least one token.

    Raises:
        ValueError: for an empty one.
    """
    tokens = np.array(prompt)
    if tokens.ndim != 1 or tokens.size == 0:
        raise ValueError(
            f"a prompt must have at least one token: got shape {tokens.shape}; pass some text"
        )
    return tokens
