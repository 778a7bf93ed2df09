"""Subword tokenizers: those of Hugging Face's `tokenizers`, which the extra bpe installs.

Byte-level ones first write a text as bytes, so that they give back every text. Others lose what
their parts drop: `SubwordTokenizer.losses` says what.
"""

import contextlib
import dataclasses
import functools
import itertools
import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, ClassVar

import numpy as np

from ..contract import Array, expect_choice, expect_int
from .utf8 import streamed, utf8, widths

__all__ = ["END_OF_TEXT", "KINDS", "SubwordTokenizer"]

KINDS = ("bpe", "wordpiece", "unigram")
"""Those that can be trained here."""

END_OF_TEXT = "<|endoftext|>"

ENDS = (END_OF_TEXT, "</s>", "<|end_of_text|>", "<eos>", "[SEP]")
"""Names of the token that ends a document, in the files of GPT-2, T5, Llama 3, Gemma and BERT."""

MAX_VOCABULARY = 2**22

PIECE = 2**16
"""Characters that are encoded at once, as the library takes some 200 bytes for each."""

BATCH = 4
"""Pieces that are encoded side by side."""

CONTEXT = 128
"""Characters on each side of a seam that show whether it changes the tokens."""

SEAMS = 16
"""Places that are tried before a text is encoded whole."""

SEAM = re.compile(r"(?<=\S)(?=\s\S)")
"""Before a single space or line break: no pre-tokenizer joins what is on both sides."""

HELD = 4
"""Tokens that may change the text of those before them: ``do``, ``n``, ``'``, ``t``, say."""

WINDOW = 32
"""Tokens that are decoded together where a text streams."""

PROBES = {
    "capital letters": "Word",
    "accents": "café",
    "combining marks": "e\u0301",
    "compatibility characters": "ﬁ",
    "emoji": "🙂",
    "NUL": "a\0b",
    "line breaks": "a\nb",
    "runs of spaces": "a  b",
    "spaces at the ends": " a ",
}
"""What a tokenizer may lose, and a text that shows it."""

_PRINTED = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
_OTHERS = [byte for byte in range(256) if byte not in _PRINTED]
_BYTE_OF = {chr(byte): byte for byte in _PRINTED}
_BYTE_OF |= {chr(256 + i): byte for i, byte in enumerate(_OTHERS)}
"""Byte-level tokenizers write the bytes as these characters (Radford et al. 2019, their code)."""


