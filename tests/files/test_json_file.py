import json
import math
import os
import tracemalloc

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from functional_lm.files import FileFormatError, json_file, parse_json, read_json

BAD = {
    "empty": (b"", "not JSON: Expecting value"),
    "cut off": (b'{"a": 1', "not JSON"),
    "two values": (b"1 2", "not JSON: Extra data"),
    "comma": (b"[1,]", "not JSON"),
    "comment": (b"1 // one", "not JSON"),
    "single quotes": (b"'a'", "not JSON"),
    "control character": (b'"a\nb"', "not JSON: Invalid control character"),
    "byte": (b'{"a": "\xff"}', "must be UTF-8, but it has the byte 0xff at offset 7"),
    "half an escape": (b'"\\ud800"', "half of a surrogate pair"),
    "half as a name": (b'{"\\uDC00\\ud800": 1}', "half of a surrogate pair"),
    "half behind a backslash": (b'"\\\\\\ud83d"', "half of a surrogate pair"),
    "second half behind a false first": (b'"\\\\ud83d\\udc00"', "half of a surrogate pair"),
    "halves apart": (b'"\\ud83d\\\\\\udc00"', "half of a surrogate pair"),
    "the first half twice": (b'"\\ud83d\\ud83d\\udc00"', "half of a surrogate pair"),
    "half as bytes": (b'"\xed\xa0\x80"', "must be UTF-8, but it has the byte 0xed at offset 1"),
    "UTF-16": ('{"a": 1}'.encode("utf-16"), "must be UTF-8, but it has the byte 0xff at offset 0"),
    "NaN": (b'{"a": NaN}', "NaN is no JSON number"),
    "infinity": (b"[Infinity]", "Infinity is no JSON number"),
    "minus infinity": (b"[-Infinity]", "-Infinity is no JSON number"),
    "too large": (b"[1e999]", "the number '1e999' is beyond the range of a float"),
    "long": (b"9" * 301, "a number of 301 digits"),
    "twice": (b'{"a": 1, "b": 2, "a": 1}', "the name 'a' twice"),
    "twice by an escape": (b'{"a": 1, "\\u0061": 1}', "the name 'a' twice"),
    "twice inside": (b'[{"b": [{"c": 1, "c": 2}]}]', "the name 'c' twice"),
    "deep": (b"[" * 65 + b"]" * 65, "more than 64 arrays and objects within each other"),
    "deep and open": (b"[" * 100_000, "more than 64 arrays and objects within each other"),
    "deep objects": (b'{"a":' * 65 + b"1" + b"}" * 65, "more than 64 arrays"),
    "deep behind a string": (b'["\\\\\\"[", ' + b"[" * 64 + b"]" * 65, "more than 64 arrays"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_fault_names_the_file_the_reason_and_the_remedy(tmp_path, name):
    content, reason = BAD[name]
    path = tmp_path / "a.json"
    path.write_bytes(content)
    with pytest.raises(FileFormatError) as caught:
        read_json(path)
    assert caught.value.path == path
    assert caught.value.reason.startswith("is damaged: ")
    assert reason in caught.value.reason
    assert caught.value.reason.endswith("; correct it, or restore it from a copy")
    assert str(caught.value) == f"{path} {caught.value.reason}"


@pytest.mark.parametrize(
    ("content", "value"),
    [
        (b'{"a": [1, -2.5e3, true, null, "x"]}', {"a": [1, -2500.0, True, None, "x"]}),
        ("\ufeff[]".encode(), []),
        ('"\\ud83d\\ude00\\u00e9\\\\ud800"', "😀é\\ud800"),
        (b"[" * 64 + b"]" * 64, None),
        (json.dumps("[{" * 1000), "[{" * 1000),
        (json.dumps('\\"[' * 1000), '\\"[' * 1000),
        (b"-" + b"9" * 299, 1 - 10**299),
        (b"1e-999", 0.0),
    ],
)
def test_what_is_json_is_read(content, value):
    read = parse_json(content, "a")
    assert value is None or (type(read), read) == (type(value), value)


def test_a_text_with_half_a_pair_is_no_json():
    with pytest.raises(FileFormatError, match="half of a surrogate pair"):
        parse_json('"\ud800"', "a")


def test_a_file_too_large_is_not_read(tmp_path):
    path = tmp_path / "a.json"
    with path.open("wb") as file:
        file.truncate(2**26 + 1)
    tracemalloc.start()
    with pytest.raises(FileFormatError, match="at most 67,108,864 bytes: it has 67,108,865"):
        read_json(path)
    assert tracemalloc.get_traced_memory()[1] < 2**20
    tracemalloc.stop()
    path.write_text("[1]")
    with pytest.raises(FileFormatError, match="at most 2 bytes: it has 3"):
        read_json(path, max_bytes=2)
    assert read_json(path, max_bytes=3) == [1]


def test_the_longest_file_that_nests_is_refused_before_it_is_parsed(monkeypatch):
    monkeypatch.setattr(json, "loads", None)
    for content in (b"[" * 2**26, b'{"\\"[":' * 2**23, b"[" * 65 + b'"[\\' * 2**24):
        with pytest.raises(FileFormatError, match="more than 64 arrays"):
            parse_json(content, "a")
    # ... and one that does not nest, but would take gigabytes.
    with pytest.raises(FileFormatError, match=r"values would take more than 1,073,741,824 bytes"):
        parse_json(b"[" + b"[],\n" * 2**23 + b"0]", "a")


def test_what_is_no_regular_file(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_json(tmp_path / "missing")
    with pytest.raises(OSError, match=tmp_path.name):
        read_json(tmp_path)
    if os.name != "nt":
        os.mkfifo(tmp_path / "pipe")
        for path in (tmp_path / "pipe", "/dev/zero"):
            with pytest.raises(FileFormatError, match="is a pipe or a device"):
                read_json(path)


def test_a_file_that_grows(tmp_path, monkeypatch):
    path = tmp_path / "a.json"
    path.write_text("[1, 2]")
    monkeypatch.setattr(
        "functional_lm.files.reading.os.fstat", lambda _: os.stat_result((0,) * 6 + (3,) + (0,) * 3)
    )
    with pytest.raises(FileFormatError, match="grew while it was read"):
        read_json(path)


names = st.text(st.characters(codec="utf-8"), max_size=5)
values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**299), 10**299)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(codec="utf-8") | st.sampled_from('"\\[]{},'), max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(names, inner, max_size=4),
)


