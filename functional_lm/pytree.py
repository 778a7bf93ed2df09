"""Trees of arrays: nested dicts, tuples, lists and NamedTuples.

An array (or a NumPy scalar) is a leaf. Everything else (numbers, strings, None, functions) is
structure: `map` keeps it, and two trees that are walked together must agree in it.
Dicts are plain, and their keys are strings without dots. They are walked in sorted order, as in
JAX, so that the order of insertion never matters.

A leaf is named by its path, joined with dots: ``blocks.0.attention.qkv``.
"""

import functools
import html
import re
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from .contract import Array, Tree

__all__ = [
    "Summary",
    "add",
    "buffer_bytes",
    "combine",
    "count",
    "first_not_finite",
    "is_leaf",
    "leaves",
    "leaves_with_path",
    "map",
    "map_with_path",
    "partition",
    "structure",
    "summary",
    "zeros_like",
    "zip_with_path",
]


_LEAVES: tuple[type[Any], ...] = (np.ndarray, np.generic)


def is_leaf(node: Any) -> bool:
    """Tell whether a node is a leaf: an array or a NumPy scalar."""
    return isinstance(node, _LEAVES)


def _children(node: Any) -> list[tuple[str, Any]] | None:
    """Return the named children of an inner node, or None if it is a leaf or static."""
    if isinstance(node, dict):
        return [(key, node[key]) for key in _sorted_keys(node)]
    if isinstance(node, tuple) and hasattr(node, "_fields"):
        return list(zip(node._fields, node, strict=True))
    if isinstance(node, (tuple, list)):
        return [(str(index), child) for index, child in enumerate(node)]
    return None


def _sorted_keys(node: dict[Any, Any]) -> tuple[str, ...]:
    if type(node) is not dict:
        raise TypeError(f"a tree must have plain dicts: got {type(node).__name__}; pass dict(...)")
    return _checked_and_sorted(tuple(node))


@functools.lru_cache(2**12)
def _checked_and_sorted(keys: tuple[Any, ...]) -> tuple[str, ...]:
    for key in keys:
        if not isinstance(key, str) or "." in key:
            raise TypeError(
                f"the keys of a tree must be strings without dots: got {key!r}; rename it, or "
                "use a tuple"
            )
    return tuple(sorted(keys))


def _join(prefix: str, name: str) -> str:
    return f"{prefix}.{name}" if prefix else name


def leaves_with_path(tree: Tree) -> list[tuple[str, Array]]:
    """Return the leaves with their paths, ``("blocks.0.norm1.scale", array)``, in walking order.

    >>> [path for path, _ in leaves_with_path({"b": (np.zeros(1), np.ones(2)), "a": np.ones(3)})]
    ['a', 'b.0', 'b.1']
    """
    found: list[tuple[str, Array]] = []
    _walk(tree, "", found)
    return found


def _walk(tree: Tree, path: str, found: list[tuple[str, Array]]) -> None:
    if isinstance(tree, _LEAVES):
        found.append((path, tree))
    else:
        for name, child in _children(tree) or []:
            _walk(child, _join(path, name), found)


def leaves(tree: Tree) -> list[Array]:
    """Return the leaves in walking order."""
    found: list[Array] = []
    _collect(tree, found)
    return found


def _collect(tree: Tree, found: list[Array]) -> None:
    if isinstance(tree, _LEAVES):
        found.append(tree)
    elif isinstance(tree, dict):
        for name in _sorted_keys(tree):
            _collect(tree[name], found)
    elif isinstance(tree, (tuple, list)):
        for child in tree:
            _collect(child, found)


def map(function: Callable[..., Any], tree: Tree, *rest: Tree) -> Tree:
    """Apply ``function`` to every leaf of ``tree`` and the nodes at its place in the other trees.

    Static values must be equal. Where ``tree`` has a leaf, another tree may have anything.

    Raises:
        ValueError: naming the path at which the trees differ in structure.

    >>> map(lambda a, b: a + b, {"w": np.array([1.0])}, {"w": np.array([2.0])})
    {'w': array([3.])}
    """
    try:
        return _map(function, tree, rest)
    except _Different:
        differences = (_first_difference(tree, other, "") for other in rest)
        raise ValueError(next(filter(None, differences))) from None


