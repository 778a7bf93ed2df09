"""Problems near the one given, with other settings, sizes and optional inputs.

A mistake in a stride, a mask or the last block of rows does not show where the stride is one, the
flag is off and the block divides the rows. Each change here makes one such thing different. Most
changes make no sense to most layers; `own_inputs` drops those that ``forward`` or the reference
refuses, or computes differently.
"""

import contextlib
import inspect
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

import numpy as np

from ... import prng, pytree
from ...contract import Array, Tree
from ..inputs import at, stretched

__all__ = ["Problem", "changed", "defaults_of", "disputed", "tied_or_zero"]

LONG = 131
"""A prime above the usual sizes of blocks."""

LARGEST = 2 * 10**5
"""So many entries a lengthened problem may have, unless the one given has as many."""

EXTREME = 1e4

SINGLE = 24
"""So many axes are changed alone; a model has hundreds."""

_ROOTS = ("params", "x")


class Problem(NamedTuple):
    """Inputs other than those given."""

    what: str  # "stride=2 instead of 1"
    inputs: tuple[Tree, Any]
    keywords: Mapping[str, Any] = MappingProxyType({})  # those that change
    counts: Literal["everything", "values", "infinities"] = "values"
    resized: bool = False
    length: int = 0  # the one that changes, if it does wherever it occurs
    new_axis: bool = False  # whether x has one more, in front


def changed(
    forward: Callable[..., Any],
    inputs: tuple[Tree, Any],
    keywords: dict[str, Any],
    y: Any,
    visit: Callable[..., Any],
) -> Iterator[Problem]:
    """Yield the problems, the likelier first.

    Both ``forward`` and ``visit``, the reference, are watched for optional entries of params and x.
    """
    settings = {name: value for name, value in keywords.items() if not pytree.leaves(value)}
    arrays = {name: value for name, value in keywords.items() if name not in settings}
    yield from _settings(inputs, settings, arrays, y)
    yield from _renamed(inputs, settings, arrays)
    yield from _single(inputs)
    yield from _optional((partial(forward, **keywords), visit), inputs, y)
    yield from _compared(forward, inputs, keywords)
    yield from _divisible(inputs, settings, arrays)
    yield from _extreme(inputs)
    yield from _one_axis_more(inputs)
    yield from _scaled(inputs)


def defaults_of(layer: Any) -> dict[str, Any]:
    """Return the plain settings that ``forward`` has a default for."""
    try:
        parameters = inspect.signature(layer.forward).parameters.values()
    except (TypeError, ValueError):
        return {}
    plain = (bool, int, float, str, type(None))
    named = [p for p in parameters if p.kind is p.KEYWORD_ONLY]
    return {p.name: p.default for p in named if isinstance(p.default, plain)}


def _settings(
    inputs: tuple[Tree, Any], settings: dict[str, Any], arrays: dict[str, Any], y: Any
) -> Iterator[Problem]:
    """Flip flags, count up and down, scale numbers, fill in None and leave arrays out."""
    labels = [leaf for leaf in pytree.leaves((inputs, arrays)) if leaf.dtype.kind in "iu"]
    present = [int(leaf.flat[0]) for leaf in labels if leaf.size] + _lengths(inputs)
    others: dict[str, list[Any]] = {}
    for name, value in settings.items():
        if isinstance(value, bool):
            others[name] = [not value]
        elif isinstance(value, int):
            near = [value + 1, value - 1, 2 * value, 1, 0, *present]
            others[name] = [other for other in dict.fromkeys(near) if other not in (value, -1)]
        elif isinstance(value, float):
            others[name] = [1.3 * value or 0.3]
        elif value is None:
            others[name] = [*_in_place_of_none(inputs[1], y), 2, 0.7]
    others |= {name: [None] for name in arrays}
    for values in itertools.zip_longest(*others.values()):  # the first of each, then the second
        for name, value in zip(others, values, strict=True):
            if value is not None or name in arrays:
                # Zero, and None in either place, forward often takes for want of a check.
                plain = name in settings and isinstance(value, (int, float))
                counts = plain and (isinstance(value, bool) or value > 0)
                what = _instead(name, value, settings.get(name))
                yield Problem(what, inputs, {name: value}, "everything" if counts else "values")


