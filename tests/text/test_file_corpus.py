import json
import os
import shutil

import numpy as np
import pytest

from functional_lm.files import FileFormatError
from functional_lm.text import (
    CharTokenizer,
    FileCorpus,
    Mixture,
    Part,
    batch_at,
    documents,
    file_corpus,
    read_corpus,
)

WORDS = "the quick brown fox jumps over the lazy dog"


@pytest.fixture
def corpus(tmp_path, monkeypatch):
    """Return a function that makes a corpus of files by name, read in small pieces."""
    monkeypatch.setattr(documents, "PIECE", 64)
    monkeypatch.setattr(file_corpus, "PIECE", 40)
    monkeypatch.setattr(file_corpus, "SAVE_EVERY", 2)

    def make(weights=None, **files):
        for name, content in files.items():
            path = tmp_path / name.replace("_", ".")
            path.write_text(content if isinstance(content, str) else "\n".join(content))
        names = weights or [name.replace("_", ".") for name in files]
        parts = [Part(tmp_path / name, (weights or {}).get(name, 1.0)) for name in names]
        return FileCorpus(tuple(parts), cache=tmp_path / "cache")

    return make


def lines(n, start=0):
    return [json.dumps({"text": f"{WORDS} {i}"}) for i in range(start, start + n)]


def forbidden(*arguments):
    raise AssertionError("it is encoded again")


def test_batches_are_those_of_the_text_in_memory(corpus, tmp_path):
    made = corpus(a_txt="\n".join([WORDS] * 40))
    text = read_corpus(tmp_path / "a.txt")
    tokenizer = text.characters()
    assert made.characters() == tokenizer
    for ours, theirs in zip(made.encode(tokenizer), text.encode(tokenizer), strict=True):
        assert isinstance(ours, np.memmap)
        assert ours.dtype == np.uint16
        np.testing.assert_array_equal(ours, theirs)
        for x, y in zip(
            *(batch_at(t, (1,), 3, batch_size=4, seq_len=16) for t in (ours, theirs)), strict=True
        ):
            np.testing.assert_array_equal(x, y, strict=True)


def test_an_encoding_is_made_once(corpus, monkeypatch):
    made = corpus(a_jsonl=lines(20))
    tokenizer = made.characters()
    tokens, held_out = made.encode(tokenizer)
    text = "\n\n".join(f"{WORDS} {i}" for i in range(20))
    assert tokenizer.decode([*tokens, *held_out]) == text
    monkeypatch.setattr(file_corpus, "encode_all", forbidden)
    again, _ = corpus(a_jsonl=lines(20)).encode(tokenizer)
    np.testing.assert_array_equal(again, tokens)
    with pytest.raises(AssertionError, match="encoded again"):
        made.encode(CharTokenizer(tokenizer.characters + "~"))  # another tokenizer


def test_a_changed_file_is_noticed(corpus, tmp_path, monkeypatch):
    made = corpus(a_txt=WORDS * 9)
    tokenizer, before = made.characters(), made.sha256
    made.encode(tokenizer)
    status = (tmp_path / "a.txt").stat()
    changed = corpus(a_txt=WORDS * 8 + WORDS.replace("fox", "dog"))
    os.utime(tmp_path / "a.txt", ns=(status.st_atime_ns, status.st_mtime_ns))
    assert changed.sha256 != before
    tokens, held_out = changed.encode(tokenizer)
    assert tokenizer.decode([*tokens, *held_out]).endswith("dog jumps over the lazy dog")
    # The other settings decide what is read, too.
    assert corpus(a_txt=WORDS * 9).sha256 == before
    assert FileCorpus(made.parts, encoding="latin-1", cache=made.cache).sha256 != before


def test_a_file_is_hashed_again_only_if_it_may_have_changed(corpus, tmp_path, monkeypatch):
    made = corpus(a_txt=WORDS)
    monkeypatch.setattr(file_corpus, "FRESH", -(10**12))  # as if the file were old
    digest = made.sha256
    monkeypatch.setattr(file_corpus.hashlib, "file_digest", forbidden)
    assert FileCorpus(made.parts, cache=made.cache).sha256 == digest
    (tmp_path / "a.txt").write_text(WORDS)
    with pytest.raises(AssertionError):
        assert FileCorpus(made.parts, cache=made.cache).sha256


