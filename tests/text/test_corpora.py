import pytest

from functional_lm.files import FileFormatError
from functional_lm.text import ByteTokenizer, CharTokenizer, Corpus, load_corpus, read_corpus


def test_the_standard_library_is_text_enough():
    corpus = load_corpus("stdlib")
    assert len(corpus.text) > 200_000
    assert CharTokenizer.train(corpus.text).vocab_size < 100


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


def test_a_data_folder_that_is_not_there_is_an_error(tmp_path):
    with pytest.raises(ValueError, match="FUNCTIONAL_LM_DATA must name a folder with texts: there"):
        load_corpus(environment={"FUNCTIONAL_LM_DATA": str(tmp_path / "no")})


def test_a_file_in_another_encoding(tmp_path):
    path = tmp_path / "latin.txt"
    path.write_bytes("naïve".encode("latin-1"))
    assert read_corpus(path, encoding="latin-1") == Corpus("naïve", str(path))


@pytest.mark.parametrize(
    ("data", "encoding", "note"),
    [
        (b"a\r\nb\n", "utf-8", "1 of 2 lines of"),
        (b"a\rb\r\n", "utf-8", "1 of 1 lines of"),
        ("\ufeffa".encode(), "utf-8", "starts with a byte order mark, which is left out"),
        ("größer".encode(), "cp1252", "'Ã¶' looks like UTF-8 read as CP1252"),
        ("größer\ufffd".encode(), "utf-8", "1 replacement character (U+FFFD)"),
        ("größer — Ã, \n".encode(), "utf-8", None),
    ],
)
def test_what_is_odd_about_a_file_is_noted(tmp_path, data, encoding, note):
    path = tmp_path / "a.txt"
    path.write_bytes(data)
    notes = read_corpus(path, encoding=encoding).notes
    assert len(notes) == (note is not None)
    assert all(note in one and str(path) in one for one in notes)


@pytest.mark.parametrize(
    ("data", "suggestion"),
    [
        ("Füllwörter für naïve Leute".encode("latin-1"), "try --encoding cp1252"),
        ("世界你好。我们在这里".encode("gb18030"), "try --encoding gb18030"),
        ("größer".encode("utf-16"), "try --encoding utf-16"),
        ("größer ".encode() * 50 + b"\xf6", "it has 1 such byte, and the rest is UTF-8: "),
        (bytes(range(128, 256)), "convert it to UTF-8"),
    ],
)
def test_an_encoding_is_suggested_by_what_decodes(tmp_path, data, suggestion):
    path = tmp_path / "a.txt"
    path.write_bytes(data)
    with pytest.raises(FileFormatError, match="must be UTF-8: it has the byte 0x") as caught:
        read_corpus(path)
    assert suggestion in str(caught.value)
    assert "latin-1" not in str(caught.value)


def test_all_tokenizers_have_the_same_text_held_out():
    corpus = Corpus("äb" * 50, "a text")
    for tokenizer in (CharTokenizer("bä"), ByteTokenizer()):
        parts = corpus.encode(tokenizer)
        assert [tokenizer.decode(part) for part in parts] == ["äb" * 45, "äb" * 5]
        assert corpus.held_out_sizes(tokenizer).sum() == 15


def test_an_unknown_character_is_named_by_its_place_in_the_whole_text():
    with pytest.raises(ValueError, match="got 'x' at position 95"):
        Corpus("a" * 95 + "xaaaa", "a text").encode(CharTokenizer("a"))
