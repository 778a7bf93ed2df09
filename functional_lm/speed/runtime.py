"""Settings of the process that make NumPy faster, and what they are. Standard library only.

A training step makes the same few hundred arrays over and over. By default an allocator gives the
pages of a large freed array back to the system and asks for them again at the next step, where each
of them is a page fault. `tune` tells glibc's allocator to keep them. Others cannot be told, and a
step takes longer there: untuned on Linux, 1.20 times as long for a tiny model, 1.10 for `small`.
"""

import ctypes
import os
import sys
from typing import NamedTuple

_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -2, -3, -8


class RuntimeInfo(NamedTuple):
    """What NumPy's speed depends on in this process."""

    cores: int  # that this process may use
    blas: str  # library and version, such as "openblas 0.3.31"
    kernel: str  # what its products are written for, such as "SkylakeX"; "" if it does not say
    pinned_by: str  # the environment variable that chose the kernel, with its value; "" if none
    blas_threads: int  # the most threads of one matrix product
    memory: str  # what keeps freed memory: "allocator", or "" if nothing does


_tuned = False


def tune() -> bool:
    """Let the C allocator keep freed memory for the rest of this process.

    A library never makes a setting of the whole process by itself: the command line does, and a
    program that trains may.

    Returns:
        Whether the allocator is glibc's, and took all settings.
    """
    global _tuned
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    settings = [
        (_M_MMAP_THRESHOLD, 2**30),
        (_M_TRIM_THRESHOLD, 2**31 - 1),
        (_M_TOP_PAD, 2**26),
        (_M_ARENA_MAX, 1),
    ]
    taken = [mallopt(option, value) == 1 for option, value in settings]
    _tuned = all(taken)
    return _tuned


def info() -> RuntimeInfo:
    """Say which kernel the matrix products use and why, and what keeps freed memory.

    OpenBLAS chooses a kernel for the processor by itself. An environment variable can pin an older
    one, which halves the speed of products on a processor with AVX-512; nothing here overrides it.
    """
    import numpy  # noqa: F401  its BLAS must be there to be asked
    from threadpoolctl import threadpool_info

    found = [library for library in threadpool_info() if library["user_api"] == "blas"]
    blas = found[0] if found else {}
    variable = os.environ.get("OPENBLAS_CORETYPE", "")
    return RuntimeInfo(
        cores=cores(),
        blas=f"{blas.get('internal_api', 'unknown')} {blas.get('version') or ''}".strip(),
        kernel=blas.get("architecture") or "",
        pinned_by=f"OPENBLAS_CORETYPE={variable}" if variable else "",
        blas_threads=blas.get("num_threads", 1),
        memory="allocator" if _tuned else "",
    )


def cores() -> int:
    """Return the number of cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