def _instead(name: str, value: Any, before: Any) -> str:
    if isinstance(value, np.ndarray):
        return f"{name} of shape {value.shape} instead of None"
    return f"{name}=None" if value is None else f"{name}={value!r} instead of {before!r}"


def _in_place_of_none(x: Any, y: Any) -> Iterator[Array]:
    for i, like in enumerate([*pytree.leaves(x)[:1], *pytree.leaves(y)[:1]]):
        if like.ndim and like.dtype.kind == "f":
            shapes = [like.shape, like.shape[-1:], like.shape[:-1], (like.shape[-2:-1] * 2)]
            for j, shape in enumerate(shape for shape in dict.fromkeys(shapes) if shape):
                yield 0.5 + prng.uniform((i, j), shape).astype(np.float64)
                yield prng.uniform((i, j, 1), shape) < 0.7


def _lengths(tree: Any) -> list[int]:
    """Return the distinct lengths of axes, those of the most axes first."""
    found = [size for leaf in pytree.leaves(tree) for size in leaf.shape]
    return sorted(dict.fromkeys(size for size in found if size), key=lambda n: -found.count(n))


def _resized(leaf: Array, change: Callable[[int, int], int]) -> Array:
    """Repeat or cut a leaf; what is repeated differs from what it repeats."""
    if leaf.shape == (shape := tuple(change(axis, n) for axis, n in enumerate(leaf.shape))):
        return leaf
    for axis, size in enumerate(shape):
        leaf = np.take(leaf, np.arange(size) % leaf.shape[axis], axis=axis)
    return stretched((leaf.size,), leaf)


def _renamed(
    inputs: tuple[Tree, Any], settings: dict[str, Any], arrays: dict[str, Any]
) -> Iterator[Problem]:
    """Change a length wherever it occurs, in settings of that value too if it must be."""
    lengths, total = _lengths((inputs, arrays)), pytree.count((inputs, arrays))
    for turn in range(8):
        for n in lengths:
            others = [n + 1, n - 1, *(m for m in lengths if m != n), 1, 2 * n, LONG]
            if turn >= len(others) or others[turn] < 1 or others[turn] in others[:turn]:
                continue
            m = others[turn]
            if total * m / n > max(LARGEST, 4 * total):
                continue
            moved, keywords = pytree.map(
                lambda leaf, n=n, m=m: _resized(leaf, lambda _, size: m if size == n else size),
                (inputs, arrays),
            )
            what = f"{m} instead of {n} entries in every axis of {n}"
            keywords = {name: v for name, v in keywords.items() if _has(arrays[name], n)}
            yield Problem(what, moved, keywords, resized=True, length=n)
            same = {name: m for name, v in settings.items() if type(v) is int and v == n}
            if same:
                named = " and ".join(f"{name}={m}" for name in same)
                yield Problem(
                    f"{what}, and {named}", moved, keywords | same, resized=True, length=n
                )


def _has(tree: Any, n: int) -> bool:
    return any(n in leaf.shape for leaf in pytree.leaves(tree))


def _single(inputs: tuple[Tree, Any]) -> Iterator[Problem]:
    """Change one axis of one leaf, or of all leaves of x but one, where others are as long.

    Axes of one are left alone: what is broadcast along them many a right layer does not sum.
    """
    leaves = pytree.leaves_with_path({"x": inputs[1]})
    leaves += pytree.leaves_with_path({"params": inputs[0]})
    lengths = [n for _, leaf in leaves for n in leaf.shape]
    places = [(p, axis, n) for p, leaf in leaves for axis, n in enumerate(leaf.shape)]
    shared = [(p, axis, n) for p, axis, n in places if n > 1 and lengths.count(n) > 1][:SINGLE]
    for path, axis, n in shared:
        if n > 2:
            yield _cut([path], axis, n, n - 1, inputs)
    for path, axis, n in shared:
        yield _cut([path], axis, n, 2 * n, inputs)
        root = path.partition(".")[0]
        alike = [p for p, a, m in places if (a, m) == (axis, n) and p.partition(".")[0] == root]
        if len(alike) > 2:
            yield _cut([p for p in alike if p != path], axis, n, 2 * n, inputs)


