"""The threads of NumPy's BLAS."""

import functools
from typing import Any


def one_thread() -> Any:
    """Return a context in which matrix products use one thread, in the whole process.

    Threads of our own each want one, and small matrices lose more by waiting than they gain.
    """
    return _controller().limit(limits=1)


@functools.cache
def _controller() -> Any:
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController().select(user_api="blas")