def test_a_file_that_changes_meanwhile_leaves_nothing(corpus, tmp_path):
    made = corpus(a_txt=WORDS * 9)
    tokenizer = made.characters()
    assert made.sha256
    (tmp_path / "a.txt").write_text(WORDS * 10)
    with pytest.raises(ValueError, match=r"a.txt has changed while it was encoded; start again"):
        made.encode(tokenizer)
    assert not [path for path in (tmp_path / "cache").iterdir() if path.is_dir()]


def test_a_bad_file_leaves_nothing(corpus, tmp_path):
    made = corpus(a_jsonl=[*lines(20), "[]"])
    with pytest.raises(FileFormatError, match=r"a.jsonl, line 21, must be an object"):
        made.encode(CharTokenizer.train("".join(map(chr, range(128)))))
    assert not [path for path in (tmp_path / "cache").iterdir() if path.is_dir()]


def test_a_character_that_the_tokenizer_lacks_is_an_error(corpus):
    with pytest.raises(ValueError, match="got 'q' at position 4"):
        corpus(a_txt=WORDS).encode(CharTokenizer(" eht"))


def interrupted(encode_all, after):
    def encode(*arguments):
        for number, streams in enumerate(encode_all(*arguments)):
            if number == after:
                raise KeyboardInterrupt
            yield streams

    return encode


@pytest.mark.parametrize("after", [0, 1, 4, 9])
def test_an_interrupted_encoding_resumes(corpus, tmp_path, monkeypatch, after):
    made = corpus(a_jsonl=lines(20))
    tokenizer = made.characters()
    expected = [np.array(part) for part in made.encode(tokenizer)]
    shutil.rmtree(tmp_path / "cache")
    encode_all, encoded = file_corpus.encode_all, []
    monkeypatch.setattr(file_corpus, "encode_all", interrupted(encode_all, after))
    with pytest.raises(KeyboardInterrupt):
        made.encode(tokenizer)

    def counted(*arguments):
        for streams in encode_all(*arguments):
            encoded.append(streams)
            yield streams

    monkeypatch.setattr(file_corpus, "encode_all", counted)
    for ours, theirs in zip(made.encode(tokenizer), expected, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert len(encoded) == 20 - after // 2 * 2  # two parcels are saved together


def test_a_damaged_encoding_is_made_again(corpus, tmp_path):
    made = corpus(a_txt=WORDS * 9)
    tokenizer = made.characters()
    expected = np.array(made.encode(tokenizer)[0])
    (place,) = (path for path in (tmp_path / "cache").iterdir() if path.is_dir())
    for damage in (
        lambda: os.truncate(place / "tokens.bin", 10),
        lambda: (place / "encoding.json").write_text("{}"),
        lambda: (place / "encoding.json").write_text("[1"),
        (place / "held_out.bin").unlink,
    ):
        damage()
        np.testing.assert_array_equal(made.encode(tokenizer)[0], expected)


def test_held_out_documents(corpus):
    made = corpus(a_jsonl=lines(200))
    made = FileCorpus(made.parts, validation="documents", cache=made.cache)
    tokenizer = made.characters()
    sides = [set(tokenizer.decode(part).split("\n\n")) for part in made.encode(tokenizer)]
    assert not sides[0] & sides[1]
    assert sides[0] | sides[1] == {f"{WORDS} {i}" for i in range(200)}
    assert 8 < len(sides[1]) < 35


def test_a_mixture(corpus):
    made = corpus({"a.txt": 3.0, "b.txt": 1.0}, a_txt="a" * 1000, b_txt="b" * 3000)
    tokens, held_out = made.encode(made.characters())
    assert isinstance(tokens, Mixture)
    assert [len(text) for text in tokens.texts] == [900, 2700]
    assert tokens.weights == (3.0, 1.0)
    assert made.characters().decode(held_out) == "a" * 100 + "b" * 33
    swapped = corpus({"a.txt": 1.0, "b.txt": 3.0})
    assert swapped.sha256 != made.sha256
    assert made.source.endswith("b.txt")


def test_parts_and_weights(tmp_path):
    odd = tmp_path / "a=b"
    odd.write_text("a")
    assert Part.parse(str(odd)) == Part(odd)
    assert Part.parse(f"{odd}=2") == Part(odd, 2.0)
    with pytest.raises(ValueError, match="must be PATH or PATH=WEIGHT: got 'a=b'"):
        Part.parse("a=b")
    with pytest.raises(ValueError, match="the weight of data must be finite and at least 1e-09"):
        Part.parse("a=0")
    with pytest.raises(ValueError, match="at least one file or folder"):
        FileCorpus(())