def _cut(paths: list[str], axis: int, n: int, m: int, inputs: tuple[Tree, Any]) -> Problem:
    def one(path: str, leaf: Array) -> Array:
        return _resized(leaf, lambda a, k: m if a == axis else k) if path in paths else leaf

    moved = pytree.map_with_path(one, dict(zip(_ROOTS, inputs, strict=True)))
    what = f"{m} instead of {n} entries in axis {axis} of {' and '.join(paths)}"
    first = {leaf.shape[:1] for leaf in pytree.leaves(inputs[1])}
    batch = axis == 0 and len(first) == 1 and paths[0].startswith("x")  # one that all of x share
    counts: Literal["everything", "values"] = "everything" if m > n and not batch else "values"
    return Problem(what, (moved["params"], moved["x"]), counts=counts, resized=True)


class _Asked(dict[str, Any]):
    """A dict that notes the names that somebody looks for in vain."""

    def __init__(self, path: str, content: dict[str, Any], missing: dict[tuple[str, str], None]):
        super().__init__(content)
        self._path, self._missing = path, missing

    def _note(self, name: Any) -> None:
        if isinstance(name, str) and not dict.__contains__(self, name):
            self._missing[self._path, name] = None

    def __contains__(self, name: Any) -> bool:
        self._note(name)
        return super().__contains__(name)

    def get(self, name: Any, default: Any = None) -> Any:
        self._note(name)
        return super().get(name, default)


def _optional(
    functions: Iterable[Callable[..., Any]], inputs: tuple[Tree, Any], y: Any
) -> Iterator[Problem]:
    """Add the entries that a function looks for in a dict and does not find."""
    missing: dict[tuple[str, str], None] = {}

    def asked(path: str, tree: Any) -> Any:
        if isinstance(tree, dict):
            content = {name: asked(at(path, name), child) for name, child in tree.items()}
            return _Asked(path, content, missing)
        return np.array(tree) if pytree.is_leaf(tree) else tree

    for function in functions:
        with contextlib.suppress(Exception):  # it sees what it can see
            function(asked("params", inputs[0]), asked("x", inputs[1]))
    for path, name in missing:
        siblings = [
            leaf
            for p, leaf in pytree.leaves_with_path({"params": inputs[0], "x": inputs[1]})
            if p.startswith(f"{path}.") and leaf.dtype.kind == "f"
        ]
        rows = [leaf.shape[-1:] for leaf in pytree.leaves((y, inputs[1]))]
        for shape in dict.fromkeys([*(leaf.shape for leaf in siblings), *rows]):
            added = prng.normal((len(name),), shape, dtype=np.float64)
            trees = zip(_ROOTS, inputs, strict=True)
            params, x = (_with(tree, path, root, name, added) for root, tree in trees)
            yield Problem(f"{at(path, name)} of shape {shape}", (params, x))


def _with(tree: Any, path: str, here: str, name: str, added: Array) -> Any:
    """Return the tree with one more entry in the dict at a path."""
    if not isinstance(tree, dict):
        return tree
    content = {key: _with(child, path, at(here, key), name, added) for key, child in tree.items()}
    return content | ({name: added} if here == path else {})


class _Compared(str):
    """A string that notes what it is compared with."""

    others: dict[str, None]

    def __eq__(self, other: object) -> bool:
        if isinstance(other, str) and str.__ne__(self, other):
            self.others[str(other)] = None
        return str.__eq__(self, other)

    __hash__ = str.__hash__


def _compared(
    forward: Callable[..., Any], inputs: tuple[Tree, Any], keywords: dict[str, Any]
) -> Iterator[Problem]:
    """Set names such as ``reduction="mean"`` to what ``forward`` compares them with."""
    for name, value in keywords.items():
        if type(value) is not str:
            continue
        noting = _Compared(value)
        noting.others = {}
        with contextlib.suppress(Exception):
            forward(*pytree.map(np.array, inputs), **keywords | {name: noting})
        for other in noting.others:
            yield Problem(_instead(name, other, value), inputs, {name: other}, "everything")


