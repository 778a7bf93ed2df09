import gzip
import itertools
import json
import random

import pyarrow as arrow
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from functional_lm.files import FileFormatError
from functional_lm.text import documents
from functional_lm.text.documents import files_in, pieces

TEXTS = ["To be, or not to be", "naïve 🐦 שלום\nline two\r\n", "a\u2028b\x00c"]
LINES = "".join(json.dumps({"text": text, "n": i}) + "\n" for i, text in enumerate(TEXTS)).encode()


def table(**columns):
    """Return the bytes of a .parquet file."""
    sink = arrow.BufferOutputStream()
    parquet.write_table(arrow.table(columns), sink)
    return sink.getvalue().to_pybytes()


def documents_of(path, **settings):
    """Return the texts of a file, put together again."""
    found = []
    for piece in pieces(path, **settings):
        found = [*found, piece.text] if piece.begins else [*found[:-1], found[-1] + piece.text]
    return found


def test_every_form_holds_the_same_documents(tmp_path):
    frames = zstandard.compress(LINES[:9]) + zstandard.compress(LINES[9:])
    forms = {
        "a.jsonl": LINES,
        "b.jsonl": LINES.replace(b"\n", b"\r\n\n").rstrip(),  # blank lines, none at the end
        "a.jsonl.gz": gzip.compress(LINES),
        "a.JSONL.zst": frames,
        "a.parquet": table(n=[0, 1, 2, 3], text=[*TEXTS, None]),
    }
    for name, content in forms.items():
        (tmp_path / name).write_bytes(content)
        offsets = []
        assert documents_of(tmp_path / name, progress=offsets.append) == TEXTS, name
        assert offsets[-1] == len(content)
    (tmp_path / "other.parquet").write_bytes(table(body=arrow.array(TEXTS, arrow.large_string())))
    assert documents_of(tmp_path / "other.parquet", field="body") == TEXTS


def test_a_plain_text_is_one_document(tmp_path):
    text = "".join(TEXTS)
    forms = {"a.txt": text.encode(), "a.txt.gz": gzip.compress(text.encode())}
    forms |= {"a.zst": zstandard.compress(text.encode()), "a.md": b"\xef\xbb\xbf" + text.encode()}
    for name, content in forms.items():
        (tmp_path / name).write_bytes(content)
        assert documents_of(tmp_path / name) == [text], name
    (tmp_path / "latin.txt").write_bytes("naïve".encode("utf-16"))
    assert documents_of(tmp_path / "latin.txt", encoding="utf-16") == ["naïve"]


BAD = {
    "an open object": ("a.jsonl", LINES + b'{"text": "a\n', r"line 4, must hold JSON: Unterm"),
    "no object": ("a.jsonl", b"\n[1]\n", r"line 2, must be an object with a text in 'text': got l"),
    "another field": ("a.jsonl", b'{"body": "a"}', r"line 1, .* in 'text': got 'body'; .* another"),
    "half a pair": ("a.jsonl", b'{"text": "\\ud800"}', r"line 1, must hold JSON: .*surrogate"),
    "a bad byte": ("a.jsonl", b'{"text": "\xff"}', r"line 1, .* byte 0xff at offset 10, which"),
    "a long line": ("a.jsonl", b'{"text": "' + 700 * b"a", r"more than 512 bytes in line 1"),
    "bad text": ("a.txt", 300 * b"a" + b"\xc3(", r"UTF-8: it has the byte 0xc3 at offset 300"),
    "half a character": ("a.txt", b"abc\xe2\x82", r"UTF-8: it has the byte 0xe2 at offset 3;"),
    "a cut .gz": ("a.txt.gz", gzip.compress(LINES)[:-9], r"is not whole: .* \(about offset \d+\)"),
    "no .gz": ("a.txt.gz", LINES, r"is not whole: Not a gzipped file"),
    "a torn .gz": ("a.txt.gz", gzip.compress(LINES)[:30] + bytes(99), r"is not whole: Error -3"),
    "a cut .zst": ("a.txt.zst", zstandard.compress(LINES)[:-3], r"is not whole: .* has no end"),
    "no .zst": ("a.jsonl.zst", LINES, r"is not whole: .*descriptor"),
    "a cut .parquet": ("a.parquet", table(text=TEXTS)[:-5], r"is not whole after row 0: .*magic"),
    "no column": ("a.parquet", table(n=[1]), r"a column 'text' of strings: got n \(int64\); name"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_file_is_named_with_the_place_and_the_reason(tmp_path, monkeypatch, name):
    monkeypatch.setattr(documents, "MAX_LINE", 512)
    monkeypatch.setattr(documents, "BLOCK", 256)
    file, content, reason = BAD[name]
    (tmp_path / file).write_bytes(content)
    with pytest.raises(FileFormatError, match=reason) as caught:
        list(pieces(tmp_path / file))
    assert str(caught.value).startswith(str(tmp_path / file))
    assert "\n" not in str(caught.value)


def test_a_torn_parquet_is_an_error_in_its_row(tmp_path):
    content = bytearray(table(text=[str(random.Random(i).random()) for i in range(2000)]))
    content[20:5000] = bytes(4980)
    (tmp_path / "a.parquet").write_bytes(content)
    with pytest.raises(FileFormatError, match="is not whole after row 0: "):
        list(pieces(tmp_path / "a.parquet"))


@settings(deadline=None)  # a busy machine is no fault
@given(st.lists(st.text("ab \n", max_size=50)))
def test_long_texts_are_cut_behind_words(parts):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(documents, "PIECE", 16)
        cut = list(documents._cut(parts))
    assert "".join(cut) == "".join(parts)
    assert all(len(piece) <= 16 for piece in cut)
    for before, after in itertools.pairwise(cut):
        at_word = before[-1].isalnum() and after[0].isspace()
        assert at_word or len(before) == 16  # there was no end of a word in the last eighth


def test_equal_documents_are_on_one_side(tmp_path):
    lines = [json.dumps({"text": f"document {i % 200}"}) for i in range(400)]
    (tmp_path / "a.jsonl").write_text("\n".join(lines))
    sides = [piece.held_out for piece in pieces(tmp_path / "a.jsonl")]
    assert sides[:200] == sides[200:]
    assert 8 < sum(sides[:200]) < 35


def test_the_files_of_a_folder(tmp_path):
    for name in ("b.txt", "a/z.jsonl.gz", "a/c.parquet", "notes.md", "x.txt.bak", "d.zst"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("a")
    found = [str(path.relative_to(tmp_path)) for path in files_in(tmp_path)]
    assert found == ["a/c.parquet", "a/z.jsonl.gz", "b.txt"]
    assert files_in(tmp_path / "notes.md") == [tmp_path / "notes.md"]
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileFormatError, match=r"must hold .txt, .jsonl or .parquet files"):
        files_in(tmp_path / "empty")
    with pytest.raises(FileNotFoundError):
        files_in(tmp_path / "nothing")
