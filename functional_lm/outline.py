"""How layers show themselves: on one line, or as a short tree."""

import html
import itertools
import types
from collections.abc import Iterable
from typing import Any

import numpy as np

from .locate import name_of

__all__ = ["as_html", "call", "describe", "tree"]


def describe(value: Any) -> str:
    """Return a layer, a setting or an array in short."""
    if isinstance(value, np.ndarray):
        return f"array {value.shape}"
    if isinstance(value, float):
        return f"{value:g}"
    plain = isinstance(value, (types.ModuleType, types.FunctionType, type))
    plain = plain or repr(value).startswith(f"<{type(value).__module__}.")
    return name_of(value) if plain else repr(value)


def call(layer: Any, settings: dict[str, Any]) -> str:
    """Return a layer with the settings that were given, as in ``linear(d_in=3, d_out=5)``."""
    given = [f"{name}={describe(v)}" for name, v in settings.items() if v is not None]
    return f"{describe(layer)}({', '.join(given)})"


def tree(title: str, members: Iterable[tuple[str, Any]]) -> str:
    """Return the title and the members below it, indented; equal neighbours share a line.

    >>> print(tree("serial", [("norm", 1), ("0", 2), ("1", 2)]))
    serial
      norm  1
      0–1   2
    """
    rows = []
    for text, group in itertools.groupby(members, key=lambda member: describe(member[1])):
        first, *more = [name for name, _ in group]
        rows.append((f"{first}–{more[-1].rpartition('.')[2]}" if more else first, text))
    width = max((len(name) for name, _ in rows), default=0)
    lines = [f"{name:<{width}}  {text}" for name, text in rows]
    return "\n".join([title, *lines]).replace("\n", "\n  ")


def as_html(text: str) -> str:
    """Return a tree for a notebook."""
    return f"<pre>{html.escape(text)}</pre>"
