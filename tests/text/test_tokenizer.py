import json
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from functional_lm.files import FileFormatError
from functional_lm.text import CharTokenizer, load_tokenizer
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
