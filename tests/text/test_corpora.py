import pytest

from functional_lm.text import CharTokenizer, load_corpus, read_corpus
from functional_lm.text.corpora import stdlib_corpus


def test_the_standard_library_is_text_enough():
    corpus = load_corpus("stdlib")
    assert len(corpus.text) > 200_000
    assert CharTokenizer.train(corpus.text).vocab_size < 100
    assert corpus == stdlib_corpus()


def test_the_real_text(shakespeare):
    corpus = load_corpus("shakespeare")
    assert corpus.text == shakespeare
    assert CharTokenizer.train(corpus.text).vocab_size == 65


def test_another_text_under_its_name_is_refused(tmp_path):
    (tmp_path / "tinyshakespeare.txt").write_text("To be or not\n")
    with pytest.raises(ValueError, match="must be Tiny Shakespeare: it is 13 bytes long"):
        load_corpus(environment={"FUNCTIONAL_LM_DATA": str(tmp_path)})
    with (tmp_path / "tinyshakespeare.txt").open("wb") as file:
        file.truncate(2**40)  # too long to be read whole
    with pytest.raises(ValueError, match="it is longer than 1,115,394 bytes"):
        load_corpus(environment={"FUNCTIONAL_LM_DATA": str(tmp_path)})


def test_an_unknown_name_lists_the_known():
    with pytest.raises(ValueError, match="one of shakespeare, stdlib: got 'marlowe'"):
        load_corpus("marlowe")


def test_a_file_in_another_encoding(tmp_path):
    path = tmp_path / "latin.txt"
    path.write_bytes("naïve".encode("latin-1"))
    assert read_corpus(path, encoding="latin-1") == ("naïve", str(path))
