"""A fifth set of ports, labelled before the diagnosis had seen any of them."""

from . import attention, entrywise, indices, losses, maps, norms, recurrent, windows  # noqa: F401
