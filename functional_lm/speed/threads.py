"""Python threads, which help because NumPy releases the GIL, and those of BLAS."""

import contextvars
import functools
import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from .runtime import cores

__all__ = ["one_thread", "run"]

_Result = TypeVar("_Result")
_here = threading.local()


def run(tasks: Sequence[Callable[[], _Result]], n_threads: int | None = None) -> list[_Result]:
    """Run tasks side by side and return their results in order.

    The calling thread takes part, and NumPy's ``errstate`` applies in every thread. Inside a task,
    further tasks run one after another.

    Args:
        tasks: functions without arguments.
        n_threads: the most threads at once; the number of cores if not given.

    Raises:
        Exception: the first one that a task raised, once all have ended.
    """
    n_threads = min(n_threads or cores(), len(tasks))
    if n_threads < 2 or getattr(_here, "busy", False):
        return [task() for task in tasks]
    results: list[Any] = [None] * len(tasks)
    waiting = iter(range(len(tasks)))  # next() of a range's iterator is atomic

    def work() -> None:
        _here.busy = True
        try:
            for i in waiting:
                results[i] = tasks[i]()
        finally:
            _here.busy = False

    pool = _pool(n_threads, os.getpid())
    others = [pool.submit(contextvars.copy_context().run, work) for _ in range(n_threads - 1)]
    errors = []
    for wait in (work, *(other.result for other in others)):
        try:
            wait()
        except BaseException as error:
            errors.append(error)
    if errors:
        raise errors[0]
    return results


def one_thread() -> Any:
    """Return a context in which matrix products use one thread, in the whole process.

    Python threads that multiply matrices need one each, and for small matrices the threads of BLAS
    cost more than they gain.
    """
    return _blas().limit(limits=1)


@functools.cache
def _blas() -> Any:
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController().select(user_api="blas")


@functools.cache
def _pool(n_threads: int, process: int) -> ThreadPoolExecutor:
    """Make one pool for each process: the threads of a pool do not survive a fork."""
    return ThreadPoolExecutor(n_threads, thread_name_prefix="functional_lm")
