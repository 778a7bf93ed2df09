"""A zoo of layers with one mistake each: the exam for the diagnosis of the checker.

Each mistake is one that people make when they write a backward by hand. `Bug` says which leaves
come out wrong and which of the causes in `functional_lm.testing.causes` a knowledgeable colleague
would name. The layers are those of the library, and in the modules ``research_*`` such as a
researcher brings along. The labels of the second half were fixed before the diagnosis saw it.
"""

from .bug import Bug
from .first_half import FIRST
from .second_half import SECOND

ALL = FIRST + SECOND

__all__ = ["ALL", "FIRST", "SECOND", "Bug"]
