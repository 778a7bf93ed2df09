import json
import os
import struct
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load, save

from functional_lm.files import FileFormatError, read_tensors, tensors

F32 = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}


def file_of(header, data=b"", length=None) -> bytes:
    """Return a safetensors file; a header that is no bytes is written as JSON."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def one(**changes):
    """Return the header of one array with changes."""
    return {"a": {**F32, **changes}}


EIGHT = bytes(8)
BAD = {
    "empty": (b"", "it has 0 bytes"),
    "seven bytes": (bytes(7), "it has 7 bytes"),
    "no header": (bytes(8), "its header is no JSON object"),
    "a longer header": (file_of({}, length=3), "should have 3 bytes, but 2 are there"),
    "the longest header": (file_of({}, length=2**64 - 1), "but 2 are there"),
    "a list": (file_of([]), "its header is no JSON object"),
    "blanks first": (file_of(b" {}"), "its header is no JSON object"),
    "no JSON": (file_of(b"{a}"), "not JSON"),
    "no UTF-8": (file_of(b'{"\xff": 1}'), "must be UTF-8"),
    "deep": (file_of(b'{"a":' * 70 + b"1" + b"}" * 70), "more than 64 arrays and objects"),
    "twice": (file_of(b'{"a": 1, "a": 1}'), "the name 'a' twice"),
    "metadata a list": (file_of({"__metadata__": []}), "must hold strings by name"),
    "metadata a number": (file_of({"__metadata__": {"a": 1}}), "must hold strings by name"),
    "metadata null": (file_of({"__metadata__": None}), "must hold strings by name"),
    "an array a list": (file_of({"a": []}), "'a' must have dtype, shape and data_offsets"),
    "no dtype": (file_of({"a": {"shape": [], "data_offsets": [0, 0]}}), "'a' must have dtype"),
    "more fields": (file_of(one(stride=[1]), EIGHT), "and nothing else"),
    "unknown dtype": (file_of(one(dtype="F31"), EIGHT), "dtype 'F31', which must be one of F64"),
    "bfloat16": (file_of(one(dtype="BF16"), EIGHT), "holds 'a' of the dtype 'BF16'"),
    "complex": (file_of(one(dtype="C64", shape=[1]), EIGHT), "the dtype 'C64'"),
    "dtype a list": (file_of(one(dtype=["F32"]), EIGHT), "the dtype ['F32']"),
    "shape a number": (file_of(one(shape=2), EIGHT), "must have a shape"),
    "shape of floats": (file_of(one(shape=[2.0]), EIGHT), "must have a shape"),
    "shape of truth": (file_of(one(shape=[True, 2]), EIGHT), "must have a shape"),
    "negative": (file_of(one(shape=[-2]), EIGHT), "must have a shape"),
    "twice negative": (file_of(one(shape=[-2, -1]), EIGHT), "must have a shape"),
    "33 dimensions": (file_of(one(shape=[1] * 32 + [2]), EIGHT), "shape of up to 32"),
    "huge": (file_of(one(shape=[2**62]), EIGHT), "beyond any memory"),
    "wraps to eight bytes": (file_of(one(shape=[2**62 + 2]), EIGHT), "beyond any memory"),
    "wraps to nothing": (file_of(one(shape=[2**32] * 2, data_offsets=[0, 0])), "beyond any memory"),
    "huge and zero": (
        file_of(one(shape=[0, 2**62, 2**62], data_offsets=[0, 0])), "beyond any memory"),
    "huger than the file": (file_of(one(shape=[2**40]), EIGHT), "does not take 8 bytes"),
    "offsets of one": (file_of(one(data_offsets=[8]), EIGHT), "data_offsets of two counts"),
    "offsets backwards": (file_of(one(data_offsets=[8, 0]), EIGHT), "data_offsets of two counts"),
    "offsets negative": (file_of(one(data_offsets=[-8, 0]), EIGHT), "data_offsets of two counts"),
    "offsets beyond": (file_of(one(shape=[4], data_offsets=[0, 16]), EIGHT), "take 16 bytes, but"),
    "offsets far beyond": (
        file_of(one(shape=[4], data_offsets=[2**62, 2**62 + 16]), EIGHT), "leaves a gap"),
    "gap": (file_of(one(shape=[1], data_offsets=[4, 8]), EIGHT), "'a' leaves a gap at byte 0"),
    "overlap": (
        file_of({"a": F32, "b": {**F32, "data_offsets": [4, 12]}}, bytes(12)), "'b' overlaps"),
    "the same bytes": (file_of({"a": F32, "b": F32}, EIGHT), "'b' overlaps"),
    "bytes behind": (file_of(one(), bytes(9)), "its arrays take 8 bytes, but it holds 9"),
    "bytes missing": (file_of(one(), bytes(7)), "its arrays take 8 bytes, but it holds 7"),
    "truth of two": (
        file_of(one(dtype="BOOL", shape=[3], data_offsets=[0, 3]), b"\0\1\2"), "must hold 0 and 1"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_a_fault_names_the_file_the_reason_and_the_remedy(tmp_path, name):
    content, reason = BAD[name]
    path = tmp_path / "a.safetensors"
    path.write_bytes(content)
    with pytest.raises(FileFormatError) as caught:
        read_tensors(path)
    assert caught.value.path == path
    assert reason in caught.value.reason
    assert caught.value.reason.endswith(("; convert it", "; restore it from a copy", "from a copy"))
    assert len(str(caught.value)) < 500


def test_a_name_of_any_length_makes_a_short_message(tmp_path):
    path = tmp_path / "a.safetensors"
    for header in ({"n" * 10_000: F32}, one(dtype="F" * 10_000), one(shape=[10**250] * 32)):
        path.write_bytes(file_of(header, b"1234"))
        with pytest.raises(FileFormatError) as caught:
            read_tensors(path)
        assert len(caught.value.reason) < 600


def written(tmp_path, arrays, metadata=None):
    path = tmp_path / "a.safetensors"
    path.write_bytes(save(arrays, metadata))
    return path


def test_every_dtype_comes_back_with_the_metadata(tmp_path):
    arrays = {
        code: np.arange(6).reshape(2, 3).astype(dtype) for code, dtype in tensors.DTYPES.items()
    }
    arrays |= {"none": np.zeros((0, 3)), "number": np.array(7, np.int8), "": np.ones((1,) * 32)}
    found = read_tensors(written(tmp_path, arrays, {"format": "np", "é": "\0"}))
    assert found.metadata == {"format": "np", "é": "\0"}
    assert found.arrays.keys() == arrays.keys()
    for name, array in arrays.items():
        read = found.arrays[name]
        assert (read.dtype, read.shape) == (array.dtype, array.shape)
        assert read.tobytes() == array.tobytes()
        assert read.flags.writeable
        assert read.flags.aligned
        assert read.base is None
    assert read_tensors(written(tmp_path, {})) == ({}, {})


def test_arrays_that_lie_at_odd_bytes(tmp_path):
    header = {
        "a": {"dtype": "U8", "shape": [1], "data_offsets": [0, 1]},
        "b": {"dtype": "F64", "shape": [1], "data_offsets": [1, 9]},
    }
    path = tmp_path / "a.safetensors"
    path.write_bytes(file_of(header, b"\7" + np.array([0.1]).tobytes()))
    arrays = read_tensors(path).arrays
    assert arrays["a"].tolist() == [7]
    assert arrays["b"].tolist() == [0.1]
    assert arrays["b"].flags.aligned


def test_an_empty_array_may_lie_where_another_begins(tmp_path):
    header = {"a": F32, "b": {**F32, "shape": [0], "data_offsets": [0, 0]}}
    path = tmp_path / "a.safetensors"
    path.write_bytes(file_of(header, EIGHT))
    assert {n: a.shape for n, a in read_tensors(path).arrays.items()} == {"b": (0,), "a": (2,)}


def test_a_file_cut_off_at_any_byte_is_refused(tmp_path):
    path = written(tmp_path, {"a": np.arange(5.0), "b": np.array([True])}, {"c": "d"})
    content = path.read_bytes()
    for length in range(len(content)):
        path.unlink()
        path.write_bytes(content[:length])
        with pytest.raises(FileFormatError, match="is damaged"):
            read_tensors(path)


def test_a_file_that_shrinks_while_it_is_read(tmp_path, monkeypatch):
    path = written(tmp_path, {"a": np.arange(5.0)})
    size = path.stat().st_size
    path.write_bytes(path.read_bytes()[:-1])
    grown = os.stat_result((0,) * 6 + (size,) + (0,) * 3)
    monkeypatch.setattr("functional_lm.files.reading.os.fstat", lambda _: grown)
    with pytest.raises(FileFormatError, match="it ended before 'a' while it was read"):
        read_tensors(path)
    path.write_bytes(path.read_bytes()[:10])
    with pytest.raises(FileFormatError, match="it ended while it was read"):
        read_tensors(path)


def test_files_that_are_too_large_or_none(tmp_path):
    path = written(tmp_path, {"a": np.arange(5.0)})
    with pytest.raises(FileFormatError, match="at most 100 bytes"):
        read_tensors(path, max_bytes=100)
    with pytest.raises(FileNotFoundError):
        read_tensors(tmp_path / "missing")
    with pytest.raises(OSError, match=tmp_path.name):
        read_tensors(tmp_path)
    if os.name != "nt":
        with pytest.raises(FileFormatError, match="is a pipe or a device"):
            read_tensors("/dev/zero")


def peak_of_reading(path):
    """Return what came of it, and the most bytes that were allocated at once."""
    tracemalloc.start()
    try:
        result = read_tensors(path)
    except FileFormatError as error:
        result = error
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return result, peak


def header_of(count: int, **fields) -> bytes:
    entry = json.dumps({"dtype": "F32", "shape": [], "data_offsets": [0, 0], **fields})
    return ("{" + ",".join(f'"{i}": {entry}' for i in range(count)) + "}").encode()


MEBIBYTE = 2**20
BOMBS = {
    "lists": b'{"a": [' + b"[]," * (4 * MEBIBYTE) + b"0]}",
    "objects": b'{"a": [' + b"{}," * (4 * MEBIBYTE) + b"0]}",
    "a wide string": '{"a": "😀'.encode() + b"a" * (16 * MEBIBYTE) + b'"}',
    "an escape that widens": b'{"a": "\\ud83d\\ude00' + b"a" * (16 * MEBIBYTE) + b'"}',
    "a long string": b'{"__metadata__": {"a": "' + b"a" * (24 * MEBIBYTE) + b'"}}',
    "blanks": b"{" + b" " * (64 * MEBIBYTE - 2) + b"}",
    "a header longer than any": b"{" + b" " * (65 * MEBIBYTE) + b"}",
    "many arrays": header_of(20_000, shape=[0]),
    "very many arrays": header_of(300_000, shape=[0]),
    "many arrays of one name": header_of(1, shape=[0])[:-1] * 30_000,
    "a shape of many dimensions": json.dumps(one(shape=[1] * 2_000_000)).encode(),
}


@pytest.mark.parametrize("name", BOMBS)
def test_no_header_takes_more_memory_than_twice_the_file_and_64_mebibytes(tmp_path, name):
    path = tmp_path / "a.safetensors"
    path.write_bytes(file_of(BOMBS[name]))
    result, peak = peak_of_reading(path)
    assert isinstance(result, FileFormatError)
    assert peak <= 2 * path.stat().st_size + 64 * MEBIBYTE
    if name == "a header longer than any":
        assert "but 67,108,864 are allowed" in result.reason
        assert peak < MEBIBYTE


def test_a_file_of_arrays_takes_its_own_size(tmp_path):
    arrays = {f"{i}": np.full((64, 1024), i, np.float32) for i in range(128)}  # 32 MiB
    path = written(tmp_path, arrays)
    result, peak = peak_of_reading(path)
    assert len(result.arrays) == 128
    assert peak <= path.stat().st_size + MEBIBYTE
    many = {f"{i}": np.full(7, i, np.float32) for i in range(10_000)}
    path = written(tmp_path, many)
    result, peak = peak_of_reading(path)
    assert len(result.arrays) == 10_000
    assert peak <= 2 * path.stat().st_size + 64 * MEBIBYTE


# Against the library, which reads what we accept as we do.

small = st.integers(0, 3)
odd = st.one_of(
    small, st.integers(-2, 40), st.sampled_from([2**31, 2**32, 2**62, 2**63, 2**64, 1.0, None, "1"])
)
codes = st.sampled_from([*tensors.DTYPES, "BF16", "F8_E4M3", "f32", 1])


@st.composite
def files(draw):
    """Return a file whose arrays lie in any order, with a few lies as a rule."""
    count = draw(st.integers(0, 4))
    order = draw(st.permutations(range(count)))
    header, end = {}, 0
    for i in order:
        code = draw(st.sampled_from([*tensors.DTYPES]))
        shape = draw(st.lists(small, max_size=3))
        start = end
        end += np.dtype(tensors.DTYPES[code]).itemsize * int(np.prod(shape))
        header[f"{i}"] = {"dtype": code, "shape": shape, "data_offsets": [start, end]}
    names = draw(st.permutations(sorted(header)))
    header = {name: header[name] for name in names}
    if draw(st.booleans()):
        header["__metadata__"] = draw(st.dictionaries(st.sampled_from("ab"), st.text(max_size=2)))
    for name in draw(st.lists(st.sampled_from(names), max_size=2)) if names else []:
        field = draw(st.sampled_from(["dtype", "shape", "data_offsets"]))
        if field == "dtype":
            header[name][field] = draw(codes)
        elif header[name][field] and draw(st.booleans()):
            i = draw(st.integers(0, len(header[name][field]) - 1))
            header[name][field][i] = draw(odd)
        else:
            header[name][field] = draw(st.lists(odd, max_size=3))
    data = draw(st.binary(min_size=end, max_size=end)) if draw(st.booleans()) else bytes(end)
    data = data[: draw(st.sampled_from([None, None, None, -1]))] + draw(st.just(b"") | st.binary())
    text = json.dumps(header).encode() + b" " * draw(st.integers(0, 3))
    more = draw(st.sampled_from([0, 0, 0, 1, -1, 2**32]))
    return file_of(text, data, length=max(len(text) + more, 0))


@settings(deadline=None, max_examples=400)
@given(files())
def test_the_library_reads_the_same_from_what_is_accepted(tmp_path_factory, content):
    path = tmp_path_factory.getbasetemp() / "any.safetensors"
    path.write_bytes(content)
    try:
        ours = read_tensors(path).arrays
    except FileFormatError:
        return
    theirs = load(content)
    assert ours.keys() == theirs.keys()
    for name, array in theirs.items():
        assert (ours[name].dtype, ours[name].shape) == (array.dtype, array.shape)
        assert ours[name].tobytes() == array.tobytes()


@settings(deadline=None)
@given(
    st.dictionaries(
        st.text(st.characters(codec="utf-8"), max_size=4).filter(lambda n: n != "__metadata__"),
        st.tuples(st.sampled_from([*tensors.DTYPES.values()]), st.lists(small, max_size=4)),
        max_size=4,
    ),
    st.randoms(use_true_random=False),
)
def test_what_the_library_writes_is_accepted(tmp_path_factory, kinds, draw):
    arrays = {
        name: np.frombuffer(draw.randbytes(8 * int(np.prod(shape))), "u1")[: int(np.prod(shape))]
        .reshape(shape)
        .astype(dtype)
        for name, (dtype, shape) in kinds.items()
    }
    path = tmp_path_factory.getbasetemp() / "any.safetensors"
    path.write_bytes(save(arrays))
    ours = read_tensors(path).arrays
    assert {n: (a.dtype, a.shape, a.tobytes()) for n, a in ours.items()} == {
        n: (a.dtype, a.shape, a.tobytes()) for n, a in arrays.items()
    }
