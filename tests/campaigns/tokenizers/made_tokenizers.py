"""Small tokenizers of all kinds, texts for them, and the library to compare with."""

import functools
import json
import random

from tokenizers import Tokenizer, decoders, models, normalizers

from functional_lm.text import SubwordTokenizer

TEXT = "the quick brown fox jumps over the lazy dog, and the dog doesn't mind: 1234.\n" * 20
HARD = (
    "",
    "\0a\0",
    "👩‍👩‍👧 🙂🏽",
    "שלום עולם, مرحبا بالعالم",
    "e\u0301 ﬁ Å",
    " \t\r\n\n  a  b ",
    "<|endoftext|>a<|endoftext|>",
    "世界世界",
    "a" * 300,
)


@functools.cache
def trained(kind, vocab_size=300):
    return SubwordTokenizer.train([TEXT], kind=kind, vocab_size=vocab_size)


def of_library(made):
    return SubwordTokenizer.from_data(json.loads(made.to_str()))


def llama_like():
    """A BPE with bytes to fall back on, whose spaces are a character of their own."""
    vocabulary = {"<unk>": 0, "</s>": 1, **{f"<0x{i:02X}>": i + 2 for i in range(256)}}
    vocabulary |= {c: len(vocabulary) + i for i, c in enumerate("▁thequickbrownfx")}
    vocabulary |= {"▁t": len(vocabulary), "th": len(vocabulary) + 1}
    merges = [("▁", "t"), ("t", "h")]
    made = Tokenizer(models.BPE(vocabulary, merges, unk_token="<unk>", byte_fallback=True))
    made.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    made.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    return of_library(made)


def bert_like():
    made = Tokenizer.from_str(trained("wordpiece").json)
    made.normalizer = normalizers.BertNormalizer()
    made.enable_truncation(5)
    made.enable_padding(length=5)
    return of_library(made)


MADE = {
    **{kind: functools.partial(trained, kind) for kind in ("bpe", "unigram", "wordpiece")},
    "llama": llama_like,
    "bert": bert_like,
}


def library(tokenizer):
    """Return the tokenizer as the library reads it, without truncation and padding."""
    made = Tokenizer.from_str(tokenizer.json)
    made.no_truncation()
    made.no_padding()
    return made


def difference(tokenizer, text, made=None):
    """Return in words where a tokenizer differs from the library on a text, or None."""
    made = made or library(tokenizer)
    expected = made.encode(text, add_special_tokens=False).ids
    tokens, sizes = tokenizer.sized(text)
    if not tokenizer.encode(text).tolist() == tokens.tolist() == expected:
        return f"the tokens of {text!r} must be {expected}: got {tokens.tolist()}"
    if sizes.sum() != (len(text.encode()) if expected else 0) or (sizes < 0).any():
        return f"the sizes of {text!r} are {sizes.tolist()}"
    decoded = made.decode(expected, skip_special_tokens=False)
    if tokenizer.decode(tokens) != decoded:
        return f"{text!r} must come back as {decoded!r}: got {tokenizer.decode(tokens)!r}"
    if "".join(tokenizer.stream(tokens.tolist())) != decoded:
        return f"{text!r} streams otherwise than it decodes"
    if tokenizer.losses == () and tokenizer.token_bytes is not None and decoded != text:
        return f"{text!r} must come back: got {decoded!r}"
    return None


def some_texts(count, seed=0):
    """Yield texts of words, marks and any characters."""
    draw = random.Random(seed)
    words = [*TEXT.split(), *HARD, "\n", "  ", "Ünïcode", "<|endoftext|>", "é", "x.y", "\x00"]
    for _ in range(count):
        parts = [draw.choice(words) for _ in range(draw.randrange(1, 12))]
        parts += [chr(draw.choice((draw.randrange(0xD800), draw.randrange(0xE000, 0x110000))))]
        draw.shuffle(parts)
        yield draw.choice(("", " ", "\n")).join(parts)