@settings(deadline=None)
@given(values, st.booleans(), st.sampled_from([None, 1]))
def test_what_json_writes_comes_back(value, ascii_only, indent):
    text = json.dumps(value, ensure_ascii=ascii_only, indent=indent)
    assert parse_json(text, "a") == parse_json(text.encode(), "a") == value


def measured(text: str) -> tuple[int, int]:
    """Return the depth and the number of values of a JSON text as a loop finds them."""
    depth = deepest = values = 0
    within = escaped = False
    for character in text:
        if within:
            within = escaped or character != '"'
            escaped = character == "\\" and not escaped
        elif character == '"':
            within = True
        else:
            depth += (character in "[{") - (character in "]}")
            values += character in "[{,"
        deepest = max(deepest, depth)
    return deepest, values


@settings(deadline=None)
@given(st.lists(st.sampled_from(["\\ud83d", "\\uDC00", "\\u0041", "\\\\", "ud83d", '\\"', "a"])))
def test_half_a_pair_is_found_where_python_finds_it(parts):
    text = f'"{"".join(parts)}"'
    try:
        json.loads(text).encode()
    except UnicodeEncodeError:
        with pytest.raises(FileFormatError, match="half of a surrogate pair"):
            parse_json(text, "a")
    else:
        assert parse_json(text, "a") == json.loads(text)


@settings(deadline=None)
@given(values, st.booleans(), st.integers(1, 9))
@example(["\\", [], "["], False, 5)
@example(['\\"', [], "["], False, 99)
def test_depth_and_values_are_exact_wherever_the_chunks_end(value, ascii_only, chunk):
    text = json.dumps(value, ensure_ascii=ascii_only)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_file, "_CHUNK", chunk)
        assert json_file._measure(text.encode()) == measured(text)


N = 20_000
BOMBS = {
    "lists": "[" + "[]," * N + "0]",
    "objects": "[" + "{}," * N + "0]",
    "nested lists": "[" + ("[" * 60 + "]" * 60 + ",") * (N // 60) + "0]",
    "nested objects": "["
    + ",".join(
        "".join(f'{{"{60 * i + j:x}":' for j in range(60)) + "0" + "}" * 60 for i in range(N // 60)
    )
    + "]",
    "names": "{" + ",".join(f'"{i:x}":{i}.5' for i in range(N)) + "}",
    "names of objects": "{" + ",".join(f'"{i:x}":{{"{i + N:x}":"{i:o}"}}' for i in range(N)) + "}",
    "numbers": "[" + "1e5," * N + "0]",
    "words": "[" + '"ab",' * N + "0]",
    "twice": "{" + ",".join(f'"{i:x}":0' for i in range(N)) + ',"0":0}',
    "a long string": '"' + "a" * 2**21 + '"',
    "a long string beyond 16 bits": '"😀' + "a" * 2**20 + '"',
    "a long number": "0." + "1" * 2**20,
    "a long number of digits": "1" * 2**20,
    "blanks": " " * 2**20 + "0",
    "a long string with an escape beyond 16 bits": '"\\ud83d\\ude00' + "a" * 2**20 + '"',
    "the escape at the end": '"' + "a" * 2**20 + '\\ud83d\\ude00"',
    "escapes among wide characters": '"😀' + "\\n" * 2**19 + '"',
    "lines": '"' + "\\n" * 2**20 + '"',
    "escapes": '"' + "\\ud83d\\ude00" * 2**16 + '"',
}


@pytest.mark.parametrize("name", BOMBS)
def test_no_text_takes_more_memory_than_estimated(name):
    """... on which the limit of the memory rests."""
    text = BOMBS[name].encode()
    values = measured(BOMBS[name])[1]
    plain = text.isascii() and b"\\u" not in text
    estimate = json_file.TEXT_BYTES[plain] * len(text) + json_file.VALUE_BYTES * values
    tracemalloc.start()
    try:
        value = parse_json(text, "a", max_memory=estimate)
    except FileFormatError as error:
        value = error
        assert name in ("twice", "a long number of digits")
    taken = len(text) + tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    del value
    assert taken <= estimate + 2**16
    with pytest.raises(FileFormatError, match="would take more than"):
        parse_json(text, "a", max_memory=estimate - 1)


def test_floats_are_exact():
    for value in (math.pi, 5e-324, 1.7976931348623157e308, -0.0):
        assert str(parse_json(json.dumps(value), "a")) == str(value)