def _divisible(
    inputs: tuple[Tree, Any], settings: dict[str, Any], arrays: dict[str, Any]
) -> Iterator[Problem]:
    """Count a setting up, and multiply a length by it: groups, heads and shards divide one."""
    for name, value in settings.items():
        if type(value) is not int or not 0 < value < 8:
            continue
        k = value + 1
        for n in _lengths(inputs):
            moved, keywords = pytree.map(
                lambda leaf, n=n, k=k: _resized(leaf, lambda _, m: k * n if m == n else m),
                (inputs, arrays),
            )
            keywords = {key: v for key, v in keywords.items() if _has(arrays[key], n)}
            if n % k:
                what = f"{_instead(name, k, value)} and {k * n} entries in every axis of {n}"
                yield Problem(what, moved, keywords | {name: k}, resized=True)


def _extreme(inputs: tuple[Tree, Any]) -> Iterator[Problem]:
    """Make some entries of x very large, or a row of it zero."""
    params, x = inputs

    def spread(leaf: Array) -> Array:
        chosen = prng.uniform((leaf.size,), leaf.shape) < 0.4
        return np.where(chosen, EXTREME * leaf, leaf) if leaf.dtype.kind == "f" else leaf

    what = f"some entries of x {EXTREME:g} times as large"
    yield Problem(what, (params, pytree.map(spread, x)), counts="infinities")
    yield Problem("zeros in x[0]", (params, pytree.map(_emptied, x)), counts="infinities")


def tied_or_zero(inputs: tuple[Tree, Any]) -> Iterator[Problem]:
    """Round x, so that some entries are equal, and make a row of it zero."""
    params, x = inputs
    rounded = pytree.map(
        lambda leaf: np.asarray(np.rint(leaf)) if leaf.dtype.kind == "f" else leaf, x
    )
    yield Problem("integers in x, some of them equal", (params, rounded), counts="everything")
    yield Problem("zeros in x[0]", (params, pytree.map(_emptied, x)), counts="everything")


def _emptied(leaf: Array) -> Array:
    leaf = np.array(leaf)
    if leaf.dtype.kind == "f" and leaf.ndim:
        leaf[:1] = 0
    return leaf


def _one_axis_more(inputs: tuple[Tree, Any]) -> Iterator[Problem]:
    """Give x one more axis in front, if no two axes are alike and can be taken for each other."""
    params, x = inputs
    lengths = {1, *_lengths(inputs)}
    n = next(n for n in itertools.count(2) if n not in lengths)
    if all(len({1, *leaf.shape}) == leaf.ndim + 1 for leaf in pytree.leaves(x)):
        moved = pytree.map(lambda leaf: stretched((leaf.ndim,), np.stack([leaf] * n)), x)
        yield Problem("one more axis in front of x", (params, moved), new_axis=True)


def _scaled(inputs: tuple[Tree, Any]) -> Iterator[Problem]:
    """Make x larger, smaller and of the other sign."""
    params, x = inputs
    for times, what in ((16, "16 times as large"), (1 / 16, "16 times as small"), (-1, "negated")):
        moved = pytree.map(lambda a, t=times: np.asarray(a * t) if a.dtype.kind == "f" else a, x)
        yield Problem(f"x {what}", (params, moved))


def disputed(inputs: tuple[Tree, Any], keywords: dict[str, Any]) -> Iterator[Problem]:
    """Yield problems at which right layers differ, so that no verdict follows from them.

    Of equal entries a maximum may take one or share between them; the k largest do not repeat; and
    what is broadcast many a right layer does not sum.
    """
    params, x = inputs
    arrays = {name: value for name, value in keywords.items() if pytree.leaves(value)}
    same_params, same_x, same = pytree.map(
        lambda leaf: leaf * 0 + leaf[..., :1] if leaf.ndim and leaf.dtype.kind in "iu" else leaf,
        (params, x, arrays),
    )
    if any(leaf.dtype.kind in "iu" and leaf.ndim for leaf in pytree.leaves((inputs, arrays))):
        yield Problem("one integer in each row of them", (same_params, same_x), same)
    yield next(tied_or_zero(inputs))
    tree = dict(zip(_ROOTS, inputs, strict=True))
    for path, leaf in pytree.leaves_with_path(tree):
        if leaf.dtype.kind == "f" and leaf.ndim:
            moved = pytree.map_with_path(partial(_first, path), tree)
            what = f"{path} of shape {leaf.shape[1:]} instead of {leaf.shape}"
            yield Problem(what, (moved["params"], moved["x"]))


def _first(path: str, here: str, leaf: Array) -> Array:
    return leaf[0] if here == path else leaf
