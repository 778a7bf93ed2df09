"""Processes that encode pieces of text side by side, so that a slow tokenizer uses all cores.

Each is an interpreter of its own that reads pieces from its input and writes tokens to its output.
It ends with the process that started it, however that ends: then its input is closed.
"""

import collections
import contextlib
import itertools
import json
import os
import pickle
import queue
import signal
import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np

from ..contract import Array
from .documents import Piece
from .tokenizer import TOKENIZERS, Tokenizer, tokenizer_of

__all__ = ["SEPARATOR", "encode", "encode_all", "end_of_text", "token_type"]

SEPARATOR = "\n\n"
"""Stands between two documents where the tokenizer has no token for the end of a text."""

Streams = tuple[Array, Array]
"""Tokens to train on, and tokens that are held out."""


def end_of_text(tokenizer: Tokenizer) -> int | None:
    """Return the token that ends a document, if a tokenizer has one."""
    return getattr(tokenizer, "end_of_text", None)


def token_type(tokenizer: Tokenizer) -> np.dtype:
    """Return the type of its tokens in the cache: integers of 16 bits, or of 32."""
    return np.dtype(np.uint16 if tokenizer.vocab_size <= 2**16 else np.uint32)


def encode(tokenizer: Tokenizer, pieces: Iterable[Piece]) -> Streams:
    """Return the tokens of pieces; one that begins a document has its boundary in front.

    Raises:
        ValueError: if the tokenizer cannot encode a piece.
    """
    end, dtype = end_of_text(tokenizer), token_type(tokenizer)
    streams: tuple[list[Any], list[Any]] = ([], [])
    for text, begins, held_out in pieces:
        if end is None:
            streams[held_out].append(SEPARATOR * begins + text)
        else:
            streams[held_out].extend([[end]] * begins + [tokenizer.encode(text)])
    if end is None:
        streams = tuple(  # type: ignore[assignment]
            [tokenizer.encode("".join(texts))] if texts else [] for texts in streams
        )
    nothing = np.empty(0, dtype)
    return tuple(  # type: ignore[return-value]
        np.concatenate([nothing, *parts], dtype=dtype, casting="unsafe") for parts in streams
    )


def encode_all(
    tokenizer: Tokenizer, parcels: Iterable[Sequence[Piece]], n_processes: int
) -> Iterator[Streams]:
    """Yield what `encode` returns for each parcel, in order.

    At most two parcels for each process exist at a time. A tokenizer of a kind that is not in
    `TOKENIZERS` cannot be sent: it encodes in this process.

    Args:
        tokenizer: what encodes.
        parcels: pieces that are encoded together.
        n_processes: how many; with less than two, this process encodes.

    Raises:
        OSError: if a process ends before its time.
        ValueError: if the tokenizer cannot encode a piece.
    """
    if n_processes < 2 or TOKENIZERS.get(tokenizer.kind) is not type(tokenizer):
        yield from (encode(tokenizer, parcel) for parcel in parcels)
        return
    with contextlib.ExitStack() as stack:
        threads = stack.enter_context(ThreadPoolExecutor(n_processes))
        free: queue.SimpleQueue[subprocess.Popen[bytes]] = queue.SimpleQueue()
        for _ in range(n_processes):
            process = _start(tokenizer)
            stack.callback(_stop, process)
            free.put(process)

        def ask(parcel: Sequence[Piece]) -> Streams:
            process = free.get()
            try:
                pickle.dump(parcel, process.stdin)  # type: ignore[arg-type]
                process.stdin.flush()  # type: ignore[union-attr]
                answer = pickle.load(process.stdout)  # type: ignore[arg-type]
            except (EOFError, OSError, pickle.UnpicklingError):
                raise OSError(
                    f"a process that encodes text ended with status {process.wait()}; is there "
                    "enough memory?"
                ) from None
            finally:
                free.put(process)  # also a dead one: whoever waits for it must know
            if isinstance(answer, ValueError):
                raise answer
            return answer

        asked: collections.deque[Future[Streams]] = collections.deque()
        parcels = iter(parcels)
        asked.extend(threads.submit(ask, one) for one in itertools.islice(parcels, 2 * n_processes))
        while asked:
            yield asked.popleft().result()
            asked.extend(threads.submit(ask, one) for one in itertools.islice(parcels, 1))


def _start(tokenizer: Tokenizer) -> "subprocess.Popen[bytes]":
    begin = f"import sys; sys.path[:] = {sys.path!r}; from {__name__} import serve; serve()"
    alone = {"OPENBLAS_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    process = subprocess.Popen(
        [sys.executable, "-c", begin],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, **alone},
    )
    pickle.dump(tokenizer.to_json(), process.stdin)  # type: ignore[arg-type]
    return process


def _stop(process: "subprocess.Popen[bytes]") -> None:
    process.kill()
    process.wait()
    with contextlib.suppress(OSError):
        process.stdin.close()  # type: ignore[union-attr]
    process.stdout.close()  # type: ignore[union-attr]


def serve() -> None:
    """Answer each parcel that comes from the input with its tokens, or with a ValueError."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the process that started this one decides
    source, sink = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # nothing else is printed there
    answer: Any
    with contextlib.suppress(EOFError, BrokenPipeError):
        data = json.loads(pickle.load(source))
        tokenizer = tokenizer_of(data)
        while True:
            parcel = pickle.load(source)
            try:
                answer = encode(tokenizer, parcel)
            except ValueError as error:
                answer = ValueError(str(error))
            pickle.dump(answer, sink, pickle.HIGHEST_PROTOCOL)
            sink.flush()