@dataclasses.dataclass(frozen=True)
class SubwordTokenizer:
    """A tokenizer of `tokenizers`: byte-pair encoding, WordPiece, Unigram or any other.

    It never adds special tokens to a text, never cuts or pads one, and always encodes it alike;
    a special token that is written out in a text is that token.

    Attributes:
        json: what its tokenizer.json holds.
    """

    kind: ClassVar[str] = "subword"
    unit: ClassVar[str] = "token"

    json: str

    def __post_init__(self) -> None:
        """Require a tokenizer."""
        if not 0 < self.vocab_size <= MAX_VOCABULARY:
            raise ValueError(
                f"it must have from 1 to {MAX_VOCABULARY:,} tokens: got {self.vocab_size:,}"
            )

    @classmethod
    def train(
        cls,
        texts: Iterable[str],
        *,
        kind: str = "bpe",
        vocab_size: int,
        special_tokens: Sequence[str] = (END_OF_TEXT,),
    ) -> "SubwordTokenizer":
        """Return a tokenizer for some texts.

        BPE (Sennrich et al. 2016) and Unigram (Kudo 2018) are byte-level, with all 256 bytes in
        their vocabularies, and give back every text. WordPiece (Schuster and Nakajima 2012) is that
        of BERT: it drops spaces, and a word that it cannot compose becomes [UNK].

        The same texts give the same BPE. The library trains the other two with sums in an order
        of its own, so that they may differ a little each time.

        Args:
            texts: to learn from.
            kind: one of `KINDS`.
            vocab_size: V, with the special tokens. Short texts may have fewer.
            special_tokens: tokens for texts of these names, never split.

        Raises:
            ImportError: without `tokenizers`.
            ValueError: for no text, another kind, or a vocabulary that does not hold the bytes.
        """
        hf = _library()
        expect_choice("the kind of a tokenizer", kind, KINDS)
        special = [*dict.fromkeys(special_tokens), *["[UNK]"] * (kind == "wordpiece")]
        least = len(special) + (1 if kind == "wordpiece" else 256)
        expect_int("vocab_size", vocab_size, minimum=least, maximum=MAX_VOCABULARY)
        common = {"vocab_size": vocab_size, "special_tokens": special, "show_progress": False}
        alphabet = {"initial_alphabet": hf.pre_tokenizers.ByteLevel.alphabet()}
        if kind == "bpe":
            trainer = hf.trainers.BpeTrainer(**common, **alphabet)
            made = hf.Tokenizer(hf.models.BPE())
        elif kind == "unigram":
            trainer = hf.trainers.UnigramTrainer(**common, **alphabet, unk_token=None)
            made = hf.Tokenizer(hf.models.Unigram())
        else:
            trainer = hf.trainers.WordPieceTrainer(**common)
            made = hf.Tokenizer(hf.models.WordPiece(unk_token="[UNK]"))
        if kind == "wordpiece":
            made.pre_tokenizer = hf.pre_tokenizers.BertPreTokenizer()
            made.decoder = hf.decoders.WordPiece()
        else:
            made.pre_tokenizer = hf.pre_tokenizers.ByteLevel(add_prefix_space=False)
            made.decoder = hf.decoders.ByteLevel()
        known = (text for text in texts if utf8(text))
        pieces = (piece for text in known for piece in _cut(text, lambda position: True))
        first = next(pieces, "")
        if not first:
            raise ValueError("a tokenizer needs a text: got an empty one; pass some characters")
        made.train_from_iterator(itertools.chain([first], pieces), trainer)
        return cls.from_data(json.loads(made.to_str()))

    @functools.cached_property
    def library_tokenizer(self) -> Any:
        """The tokenizer as `tokenizers` has it; it must not be changed."""
        hf = _library()
        with _named("tokenizers cannot read it"):
            made = hf.Tokenizer.from_str(self.json)
            made.no_padding()
            made.no_truncation()
            if getattr(made.model, "dropout", None):
                made.model.dropout = None
        return made

    @functools.cached_property
    def vocab_size(self) -> int:
        """V, the largest token and one."""
        return max(self.library_tokenizer.get_vocab().values(), default=-1) + 1

    @functools.cached_property
    def default_prompt(self) -> str:
        """A new line; where that has no token, the end of a text, or the first text that has."""
        end = [] if self.end_of_text is None else [self.decode([self.end_of_text])]
        texts = itertools.chain(["\n"], end, (self.decode([i]) for i in range(self.vocab_size)))
        return next((text for text in texts if self._round_trip(text)), "\n")

    @functools.cached_property
    def end_of_text(self) -> int | None:
        """The token of the first of `ENDS` that there is, or None."""
        known = map(self.library_tokenizer.token_to_id, ENDS)
        return next((token for token in known if token is not None), None)

    @functools.cached_property
    def losses(self) -> tuple[str, ...]:
        """What decoding does not give back of `PROBES`."""
        if self._pieces is not None:
            return ()
        changed = {what: self._round_trip(text) for what, text in PROBES.items()}
        return tuple(
            f"{what} ({PROBES[what]!r} becomes {'an error' if text is None else repr(text)})"
            for what, text in changed.items()
            if text != PROBES[what]
        )

    def _round_trip(self, text: str) -> str | None:
        """Return what comes back of a text; None if it cannot be encoded."""
        try:
            return self.decode(self.encode(text))
        except ValueError:
            return None

    def _encoded(self, texts: list[str], *, with_offsets: bool = False) -> list[Any]:
        """Return what the library makes of some texts."""
        made = self.library_tokenizer
        encode = made.encode_batch if with_offsets else made.encode_batch_fast
        with _named("the tokenizer cannot encode the text"):
            return encode(texts, add_special_tokens=False)

    @functools.cached_property
    def token_bytes(self) -> Array | None:
        """How many bytes each token of a byte-level tokenizer stands for (V,), else None."""
        if self._lengths is None:
            return None
        lengths = self._lengths.copy()
        if self.end_of_text is not None:
            lengths[self.end_of_text] = 0
        return lengths

    @functools.cached_property
    def _lengths(self) -> Array | None:
        """The same, also of the end of a text, which a text may have written out."""
        if self._pieces is None:
            return None
        lengths = list(map(len, self._pieces))
        return np.array(lengths, np.min_scalar_type(max(lengths)))

    @functools.cached_property
    def _pieces(self) -> list[bytes] | None:
        """The bytes of each token; None unless the tokenizer writes every text as its bytes."""
        vocabulary = self.library_tokenizer.get_vocab()
        ambiguous = len(set(vocabulary.values())) < len(vocabulary)  # two texts with one token
        if ambiguous or not _is_byte_level(self.library_tokenizer):
            return None
        added = self.library_tokenizer.get_added_tokens_decoder()
        pieces = [b""] * self.vocab_size
        for text, token in vocabulary.items():
            plain = token in added or not _BYTE_OF.keys() >= set(text)
            pieces[token] = text.encode() if plain else bytes(map(_BYTE_OF.__getitem__, text))
        return pieces

    def encode(self, text: str) -> Array:
        """Return the tokens of a text (T,), in the smallest type of unsigned integers.

        A long text is encoded in pieces, cut where the tokens on both sides stay the same.

        Raises:
            ValueError: naming the position of half of a surrogate pair; or for a word that the
                tokenizer does not know and has no token for, in the words of the library.
        """
        kind = np.min_scalar_type(self.vocab_size - 1)
        utf8(text)
        pieces = _cut(text, self._is_seam(text))
        tokens = [
            np.array(one.ids, kind)
            for batch in iter(lambda: list(itertools.islice(pieces, BATCH)), [])
            for one in self._encoded(batch)
        ]
        return np.concatenate([np.empty(0, kind), *tokens])

    def sized(self, text: str) -> tuple[Array, Array]:
        """Return the tokens of a text, and the bytes of the text that each stands for, both (T,).

        Characters that a tokenizer drops count to the token after them, the last ones to that
        before them.
        """
        if self._lengths is not None:
            tokens = self.encode(text)
            return tokens, self._lengths[tokens]
        utf8(text)
        parts, sizes, waiting = list[Array](), list[Array](), 0
        for piece in _cut(text, self._is_seam(text)):
            (made,) = self._encoded([piece], with_offsets=True)
            upto = np.concatenate([[0], widths(piece).cumsum()])  # bytes before each character
            ends = upto[np.maximum.accumulate([0, *(end for _, end in made.offsets)])]
            ends[1:] += waiting  # dropped at the end of earlier pieces
            waiting += int(upto[-1] - ends[-1])
            parts.append(np.array(made.ids, np.min_scalar_type(self.vocab_size - 1)))
            sizes.append(np.diff(ends))
        tokens = np.concatenate([self.encode(""), *parts])
        joined = np.concatenate([np.empty(0, np.int64), *sizes])
        joined[-1:] += waiting
        return tokens, joined

    def _is_seam(self, text: str) -> Callable[[int], bool]:
        """Return what tells whether the tokens of a text are those of its parts on both sides."""

        def same(position: int) -> bool:
            left = text[max(0, position - CONTEXT) : position]
            right = text[position : position + CONTEXT]
            made = self._encoded([left, right, left + right])
            return made[0].ids + made[1].ids == made[2].ids

        return same

    def decode(self, tokens: Iterable[int]) -> str:
        """Return the text of tokens; an unknown one has none, wrong UTF-8 decodes as U+FFFD."""
        if self._pieces is not None:
            return b"".join(map(self._piece, tokens)).decode(errors="replace")
        known = [token for token in map(int, tokens) if 0 <= token < self.vocab_size]
        return self.library_tokenizer.decode(known, skip_special_tokens=False)

    def stream(self, tokens: Iterable[int]) -> Iterator[str]:
        """Yield the text of tokens piece by piece, never a part of a character."""
        if self._pieces is not None:
            return streamed(map(self._piece, tokens))
        return self._stream_of_words(tokens)

    def _piece(self, token: int) -> bytes:
        return self._pieces[token] if 0 <= token < self.vocab_size else b""  # type: ignore[index]

    def _is_byte(self, token: int) -> bool:
        """Return whether a token is a byte for what has no other token, as in Llama 2."""
        known = 0 <= token < self.vocab_size
        text = self.library_tokenizer.id_to_token(token) if known else None
        return re.fullmatch("<0x[0-9A-F]{2}>", text or "") is not None

    def _stream_of_words(self, tokens: Iterable[int]) -> Iterator[str]:
        """Yield what later tokens do not change, from a window that moves with the tokens."""
        window: list[int] = []
        done = 0  # characters of the window's text that have been yielded

        def border(end: int) -> int:
            """Return the last place up to an end that is not between two bytes."""
            while end > 0 and self._is_byte(window[end - 1]):
                end -= 1
            return max(end, 0)

        def certain() -> str:
            return _common(self.decode(window[: border(len(window) - HELD)]), self.decode(window))

        for token in tokens:
            window.append(int(token))
            text = certain()
            if len(text) > done:
                yield text[done:]
                done = len(text)
            if len(window) > WINDOW and (start := border(WINDOW // 2)):
                del window[:start]
                done = len(certain())
        if rest := self.decode(window)[done:]:
            yield rest

    def to_json(self) -> str:
        """Return what a tokenizer.json holds."""
        return self.json

    @classmethod
    def from_data(cls, data: dict[str, Any]) -> "SubwordTokenizer":
        """Return the tokenizer of a parsed tokenizer.json.

        Raises:
            ImportError: without `tokenizers`.
            ValueError: if it is damaged.
        """
        return cls(json.dumps(data, ensure_ascii=False))


def _library() -> Any:
    try:
        import tokenizers
    except ImportError:
        raise ImportError(
            "subword tokenizers need tokenizers: pip install 'functional-lm[bpe]'"
        ) from None
    return tokenizers


@contextlib.contextmanager
def _named(what: str) -> Iterator[None]:
    """Raise a ValueError for whatever the library raises, which has no types of its own."""
    try:
        yield
    except BaseException as error:
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        raise ValueError(f"{what}: {str(error)[:300]}") from None


def _cut(text: str, is_seam: Callable[[int], bool]) -> Iterator[str]:
    """Yield the pieces of a text, cut at seams behind each `PIECE` characters."""
    start = 0
    while start < len(text):
        places = (place.start() for place in SEAM.finditer(text, start + PIECE))
        tried = itertools.islice(places, SEAMS)
        end = next((place for place in tried if is_seam(place)), len(text))
        yield text[start:end]
        start = end


def _is_byte_level(tokenizer: Any) -> bool:
    """Return whether a tokenizer of the library writes a text as bytes and leaves nothing out."""
    before, model = _parts(tokenizer.pre_tokenizer), tokenizer.model
    byte_level = [part for part in before if part["type"] == "ByteLevel"]
    others = [part for part in before if part["type"] != "ByteLevel"]
    added = tokenizer.get_added_tokens_decoder().values()
    return (
        type(model).__name__ in ("BPE", "Unigram")
        and not getattr(model, "continuing_subword_prefix", None)
        and not getattr(model, "end_of_word_suffix", None)
        and _BYTE_OF.keys() <= tokenizer.get_vocab().keys()
        and not _parts(tokenizer.normalizer)
        and bool(byte_level)
        and not any(part["add_prefix_space"] for part in byte_level)
        and all(part["type"] in ("Digits", "Split") for part in others)
        and not any(part.get("behavior") == "Removed" for part in others)
        and [part["type"] for part in _parts(tokenizer.decoder)] == ["ByteLevel"]
        and not any(token.lstrip or token.rstrip for token in added)
    )


def _parts(part: Any) -> list[dict[str, Any]]:
    """Return the settings of a part of a tokenizer, of a sequence those of each in order."""

    def flat(state: dict[str, Any]) -> list[dict[str, Any]]:
        inner = [value for value in state.values() if isinstance(value, list)]
        if state["type"] != "Sequence":
            return [state]
        return [one for state in inner[0] for one in flat(state)]

    return [] if part is None else flat(json.loads(part.__getstate__()))


def _common(one: str, other: str) -> str:
    """Return the beginning that two texts share."""
    pairs = enumerate(zip(one, other, strict=False))
    return one[: next((i for i, (a, b) in pairs if a != b), min(len(one), len(other)))]
