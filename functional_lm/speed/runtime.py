"""Settings of the process that make NumPy faster. Standard library only.

A training step allocates the same few hundred arrays again and again. By default, an allocator
returns the pages of a large freed array to the system and gets them back at the next step, with a
page fault for each. `tune` tells glibc's allocator to keep them. Other allocators have no such
setting; without it, on Linux, a step takes 1.20 times as long for a tiny model, 1.10 for `small`.
"""

import ctypes
import os
import sys
from typing import NamedTuple

__all__ = ["Launch", "RuntimeInfo", "cores", "info", "launched", "peak_memory", "tune"]

_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -2, -3, -8


class RuntimeInfo(NamedTuple):
    """What the speed of NumPy depends on in this process."""

    cores: int  # that this process may use
    blas: str  # library and version, such as "openblas 0.3.31"
    kernel: str  # what its products are written for, such as "SkylakeX"; "" if it does not say
    pinned_by: str  # the environment variable that chose the kernel, with its value; "" if none
    blas_threads: int  # the most threads of one matrix product
    memory: str  # what keeps freed memory: "allocator", or "" if nothing does


_tuned = False


def tune() -> bool:
    """Let the C allocator keep freed memory for the rest of this process.

    A library must not change settings of the whole process unasked: the command line calls this,
    and a program that trains may.

    Returns:
        Whether the allocator is glibc's and accepted all settings.
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
    """Return which kernel the matrix products use and why, and what keeps freed memory.

    OpenBLAS chooses a kernel for the processor. An environment variable can pin an older one, which
    halves the speed of products on a processor with AVX-512; nothing here overrides it.
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


def cores(*, others_wait: bool = False) -> int:
    """Return the number of cores that this process may use.

    Processes that mpiexec started on one machine share its cores.

    Args:
        others_wait: count also those of the other processes, because they wait for this one.
    """
    mine = os.cpu_count() or 1
    if hasattr(os, "sched_getaffinity"):
        mine = len(os.sched_getaffinity(0))
    launch = launched()
    return mine if launch is None or others_wait else max(1, mine // launch.beside)


def peak_memory() -> int:
    """Return the most bytes of memory that this process has taken; 0 where that is unknown."""
    try:
        import resource
    except ImportError:  # on Windows
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


class Launch(NamedTuple):
    """What mpiexec tells a process in its environment."""

    rank: int  # the number of the process
    size: int  # how many there are
    beside: int  # how many of them are on this machine


def launched() -> Launch | None:
    """Return what mpiexec of MPICH, Intel MPI or Open MPI says, or None if none started this."""
    for names in _LAUNCHERS:
        values = [os.environ.get(name, "") for name in names]
        if values[0].isdigit() and values[1].isdigit():
            return Launch(int(values[0]), int(values[1]), int(values[2] or 1))
    return None


_LAUNCHERS = (
    ("PMI_RANK", "PMI_SIZE", "MPI_LOCALNRANKS"),
    ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_SIZE"),
)