class _Different(Exception):
    """Two trees differ in structure. The path is found later, since paths take time."""


def _map(function: Callable[..., Any], tree: Tree, rest: Sequence[Tree]) -> Tree:
    if isinstance(tree, _LEAVES):
        return function(tree, *rest)
    for other in rest:
        if not _alike(tree, other):
            raise _Different
    if isinstance(tree, dict):
        names = _sorted_keys(tree)
        if not rest:
            return {name: _map(function, tree[name], rest) for name in names}
        return {name: _map(function, tree[name], [other[name] for other in rest]) for name in names}
    if isinstance(tree, (tuple, list)):
        kind, columns = type(tree), zip(tree, *rest, strict=True)
        mapped = [_map(function, child, others) for child, *others in columns]
        return kind(*mapped) if hasattr(kind, "_fields") else kind(mapped)
    return tree


def _alike(node: Any, other: Any) -> bool:
    """Tell whether an inner node or a static value has an equal counterpart, but for children."""
    if node is None:  # in place of every leaf of another part
        return other is None
    if isinstance(node, dict):
        return type(other) is dict and other.keys() == node.keys()
    if isinstance(node, (tuple, list)):
        return _kind(other) == _kind(node) and len(other) == len(node)
    return not is_leaf(other) and _children(other) is None and bool(other == node)


def _kind(node: Any) -> Any:
    """Return the type of a node; of a NamedTuple, its name and fields, wherever it is defined."""
    fields = getattr(node, "_fields", None)
    return type(node) if fields is None else (type(node).__name__, fields)


def _first_difference(tree: Tree, other: Tree, path: str) -> str:
    """Say where the other tree differs first, or nothing if it does not."""
    if is_leaf(tree):
        return ""
    if not _alike(tree, other):
        return (
            f"trees must have one structure: at {path or 'the root'} one has {_describe(tree)}, "
            f"another {_describe(other)}; build both from the same params"
        )
    pairs = zip(_children(tree) or [], _children(other) or [], strict=True)
    inside = (_first_difference(a, b, _join(path, name)) for (name, a), (_, b) in pairs)
    return next(filter(None, inside), "")


def _describe(node: Any) -> str:
    children = _children(node)
    if children is None:
        return "an array" if is_leaf(node) else repr(node)
    return f"{type(node).__name__}({', '.join(name for name, _ in children)})"


def map_with_path(function: Callable[[str, Array], Any], tree: Tree) -> Tree:
    """Apply ``function(path, leaf)`` to every leaf."""
    paths = iter(leaves_with_path(tree))
    return map(lambda leaf: function(next(paths)[0], leaf), tree)


def zip_with_path(tree: Tree, other: Tree) -> list[tuple[str, Array, Any]]:
    """Return ``(path, leaf, node at its place in the other tree)`` for every leaf of ``tree``.

    Raises:
        ValueError: naming the path at which the trees differ in structure.
    """
    found: list[Any] = []
    map(lambda _, node: found.append(node), tree, other)
    pairs = zip(leaves_with_path(tree), found, strict=True)
    return [(path, leaf, node) for (path, leaf), node in pairs]


class _Leaf:
    """Stands for an array in what `structure` returns."""

    def __repr__(self) -> str:
        return "*"


LEAF = _Leaf()


def structure(tree: Tree) -> Tree:
    """Return the tree with every leaf replaced by one mark, ``*``: compare with ``==``.

    >>> structure({"w": np.zeros(3), "n": 2})
    {'n': 2, 'w': *}
    """
    return map(lambda leaf: LEAF, tree)


def partition(tree: Tree, predicate: Callable[[str], bool]) -> tuple[Tree, Tree]:
    """Divide a tree into the leaves whose paths a predicate selects, and the rest.

    Both have the tree's structure, with None in place of the leaves of the other; see `combine`.

    >>> partition({"a": np.ones(1), "b": np.zeros(1)}, lambda path: path == "a")
    ({'a': array([1.]), 'b': None}, {'a': None, 'b': array([0.])})
    """
    chosen = map_with_path(lambda path, leaf: bool(predicate(path)), tree)
    selected = map(lambda leaf, is_chosen: leaf if is_chosen else None, tree, chosen)
    return selected, map(lambda leaf, is_chosen: None if is_chosen else leaf, tree, chosen)


