"""Settings of the process that make NumPy faster. Standard library only.

A training step makes the same few hundred arrays over and over. By default glibc gives the pages
of a large freed array back to the system and asks for them again at the next step, where each of
them is a page fault. `tune` tells it to keep them.
"""

import ctypes
import os
import sys

_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -2, -3, -8


def tune() -> bool:
    """Let the C allocator keep freed memory for the rest of this process.

    The setting holds for the whole process, so a library never makes it by itself: the command
    line does, and a program that trains may.

    Returns:
        Whether the allocator took the settings; False where it is not glibc's.
    """
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
    return all(taken)


def cores() -> int:
    """Return the number of cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
