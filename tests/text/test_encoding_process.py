import dataclasses
import os
import signal
import subprocess

import numpy as np
import pytest

from functional_lm.text import CharTokenizer, encoding_process
from functional_lm.text.documents import Piece
from functional_lm.text.encoding_process import encode, encode_all, token_type

ABC = CharTokenizer("\nabc")


@dataclasses.dataclass(frozen=True)
class WithEnd:
    """Characters, and token 9 for the end of a text."""

    vocab_size: int = 10
    end_of_text: int = 9
    kind: str = "custom"

    def encode(self, text):
        return ABC.encode(text)


def test_documents_have_a_boundary_between_them():
    parts = [Piece("a", False, False), Piece("b", False, False), Piece("c", True, False)]
    held_out = Piece("ab", True, True)
    tokens, other = encode(ABC, [*parts, held_out])
    assert ABC.decode(tokens) == "ab\n\nc"
    assert ABC.decode(other) == "\n\nab"
    tokens, other = encode(WithEnd(), [*parts, held_out])
    assert tokens.tolist() == [1, 2, 9, 3]
    assert other.tolist() == [9, 1, 2]
    assert tokens.dtype == np.uint16


def test_tokens_take_as_many_bits_as_they_need():
    assert token_type(WithEnd(2**16)) == np.uint16
    assert token_type(WithEnd(2**16 + 1)) == np.uint32


def parcels(n):
    return [[Piece("abc"[i % 3] * (i + 1), i > 0, i % 5 == 4)] for i in range(n)]


def test_processes_answer_in_order():
    expected = [encode(ABC, parcel) for parcel in parcels(20)]
    found = list(encode_all(ABC, iter(parcels(20)), 2))
    for ours, theirs in zip(found, expected, strict=True):
        for a, b in zip(ours, theirs, strict=True):
            np.testing.assert_array_equal(a, b, strict=True)
    # What cannot be sent is encoded here.
    custom = list(encode_all(WithEnd(), parcels(3), 2))
    assert custom[1][0].tolist() == [9, 2, 2]


def test_an_error_of_the_tokenizer_comes_back():
    bad = [*parcels(3), [Piece("abx", False, False)], *parcels(30)]
    with pytest.raises(ValueError, match="got 'x' at position 2"):
        list(encode_all(ABC, bad, 2))


def test_a_process_that_is_killed_is_an_error_and_none_stays(monkeypatch):
    processes = []

    def start(tokenizer):
        processes.append(started(tokenizer))
        return processes[-1]

    started = encoding_process._start
    monkeypatch.setattr(encoding_process, "_start", start)
    answers = encode_all(ABC, iter(parcels(1000)), 2)
    next(answers)
    os.kill(processes[0].pid, signal.SIGKILL)
    with pytest.raises(OSError, match="ended with status -9; is there enough memory"):
        list(answers)
    assert all(process.poll() is not None for process in processes)


def test_a_process_ends_when_its_input_does():
    process = encoding_process._start(ABC)
    process.stdin.close()
    assert process.wait(timeout=60) == 0
    assert process.stdout.read() == b""
    process.stdout.close()
    assert isinstance(process, subprocess.Popen)
