"""Changes to the content of a file, of the kinds that find faults in readers."""

import random
import re
from collections.abc import Callable, Sequence

LONGEST = 2**16
"""Bytes of an input; larger files have tests of their own."""

NUMBERS = (
    *(b"0 -0 -1 1 2 7 63 64 65 127 128 255 256 65535 65536 1.5 1e5 1e400 -1e-400".split()),
    *(str(2**bits + more).encode() for bits in (31, 32, 53, 62, 63, 64) for more in (-1, 0, 1)),
    b"1" * 400,
)
"""What a number may become."""


def mutate(
    data: bytes, others: Sequence[bytes], words: Sequence[bytes], draw: random.Random
) -> bytes:
    """Return a content with one to six changes.

    Args:
        data: the content.
        others: more contents, to take parts from.
        words: what to insert as a whole.
        draw: where the choices come from.
    """
    for _ in range(draw.choice((1, 1, 1, 2, 3, 6))):
        data = draw.choice(KINDS)(data, others, words, draw)[:LONGEST]
    return data


def _flip_bit(data, others, words, draw):
    if not data:
        return data
    i = draw.randrange(len(data))
    return data[:i] + bytes([data[i] ^ 1 << draw.randrange(8)]) + data[i + 1 :]


def _set_byte(data, others, words, draw):
    if not data:
        return data
    i = draw.randrange(len(data))
    return data[:i] + bytes([draw.randrange(256)]) + data[i + 1 :]


def _insert_bytes(data, others, words, draw):
    i = draw.randint(0, len(data))
    return data[:i] + draw.randbytes(draw.choice((1, 1, 2, 8))) + data[i:]


def _insert_word(data, others, words, draw):
    i = draw.randint(0, len(data))
    return data[:i] + (draw.choice(words) if words else b"\0") + data[i:]


def _replace_by_word(data, others, words, draw):
    i, j = _span(data, draw)
    return data[:i] + (draw.choice(words) if words else b"\0") + data[j:]


def _delete(data, others, words, draw):
    i, j = _span(data, draw)
    return data[:i] + data[j:]


def _truncate(data, others, words, draw):
    return data[: draw.randint(0, len(data))]


def _repeat(data, others, words, draw):
    i, j = _span(data, draw)
    return data[:j] + data[i:j] * draw.choice((1, 1, 2, 10, 100, 3000)) + data[j:]


def _swap(data, others, words, draw):
    i, j, k, m = sorted(draw.randint(0, len(data)) for _ in range(4))
    return data[:i] + data[k:m] + data[j:k] + data[i:j] + data[m:]


def _splice(data, others, words, draw):
    other = draw.choice(others)
    i, j = _span(other, draw)
    k = draw.randint(0, len(data))
    return data[:k] + other[i:j] + data[k + draw.choice((0, j - i)) :]


def _change_number(data, others, words, draw):
    found = list(re.finditer(rb"-?\d+(?:\.\d+)?", data))
    if not found:
        return data
    number = draw.choice(found)
    return data[: number.start()] + draw.choice(NUMBERS) + data[number.end() :]


def _span(data: bytes, draw: random.Random) -> tuple[int, int]:
    """Return the bounds of a random part, usually a short one."""
    i = draw.randint(0, len(data))
    return i, min(len(data), i + draw.choice((1, 2, 4, 16, 64, len(data))))


Kind = Callable[[bytes, Sequence[bytes], Sequence[bytes], random.Random], bytes]
KINDS: tuple[Kind, ...] = (
    _flip_bit,
    _set_byte,
    _insert_bytes,
    _insert_word,
    _replace_by_word,
    _delete,
    _truncate,
    _repeat,
    _swap,
    _splice,
    _change_number,
)
