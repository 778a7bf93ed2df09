import contextlib
import json
import random
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_tokenizers import (
    HARD,
    MADE,
    TEXT,
    bert_like,
    difference,
    library,
    llama_like,
    of_library,
    some_texts,
    trained,
)
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers

from functional_lm.files import FileFormatError
from functional_lm.text import SubwordTokenizer, load_tokenizer, subword
from functional_lm.text.tokenizer import continuation


@pytest.fixture(scope="module", params=MADE)
def tokenizer(request):
    return MADE[request.param]()


def test_encodings_are_those_of_the_library(tokenizer):
    for text in (*HARD, TEXT, *some_texts(200)):
        assert difference(tokenizer, text) is None


@pytest.mark.parametrize("kind", ["bpe", "unigram"])
@settings(max_examples=200)
@given(text=st.text())
def test_byte_level_ones_give_back_every_text(kind, text):
    tokenizer = trained(kind)
    tokens = tokenizer.encode(text)
    assert tokenizer.decode(tokens) == text
    assert "".join(tokenizer.stream(tokens)) == text
    assert tokenizer.losses == ()


def test_a_stream_is_the_text_of_its_tokens(tokenizer):
    draw = np.random.default_rng(0)
    for tokens in (draw.integers(0, tokenizer.vocab_size, 200), tokenizer.encode(TEXT)):
        pieces = list(tokenizer.stream(iter(tokens.tolist())))
        assert "".join(pieces) == tokenizer.decode(tokens)
        assert all(pieces)
        assert len(pieces) > 10


def test_tokens_that_there_are_not_have_no_text(tokenizer):
    tokens = tokenizer.encode("the quick fox").tolist()
    strange = [-1, *tokens, tokenizer.vocab_size, 2**40]
    assert tokenizer.decode(strange) == tokenizer.decode(tokens)


@pytest.mark.parametrize("length", [7, 50])
def test_pieces_leave_no_seam(tokenizer, length, monkeypatch):
    text = TEXT[:400] + "\n\n\n  x" + "a" * 100 + " b\tc \n d<|endoftext|> e" + TEXT[:300]
    tokens = library(tokenizer).encode(text, add_special_tokens=False).ids
    monkeypatch.setattr(subword, "PIECE", length)
    encoded, sizes = tokenizer.sized(text)
    assert tokenizer.encode(text).tolist() == encoded.tolist() == tokens
    assert sizes.sum() == len(text)
    with pytest.raises(ValueError, match=f"pair, at position {len(text)}; decode"):
        tokenizer.encode(text + "\udc80")


def test_a_piece_is_bounded_where_there_are_seams(monkeypatch):
    monkeypatch.setattr(subword, "PIECE", 50)
    assert max(map(len, subword._cut(TEXT, lambda position: True))) < 70


def test_what_is_lost_is_said():
    lost = bert_like().losses
    assert "capital letters ('Word' becomes 'word')" in lost
    assert any(one.startswith("line breaks ('a\\nb' becomes 'a b')") for one in lost)
    made = Tokenizer.from_str(trained("bpe").json)
    made.normalizer = normalizers.Lowercase()
    lossy = of_library(made)
    assert lossy.losses == ("capital letters ('Word' becomes 'word')",)
    assert lossy.token_bytes is None
    tokens, sizes = lossy.sized("AÉ")
    assert (len(tokens), sizes.sum()) == (3, 3)


def test_dropped_characters_count_to_a_token():
    tokenizer = trained("wordpiece")
    tokens, sizes = tokenizer.sized("  the\n\nfox  ")
    assert tokenizer.decode(tokens) == "the fox"
    assert sizes.tolist() == [5, 5 + 2]
    assert [part.size for part in tokenizer.sized(" \n ")] == [0, 0]


@pytest.mark.parametrize(
    "change",
    [
        {"pre_tokenizer": pre_tokenizers.ByteLevel(add_prefix_space=True)},
        {"pre_tokenizer": pre_tokenizers.Whitespace()},
        {"decoder": decoders.Fuse()},
        {"normalizer": normalizers.NFC()},
    ],
)
def test_only_what_gives_back_every_text_is_byte_level(change):
    made = Tokenizer.from_str(trained("bpe").json)
    for name, value in change.items():
        setattr(made, name, value)
    assert of_library(made).token_bytes is None


def test_tokens_that_eat_spaces_are_not_byte_level():
    made = Tokenizer.from_str(trained("bpe").json)
    made.add_special_tokens([AddedToken("<x>", lstrip=True)])
    assert of_library(made).token_bytes is None


def test_two_texts_with_one_token_are_not_byte_level():
    data = json.loads(SubwordTokenizer.train(["a b c"], vocab_size=257).json)
    data["model"]["vocab"]["b"] = data["model"]["vocab"]["a"]
    tokenizer = SubwordTokenizer(json.dumps(data))
    assert tokenizer.token_bytes is None
    assert tokenizer.losses


