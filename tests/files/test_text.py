import contextlib
import encodings.aliases
import os
import random

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from functional_lm.files import FileFormatError, known_encoding, read_text

TEXT = "Grüße,\r\nWelt\n"


@pytest.mark.parametrize(
    ("content", "encoding", "text"),
    [
        (TEXT.encode(), "utf-8", TEXT),
        ("\ufeff".encode() + TEXT.encode(), "UTF8", TEXT),
        ("\ufeff".encode() + TEXT.encode(), "utf-8-sig", TEXT),
        ("\ufeff\ufeffa".encode(), "utf-8", "\ufeffa"),
        (TEXT.encode("utf-16"), "utf-16", TEXT),
        (TEXT.encode("utf-16-be"), "utf-16-be", TEXT),
        (b"\xff\xfe" + TEXT.encode("utf-16-le"), "utf-16-le", TEXT),
        (TEXT.encode("utf-32"), "utf_32", TEXT),
        (TEXT.encode("latin-1"), "latin-1", TEXT),
        (TEXT.encode("cp1252"), "Windows-1252", TEXT),
        ("世界".encode("gb18030"), "gb18030", "世界"),
    ],
)
def test_a_text_is_read_without_its_mark_and_with_its_line_ends(tmp_path, content, encoding, text):
    path = tmp_path / "a.txt"
    path.write_bytes(content)
    assert read_text(path, encoding=encoding) == text


@pytest.mark.parametrize(
    ("content", "encoding", "reason"),
    [
        (b"abc\xff", "utf-8", "must be UTF-8: it has the byte 0xff at offset 3; convert it, or"),
        (b"\xef\xbb\xbfab\xe9c", "utf-8", "the byte 0xe9 at offset 5"),
        (b"\xef\xbb\xbfab\xe9c", "utf-8-sig", "the byte 0xe9 at offset 5"),
        (b"ab\xe2\x82", "utf-8", "the byte 0xe2 at offset 2"),
        (b"ab\xed\xa0\x80", "utf-8", "the byte 0xed at offset 2"),
        (b"\xff\xfea\0", "utf-8", "it looks like utf-16: pass its --encoding, such as utf-16"),
        (b"\xff\xfe\0\0a\0\0\0", "utf-8", "it looks like utf-32"),
        (b"a\0b", "utf-16-le", "must be UTF-16-LE: it has the byte 0x62 at offset 2"),
        (b"a\0\0\xd8", "utf-16-le", "at offset 2"),
        (b"caf\xe9", "ascii", "must be ASCII: it has the byte 0xe9 at offset 3"),
        (b"a\x81", "cp1252", "the byte 0x81 at offset 1"),
        (b"", "utf-8", "is empty; a text file must hold text, pass another"),
        (b"\xef\xbb\xbf", "utf-8", "is empty"),
        (b"\xff\xfe", "utf-16", "is empty"),
    ],
)
def test_a_fault_names_the_file_the_byte_and_the_remedy(tmp_path, content, encoding, reason):
    path = tmp_path / "a.txt"
    path.write_bytes(content)
    with pytest.raises(FileFormatError) as caught:
        read_text(path, encoding=encoding)
    assert caught.value.path == path
    assert reason in caught.value.reason


@pytest.mark.parametrize(
    "name",
    ["utf-9", "", "rot13", "hex", "zlib", "idna", "punycode", "undefined", "unicode_escape",
     "raw_unicode_escape", "latin-1\0", "é", "x" * 10_000, "../utf_8", "aliases"],
)  # fmt: skip
def test_what_is_no_encoding_of_text_is_named(tmp_path, name):
    (tmp_path / "a.txt").write_text("abc")
    with pytest.raises(
        ValueError, match="encoding must be one of text that Python knows"
    ) as caught:
        read_text(tmp_path / "a.txt", encoding=name)
    assert not isinstance(caught.value, FileFormatError)
    assert len(str(caught.value)) < 250
    with pytest.raises(TypeError, match="encoding must be a string: got 8"):
        known_encoding(8)


@pytest.mark.parametrize("name", sorted({*encodings.aliases.aliases.values()}))
def test_no_encoding_raises_anything_else(tmp_path, name):
    try:
        codec = known_encoding(name)
    except ValueError:
        return
    draw = random.Random(name)
    for length in (1, 2, 3, 4, 7, 64, 1000):
        path = tmp_path / f"{length}.txt"
        path.write_bytes(draw.randbytes(length))
        with contextlib.suppress(FileFormatError):
            read_text(path, encoding=codec).encode()  # no half of a surrogate pair


@given(st.text(st.characters(codec="utf-8"), min_size=1), st.sampled_from(["utf-8", "utf-16"]))
def test_any_text_comes_back(tmp_path_factory, text, encoding):
    assume(not text.startswith("\ufeff"))
    path = tmp_path_factory.getbasetemp() / "any.txt"
    path.write_bytes(text.encode(encoding))
    assert read_text(path, encoding=encoding) == text


def test_what_cannot_be_read_at_once_or_at_all(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_text(tmp_path / "missing")
    with pytest.raises(OSError, match=tmp_path.name):
        read_text(tmp_path)
    path = tmp_path / "large"
    with path.open("wb") as file:
        file.truncate(2**30 + 1)
    with pytest.raises(FileFormatError, match=r"at most 1,073,741,824 bytes: .* pass a part of it"):
        read_text(path)
    if os.name != "nt":
        with pytest.raises(FileFormatError, match="is a pipe or a device"):
            read_text("/dev/zero")
