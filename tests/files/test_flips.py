"""Every file that differs from a good one in one bit, or by its end, is read or refused."""

import json

import numpy as np
import pytest
from safetensors.numpy import load, save

from functional_lm.cli.flags import read_settings
from functional_lm.files import FileFormatError, read_json, read_tensors, read_text
from functional_lm.text import CharTokenizer, load_tokenizer

ARRAYS = {"a.weight": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.array([True, False])}
FILES = {
    "json": ("a.json", b'{"a": [1.5e3, "\\u00e9", null], "b": {"c": -1}}', read_json),
    "toml": ("a.toml", b'lr = 1e-3\n[b]\nc = ["d", 0x1F]\n', read_settings),
    "settings": (
        "a.json",
        b'{"text": {"text_file": "a", "sha256": "0"}, "model_file": {"name": "m"}, "lr": 0.1}',
        read_settings,
    ),
    "text": ("a.txt", "é世😀\n".encode(), read_text),
    "tokenizer": ("a.json", CharTokenizer.train("hello é").to_json().encode(), load_tokenizer),
    "tensors": ("a.safetensors", save(ARRAYS, {"c": "d"}), read_tensors),
}


@pytest.fixture
def read(tmp_path):
    """Return a function that reads a content as a file, to a value or a FileFormatError."""

    def read_content(name, content):
        file, _, reader = FILES[name]
        path = tmp_path / file
        path.unlink(missing_ok=True)
        path.write_bytes(content)
        try:
            return reader(path)
        except FileFormatError as error:
            fault = error
        assert fault.path == path
        return fault

    return read_content


def flips(content: bytes):
    for i in range(len(content)):
        for bit in range(8):
            yield content[:i] + bytes([content[i] ^ 1 << bit]) + content[i + 1 :]


@pytest.mark.parametrize("name", FILES)
def test_every_flipped_bit_gives_a_value_or_the_one_error(read, name):
    content = FILES[name][1]
    assert not isinstance(read(name, content), FileFormatError)
    results = [read(name, flipped) for flipped in flips(content)]
    refused = sum(isinstance(result, FileFormatError) for result in results)
    assert 0 < refused < len(results)


@pytest.mark.parametrize("name", FILES)
def test_every_length_gives_a_value_or_the_one_error(read, name):
    content = FILES[name][1]
    results = [read(name, content[:length]) for length in range(len(content))]
    refused = [isinstance(result, FileFormatError) for result in results]
    # A TOML file or a text that is cut off between two lines is one; an empty one is TOML.
    assert all(refused) or name in ("toml", "text")
    assert sum(refused) > len(refused) / 4


def test_json_that_is_accepted_is_what_python_reads(read):
    for flipped in flips(FILES["json"][1]):
        result = read("json", flipped)
        if not isinstance(result, FileFormatError):
            assert result == json.loads(flipped)


def test_tensors_that_are_accepted_are_what_the_library_reads(read):
    for flipped in flips(FILES["tensors"][1]):
        result = read("tensors", flipped)
        if not isinstance(result, FileFormatError):
            expected = load(flipped)
            assert result.arrays.keys() == expected.keys()
            assert all(
                result.arrays[name].tobytes() == expected[name].tobytes() for name in expected
            )
