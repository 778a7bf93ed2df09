"""A zoo of layers with one mistake each: the exam for the diagnosis of the checker.

Each mistake is one that people make when they write a backward by hand. `Bug` says which leaves
come out wrong and which of the causes in `functional_lm.testing.causes` a knowledgeable colleague
would name. The layers are those of the library, and in `research_layers` and `research_sequences`
such as a researcher brings along.
"""

from .bug import Bug
from .first_half import FIRST

SECOND: list[Bug] = []
ALL = FIRST + SECOND

__all__ = ["ALL", "FIRST", "SECOND", "Bug"]
