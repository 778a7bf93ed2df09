"""Arrays from a safetensors file that nobody vouches for.

The format (https://github.com/huggingface/safetensors#format): the length of the header in eight
little-endian bytes; the header, JSON of ``name: {dtype, shape, data_offsets}`` and perhaps
``__metadata__``; then the bytes of the arrays, without a gap.

Everything that the header says is checked against the size of the file before an array is made, and
each array is then read into its own memory: what a file can claim is bounded by what it holds.
"""

import math
import struct
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from .fault import FileFormatError, damaged, shown
from .json_file import parse_json
from .reading import expect_size, opened

MAX_HEADER = 64 * 2**20
MAX_DIMENSIONS = 32
METADATA = "__metadata__"

DTYPES = {
    "F64": "<f8",
    "F32": "<f4",
    "F16": "<f2",
    "I64": "<i8",
    "I32": "<i4",
    "I16": "<i2",
    "I8": "|i1",
    "U64": "<u8",
    "U32": "<u4",
    "U16": "<u2",
    "U8": "|u1",
    "BOOL": "|b1",
}
"""Names of the format and their dtypes; NumPy lacks the others."""


class Tensors(NamedTuple):
    """What a safetensors file holds."""

    arrays: dict[str, np.ndarray]
    metadata: dict[str, str]


class _Entry(NamedTuple):
    name: str
    dtype: np.dtype
    shape: tuple[int, ...]
    start: int  # of its bytes, behind the header
    end: int


def read_tensors(path: str | Path, *, max_bytes: int | None = None) -> Tensors:
    """Return the arrays and the metadata of a safetensors file, in the order of their bytes.

    Never takes more memory than twice the file and 64 MiB.

    Args:
        path: of the file.
        max_bytes: the most that it may hold. Not given: any size.

    Raises:
        FileFormatError: naming the file and what is wrong.
        OSError: if it cannot be read.
    """
    with opened(path) as (file, size):
        if max_bytes is not None:
            expect_size(path, size, max_bytes, "is it another model's?")
        entries, metadata = _read_header(file, size, path)
        arrays = {entry.name: _read_array(file, entry, path) for entry in entries}
    return Tensors(arrays, metadata)


def _read_header(file: BinaryIO, size: int, path: str | Path) -> tuple[list[_Entry], dict]:
    """Return the arrays in the order of their bytes, checked against the file's size."""
    if size < 8:
        raise damaged(path, f"it has {size} bytes, less than the length of a header takes")
    (length,) = struct.unpack("<Q", _read(file, 8, path))
    held = size - 8
    if length > min(held, MAX_HEADER):
        limit = f"{held:,} are there" if held < MAX_HEADER else f"{MAX_HEADER:,} are allowed"
        raise damaged(path, f"its header should have {length:,} bytes, but {limit}")
    data = _read(file, length, path)
    if not data.startswith(b"{"):
        raise damaged(path, "its header is no JSON object")
    header = parse_json(data, path, max_memory=size + 48 * 2**20)
    metadata = header.pop(METADATA, {})
    if not isinstance(metadata, dict) or not all(isinstance(v, str) for v in metadata.values()):
        raise damaged(path, f"{METADATA} must hold strings by name")
    entries = [_entry(name, fields, path) for name, fields in header.items()]
    entries.sort(key=lambda entry: (entry.start, entry.end))
    end = 0
    for entry in entries:
        if entry.start != end:
            fault = "overlaps the array before it" if entry.start < end else "leaves a gap"
            raise damaged(path, f"{shown(entry.name)} {fault} at byte {min(entry.start, end):,}")
        end = entry.end
    if end != held - length:
        raise damaged(path, f"its arrays take {end:,} bytes, but it holds {held - length:,}")
    return entries, metadata


def _entry(name: str, fields: Any, path: str | Path) -> _Entry:
    """Return what a header says of an array, if it can be true."""
    who = shown(name)
    if not isinstance(fields, dict) or fields.keys() != {"dtype", "shape", "data_offsets"}:
        raise damaged(path, f"{who} must have dtype, shape and data_offsets, and nothing else")
    code, shape, offsets = fields["dtype"], fields["shape"], fields["data_offsets"]
    if not isinstance(code, str) or code not in DTYPES:
        known = ", ".join(DTYPES)
        reason = f"holds {who} of the dtype {shown(code)}, which must be one of {known}; convert it"
        raise FileFormatError(path, reason)
    if not _counts(shape) or len(shape) > MAX_DIMENSIONS:
        raise damaged(path, f"{who} must have a shape of up to {MAX_DIMENSIONS} counts")
    if not _counts(offsets) or len(offsets) != 2 or offsets[0] > offsets[1]:
        raise damaged(path, f"{who} must have data_offsets of two counts, [start, end]")
    dtype = np.dtype(DTYPES[code])
    # NumPy wants the product to fit even where a length is zero, with those left out.
    if dtype.itemsize * math.prod(max(n, 1) for n in shape) >= 2**63:
        raise damaged(path, f"{who} has a shape beyond any memory: {shown(shape)}")
    start, end = offsets
    if dtype.itemsize * math.prod(shape) != end - start:
        raise damaged(path, f"{who}, {code} {shown(shape)}, does not take {end - start:,} bytes")
    return _Entry(name, dtype, tuple(shape), start, end)


def _counts(values: Any) -> bool:
    """Return whether a value is a list of integers that are not negative; True is no integer."""
    return isinstance(values, list) and all(type(n) is int and n >= 0 for n in values)


def _read_array(file: BinaryIO, entry: _Entry, path: str | Path) -> np.ndarray:
    """Return the next array of a file, in memory of its own, of the native byte order."""
    array = np.empty(entry.shape, entry.dtype)
    if array.size and file.readinto(array.reshape(-1).view(np.uint8)) != array.nbytes:  # type: ignore[attr-defined]
        raise damaged(path, f"it ended before {shown(entry.name)} while it was read")
    if entry.dtype.kind == "b" and (array.view(np.uint8) > 1).any():
        raise damaged(path, f"{shown(entry.name)} must hold 0 and 1, its dtype is BOOL")
    return array.astype(entry.dtype.newbyteorder("="), copy=False)


def _read(file: BinaryIO, count: int, path: str | Path) -> bytes:
    data = file.read(count)
    if len(data) < count:
        raise damaged(path, "it ended while it was read")
    return data
