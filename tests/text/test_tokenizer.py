import json
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from functional_lm.files import FileFormatError
from functional_lm.text import (
    ByteTokenizer,
    CharTokenizer,
    Corpus,
    fingerprint,
    load_tokenizer,
    make_tokenizer,
    tokenizer_of,
)
from functional_lm.text.tokenizer import PIECE


@given(st.text(min_size=1))
def test_decoding_undoes_encoding(text):
    tokenizer = CharTokenizer.train(text)
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    assert ids.dtype.kind == "u"
    assert ids.max() < tokenizer.vocab_size == len(set(text))


def test_an_unknown_character_is_named():
    with pytest.raises(ValueError, match="got 'é' at position 2"):
        CharTokenizer.train("abc ").encode("abéc")


@pytest.mark.parametrize(("count", "size"), [(250, 1), (5000, 2)])
def test_tokens_take_the_smallest_type_and_pieces_leave_no_seam(count, size):
    text = "".join(map(chr, range(0xE000, 0xE000 + count))) + "a" * PIECE + "é" * PIECE
    tokenizer = CharTokenizer.train(text)
    tokens = tokenizer.encode(text)
    assert tokens.itemsize == size
    assert tokens.tolist() == [tokenizer.characters.index(c) for c in text[:count]] + [
        *[0] * PIECE,
        *[1] * PIECE,
    ]
    with pytest.raises(ValueError, match=f"got 'b' at position {len(text)}"):
        tokenizer.encode(text + "b")


def test_a_prompt_by_default():
    assert [CharTokenizer(text).default_prompt for text in ("\n ab", "ab")] == ["\n", "a"]


def test_an_unknown_id_decodes_as_a_question_mark():
    assert CharTokenizer.train("abc").decode([0, 7, -1, 2]) == "a??c"


def test_files(tmp_path):
    path = tmp_path / "tokenizer.json"
    tokenizer = CharTokenizer.train('quotes " and \\ and é and \n')
    path.write_text(tokenizer.to_json())
    assert load_tokenizer(path) == tokenizer


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "[]",
        "{}",
        '{"type": "bpe"}',
        '{"type": "subword"}',
        '{"type": ["char"]}',
        '{"type": "char", "characters": 3}',
        '{"type": "char", "characters": "ba"}',
        '{"type": "char", "characters": "aa"}',
    ],
)
def test_a_file_that_is_no_tokenizer_is_named(tmp_path, content):
    path = tmp_path / "tokenizer.json"
    path.write_text(content)
    with pytest.raises(FileFormatError, match=r"restore it from a copy$") as caught:
        load_tokenizer(path)
    assert caught.value.path == path


def test_half_of_a_surrogate_pair_is_no_character():
    # No file could hold it: a run with such a tokenizer would never open again.
    with pytest.raises(ValueError, match=r"got '\\udc80', half of a surrogate pair; decode"):
        CharTokenizer.train(b"a\x80".decode("utf-8", "surrogateescape"))


def test_more_characters_than_there_are_cost_no_memory(tmp_path):
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps({"type": "char", "characters": "a" * 10_000_000}))
    tracemalloc.start()
    with pytest.raises(FileFormatError, match="sorted, distinct and at least one: got 'aaaa"):
        load_tokenizer(path)
    assert tracemalloc.get_traced_memory()[1] < 50_000_000
    tracemalloc.stop()


def test_an_empty_text_is_refused():
    with pytest.raises(ValueError, match="needs a text"):
        CharTokenizer.train("")


@given(st.text())
def test_bytes_are_utf8(text):
    tokenizer = ByteTokenizer()
    tokens, sizes = tokenizer.sized(text)
    assert tokens.tolist() == list(text.encode())
    assert sizes.sum() == len(tokens)
    assert tokenizer.decode(tokens) == "".join(tokenizer.stream(tokens.tolist())) == text


def test_bytes_that_are_no_text():
    tokenizer = ByteTokenizer()
    assert tokenizer.decode([97, 0xFF, 256, -1, 0xC3]) == "a" + 4 * "\ufffd"
    assert tokenizer.token_bytes.sum() == 255
    assert tokenizer.token_bytes[tokenizer.end_of_text] == 0
    with pytest.raises(ValueError, match="half of a surrogate pair, at position 1; decode"):
        tokenizer.encode("a\ud800")


@given(st.text(min_size=1))
def test_the_bytes_of_characters(text):
    tokenizer = CharTokenizer.train(text)
    assert tokenizer.sized(text)[1].sum() == len(text.encode())


@pytest.mark.parametrize("spec", ["char", "byte", "bpe:270", "FILE"])
def test_a_tokenizer_by_its_name(spec, tmp_path):
    corpus = Corpus("a cat and a dog " * 20, "a text")
    if spec == "FILE":
        spec = str(tmp_path / "tokenizer.json")
        (tmp_path / "tokenizer.json").write_text(make_tokenizer("bpe:270", corpus).to_json())
    tokenizer = make_tokenizer(spec, corpus)
    assert tokenizer.decode(tokenizer.encode("a dog")) == "a dog"
    again = tokenizer_of(json.loads(tokenizer.to_json()))
    assert again == tokenizer
    assert fingerprint(again) == fingerprint(tokenizer)


def test_only_training_text_teaches_subwords():
    corpus = Corpus("ab" * 900 + "xyxyxy" * 33, "a text")
    vocabulary = make_tokenizer("bpe:300", corpus).library_tokenizer.get_vocab()
    assert "ab" in vocabulary
    assert "xy" not in vocabulary


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("bpe", "needs a vocabulary's size: got 'bpe'; pass bpe:1024"),
        ("unigram:many", "got 'unigram:many'; pass unigram:1024"),
        ("words", "a tokenizer must be char, byte, bpe:N, .*: there is no file words"),
    ],
)
def test_a_tokenizer_that_there_is_not(spec, said):
    with pytest.raises((ValueError, OSError), match=said):
        make_tokenizer(spec, Corpus("a", "a text"))
