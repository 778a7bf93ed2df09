"""A fourth set of ports, labelled after the diagnosis was worked on, before it had seen them."""

from . import (  # noqa: F401
    attention,
    entrywise,
    indices,
    losses,
    maps,
    norms,
    recurrent,
    windows,
)
