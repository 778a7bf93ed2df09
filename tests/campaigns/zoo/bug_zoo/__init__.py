"""A zoo of layers with one mistake each: the exam for the explanations of the checker.

Each mistake is one that people make when they write a backward by hand. `Bug` says which leaves
come out wrong and which cause of `functional_lm.testing.CAUSES` a knowledgeable colleague would
name. Each file holds right layers of one kind, ``forward`` and ``vjp`` in NumPy and ``reference``
in JAX, and their planted bugs. They import no layer of the library, so that it can change freely.
"""

from . import attention, conduct, entrywise, gates, losses, maps, norms, over_time, tables
from .bug import Bug

KINDS = (maps, norms, entrywise, gates, attention, over_time, tables, losses, conduct)

ALL = [bug for kind in KINDS for bug in kind.BUGS]

__all__ = ["ALL", "Bug"]
