import hashlib

import pytest

from functional_lm.text import CharTokenizer, default_corpus, read_corpus
from functional_lm.text.corpora import stdlib_corpus


def test_the_default_is_shakespeare_where_the_folder_has_it(tmp_path):
    (tmp_path / "tinyshakespeare.txt").write_text("First Citizen:\n")
    corpus = default_corpus({"FUNCTIONAL_LM_DATA": str(tmp_path)})
    assert corpus.text == "First Citizen:\n"
    assert corpus.source == str(tmp_path / "tinyshakespeare.txt")


def test_else_the_standard_library_and_it_says_why(tmp_path):
    unset = default_corpus({})
    assert "standard library (FUNCTIONAL_LM_DATA is not set)" in unset.source
    missing = default_corpus({"FUNCTIONAL_LM_DATA": str(tmp_path)})
    assert f"no tinyshakespeare.txt in {tmp_path}" in missing.source
    assert missing.text == unset.text


def test_the_standard_library_is_text_enough():
    corpus = stdlib_corpus()
    assert len(corpus.text) > 200_000
    assert CharTokenizer.train(corpus.text).vocab_size < 100


def test_the_real_text(shakespeare):
    assert len(shakespeare) == 1_115_394
    assert CharTokenizer.train(shakespeare).vocab_size == 65
    digest = hashlib.sha256(shakespeare.encode()).hexdigest()
    assert digest == "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed"


def test_a_file_that_is_not_utf8_names_the_byte(tmp_path):
    path = tmp_path / "latin.txt"
    path.write_bytes("naïve".encode("latin-1"))
    with pytest.raises(ValueError, match="byte 0xef at offset 2"):
        read_corpus(path)


def test_an_empty_file_is_named(tmp_path):
    path = tmp_path / "empty.txt"
    path.write_text("")
    with pytest.raises(ValueError, match=r"empty\.txt is empty"):
        read_corpus(path)
    with pytest.raises(FileNotFoundError):
        read_corpus(tmp_path / "missing.txt")
