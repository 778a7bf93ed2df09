"""A third set of ports, labelled before the diagnosis had seen any of them."""

from . import attention, entrywise, losses, maps, norms, recurrent, windows  # noqa: F401
from .negatives import NEGATIVES

__all__ = ["NEGATIVES"]