def test_split_before_bytes_is_byte_level():
    made = Tokenizer.from_str(trained("bpe").json)
    made.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(" ", "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer = of_library(made)
    assert tokenizer.token_bytes is not None
    assert all(tokenizer.decode(tokenizer.encode(text)) == text for text in HARD)


def test_the_end_of_a_text_has_no_bytes():
    tokenizer = trained("bpe")
    end = tokenizer.end_of_text
    assert tokenizer.encode("<|endoftext|>").tolist() == [end]
    assert tokenizer.token_bytes[end] == 0
    assert tokenizer.token_bytes[tokenizer.encode("the")].sum() == 3
    assert llama_like().end_of_text == 1
    assert of_library(Tokenizer(models.WordLevel({"a": 0}, "a"))).end_of_text is None


def test_a_prompt_by_default_has_tokens(tokenizer):
    assert len(tokenizer.encode(tokenizer.default_prompt))


def test_special_tokens_are_never_split():
    tokenizer = SubwordTokenizer.train([TEXT], vocab_size=300, special_tokens=["<a b>", "é"])
    tokens = tokenizer.encode("the<a b>fox é")
    assert set(tokens.tolist()) >= {0, 1}
    assert tokenizer.decode(tokens) == "the<a b>fox é"
    assert tokenizer.end_of_text is None


def test_a_random_encoding_is_made_certain():
    made = Tokenizer.from_str(trained("bpe").json)
    data = json.loads(made.to_str())
    data["model"]["dropout"] = 0.9
    tokenizer = SubwordTokenizer.from_data(data)
    assert tokenizer.encode(TEXT).tolist() == trained("bpe").encode(TEXT).tolist()


def test_the_same_text_gives_the_same_bpe():
    assert trained("bpe") == trained.__wrapped__("bpe")


def test_a_continuation_has_the_space_between_two_words():
    tokenizer = trained("wordpiece")
    prompt, tokens = tokenizer.encode("the quick"), tokenizer.encode("brown fox")
    assert "".join(continuation(tokenizer, prompt, tokens.tolist())) == " brown fox"


@pytest.mark.parametrize(
    ("texts", "given", "said"),
    [
        ([], {"vocab_size": 300}, "needs a text"),
        (["", ""], {"vocab_size": 300}, "needs a text"),
        (["a"], {"vocab_size": 256}, "vocab_size must be at least 257: got 256"),
        (["a"], {"vocab_size": 300, "kind": "words"}, "the kind of a tokenizer must be 'bpe' or"),
        (["ab\ud800"], {"vocab_size": 300}, "at position 2"),
    ],
)
def test_what_cannot_be_trained_is_refused(texts, given, said):
    with pytest.raises(ValueError, match=said):
        SubwordTokenizer.train(texts, **given)


def test_a_file_is_read_as_it_was_written(tmp_path, tokenizer):
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps(json.loads(tokenizer.to_json()), indent=1))
    assert load_tokenizer(path) == tokenizer
    Tokenizer.from_file(str(path))


@pytest.mark.parametrize(
    "content",
    [
        '{"model": {}}',
        '{"version": "1.0", "model": {"type": "BPE", "vocab": {}, "merges": []}}',
        '{"version": "1.0", "added_tokens": [], "model": {"type": "BPE", "vocab": {"a": 4294967295}'
        ', "merges": []}}',
        '{"version": "1.0", "model": {"type": "BPE", "vocab": {"a": 0}, "merges": [["a", "b"]]}}',
        '{"version": "9.0", "model": {"type": "WordPiece", "vocab": {"a": 0}}}',
    ],
)
def test_a_damaged_file_is_named(tmp_path, content):
    path = tmp_path / "tokenizer.json"
    path.write_text(content)
    with pytest.raises(FileFormatError, match=r"is not a tokenizer: .*; restore it from a copy$"):
        load_tokenizer(path)


def test_any_byte_of_a_file_may_be_wrong(tmp_path):
    path, draw = tmp_path / "tokenizer.json", random.Random(0)
    data = trained("bpe", 270).to_json().encode()
    for _ in range(100):
        damaged = bytearray(data)
        damaged[draw.randrange(len(data))] = draw.randrange(256)
        path.write_bytes(damaged)
        with contextlib.suppress(FileFormatError):
            assert len(load_tokenizer(path).encode("the fox")) >= 1


def test_what_the_library_raises_is_one_error():
    strict = of_library(Tokenizer(models.WordLevel({"a": 0, "<eos>": 1}, "none")))
    with pytest.raises(ValueError, match="the tokenizer cannot encode the text: WordLevel error"):
        strict.encode("b")
    assert strict.losses[0] == "capital letters ('Word' becomes an error)"
    assert strict.default_prompt == "<eos>"


def test_without_the_library_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(ImportError, match=r"pip install 'functional-lm\[bpe\]'"):
        SubwordTokenizer.train(["a"], vocab_size=300)
