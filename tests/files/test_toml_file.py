import datetime

import pytest

from functional_lm.files import FileFormatError, read_toml

BAD = {
    "no TOML": (b"a = ", "Invalid value"),
    "JSON": (b'{"a": 1}', "Invalid statement (at line 1, column 1)"),
    "twice": (b"a = 1\na = 2", "Cannot overwrite a value"),
    "byte": (b"a = '\xff'", "must be UTF-8, but it has the byte 0xff at offset 5"),
    "large": (b"#" * 32769, "at most 32,768 bytes: it has 32,769"),
    "arrays": (b"a = " + b"[" * 5000, "more than 64 tables and arrays within each other"),
    "tables": (b"a = " + b"{a=" * 5000, "more than 64 tables and arrays within each other"),
    "deep": (b"a = " + b"[" * 64 + b"]" * 64, "more than 64 tables and arrays"),
    "deep keys": (b".".join([b"a"] * 70) + b" = 1", "more than 64 tables and arrays"),
    "dots": (b"a = 1\n" + b"a." * 15000 + b"a = 1", "line 2 has more than 200 dots"),
    "digits": (b"a = " + b"1" * 5000, "an integer of more than 300 digits"),
    "hexadecimal": (b"a = 0x" + b"f" * 5000, "an integer of more than 300 digits"),
    "inside": (b"a = [{b = 1" + b"0" * 300 + b"}]", "an integer of more than 300 digits"),
    "surrogate": (b'a = "\\ud800"', "not a Unicode scalar value"),
    "no day": (b"a = 2023-02-30", "Invalid date"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_fault_names_the_file_the_reason_and_the_remedy(tmp_path, name):
    content, reason = BAD[name]
    path = tmp_path / "a.toml"
    path.write_bytes(content)
    with pytest.raises(FileFormatError) as caught:
        read_toml(path)
    assert caught.value.path == path
    assert caught.value.reason.startswith("must be ")
    assert reason in caught.value.reason
    assert ";" in caught.value.reason


def test_what_is_toml_is_read(tmp_path):
    path = tmp_path / "a.toml"
    path.write_bytes("\ufeffa = 1\r\n[b]\r\nc = ['é', 2023-02-28]\r\n".encode())
    assert read_toml(path) == {"a": 1, "b": {"c": ["é", datetime.date(2023, 2, 28)]}}
    path.write_bytes(b"a = " + b"[" * 62 + b"]" * 62 + b"\nb = 1" + b"0" * 299)
    assert read_toml(path)["b"] == 10**299
    path.write_bytes(b"")
    assert read_toml(path) == {}
    with pytest.raises(FileNotFoundError):
        read_toml(tmp_path / "missing")


def test_the_dearest_file_that_is_parsed_ends(tmp_path):
    # As many dots as a line may have, in as many lines as a file may have: no minutes.
    line = b"a." * 200 + b"%d = 1\n"
    path = tmp_path / "a.toml"
    path.write_bytes(b"".join(line % i for i in range(32768 // len(line % 100))))
    with pytest.raises(FileFormatError, match="more than 64 tables"):
        read_toml(path)