def combine(selected: Tree, rest: Tree) -> Tree:
    """Undo `partition`: fill each None from the other tree."""
    if selected is None or rest is None:
        return rest if selected is None else selected
    if isinstance(selected, dict):
        return {name: combine(child, rest[name]) for name, child in selected.items()}
    if isinstance(selected, (tuple, list)):
        children = [combine(child, other) for child, other in zip(selected, rest, strict=True)]
        kind = type(selected)
        return kind(*children) if hasattr(kind, "_fields") else kind(children)
    return selected


def first_not_finite(tree: Tree) -> str:
    """Describe the first leaf with a NaN or infinity; return "" if there is none.

    >>> first_not_finite({"a": np.ones(2), "b": np.array([np.inf, 1.0, np.nan])})
    'b has 2 entries that are not finite, the first is inf'
    """
    for path, leaf in leaves_with_path(tree):
        finite = np.isfinite(leaf)
        if not finite.all():
            bad = np.asarray(leaf)[~finite]
            entries = "entry that is" if bad.size == 1 else "entries that are"
            return f"{path} has {bad.size} {entries} not finite, the first is {bad[0]}"
    return ""


def zeros_like(tree: Tree) -> Tree:
    """Return zeros in the shapes and dtypes of the leaves."""
    return map(np.zeros_like, tree)


def add(a: Tree, b: Tree) -> Tree:
    """Return the sum, leaf by leaf."""
    return map(np.add, a, b)


def count(tree: Tree) -> int:
    """Return the number of entries in all leaves."""
    return sum(leaf.size for leaf in leaves(tree))


def buffer_bytes(tree: Tree, *, without: Tree = None) -> int:
    """Return the bytes that the arrays of a tree keep alive, without those of another tree.

    A view keeps its whole base array alive; memory that two leaves share counts once.
    """
    known = {id(_owner(leaf)) for leaf in leaves(without)}
    owners = {id(owner): owner for owner in (_owner(leaf) for leaf in leaves(tree))}
    return sum(owner.nbytes for key, owner in owners.items() if key not in known)


def _owner(array: Any) -> Any:
    while isinstance(getattr(array, "base", None), np.ndarray):
        array = array.base
    return array


class Summary(NamedTuple):
    """The leaves of a tree as a table, for a terminal and for a notebook; from `summary`."""

    rows: list[tuple[str, str, str, int]]  # path, shape, dtype and number of entries
    total: int

    def __repr__(self) -> str:
        cells = self._cells()
        a, b, c, d = (max(len(cell) for cell in column) for column in zip(*cells, strict=True))
        lines = [f"{p.ljust(a)}  {s.ljust(b)}  {t.ljust(c)}  {n.rjust(d)}" for p, s, t, n in cells]
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        cells = [("leaf", "shape", "dtype", "entries"), *self._cells()]
        lines = ["".join(f"<td>{html.escape(cell)}</td>" for cell in row) for row in cells]
        return f"<table>{''.join(f'<tr>{line}</tr>' for line in lines)}</table>"

    def _cells(self) -> list[tuple[str, str, str, str]]:
        rows = [*self.rows, ("total", "", "", self.total)]
        return [(path, shape, dtype, f"{size:,}") for path, shape, dtype, size in rows]


def summary(tree: Tree) -> Summary:
    """Return the paths, shapes, dtypes and sizes of all leaves, like blocks on one line.

    >>> summary({"blocks": ({"w": np.ones((2, 3))}, {"w": np.ones((2, 3))}), "norm": np.ones(5)})
    blocks.*.w  2 × (2, 3)  float64  12
    norm        (5,)        float64   5
    total                            17
    """
    groups: dict[tuple[str, Any, Any], list[tuple[str, int]]] = {}
    for path, leaf in leaves_with_path(tree):
        pattern = re.sub(r"\b\d+\b", "*", path)
        groups.setdefault((pattern, leaf.shape, leaf.dtype), []).append((path, leaf.size))
    rows = []
    for (pattern, shape, dtype), like in groups.items():
        several = len(like) > 1
        path = pattern if several else like[0][0]
        times = f"{len(like)} × " if several else ""
        rows.append((path, f"{times}{shape}", str(dtype), sum(size for _, size in like)))
    return Summary(rows, count(tree))
