"""A zoo of layers with one mistake each: the exam for the explanations of the checker.

Each mistake is one that people make when they write a backward by hand. `Bug` says which leaves
come out wrong and which cause of `functional_lm.testing.CAUSES` a knowledgeable colleague would
name. Each file holds layers of one kind, those of the library and others with ``forward`` and
``vjp`` in NumPy and ``reference`` in JAX, and below each its bugs, as patches of its source.
"""

from . import adapters, attention, entrywise, gates, losses, maps, norms, over_time, tables  # noqa: F401
from .bug import PLANTED, Bug, bugs_of

ALL = [bug for planted in tuple(PLANTED) for bug in bugs_of(*planted)]

__all__ = ["ALL", "Bug"]
