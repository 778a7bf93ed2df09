"""The same layer at other inputs: memory layouts, one example, one token, none, extreme scales."""

from collections.abc import Callable
from typing import Any

import numpy as np

from ... import pytree
from ...contract import Tree
from .. import limits
from ..inputs import LAYOUTS, cast, finite, same_bits, scaled
from ..oracle import JaxOracle
from ..subject import BrokenLayer, Examination
from .accuracy import distance, rows
from .conduct import like_faults

__all__ = ["check_bitwise", "check_examples", "check_layouts", "check_one_token", "check_scales"]


EMPTY = "an empty batch (x[:0])"
CALLS = 4


def check_layouts(examination: Examination, dtype: str) -> None:
    """Require the same results for inputs that are not C-contiguous, within rounding."""
    subject = examination.subject
    inputs, g = cast(examination.draws[0], dtype)
    plain = examination.oracle.project(subject.results(inputs, g))
    for name, lay_out in LAYOUTS.items():
        laid, laid_g, keywords = pytree.map(
            lambda leaf, lay_out=lay_out: lay_out(leaf) if isinstance(leaf, np.ndarray) else leaf,
            (inputs, g, subject.keywords(dtype)),
        )
        at = f"{name} inputs in {dtype}"
        _compare(examination, plain, laid, laid_g, at, "layout", dtype=dtype, keywords=keywords)


def check_examples(examination: Examination) -> None:
    """Require that a batch equals its examples one by one, and that an empty batch works.

    Only where the leading axis is a batch: every leaf of x and y but scalars has it, and the
    reference gives an example and the scalars the same value in whatever company it comes.
    """
    (inputs, g), *_ = examination.draws
    batch = _batch(examination, inputs, g)
    if batch is None:
        return
    oracle, (size, whole) = examination.oracle, batch
    parts = {f"one example (x[{i}:{i + 1}])": slice(i, i + 1) for i in range(min(size, 3))}
    for at, part in (parts | {EMPTY: slice(0)}).items():
        exact = oracle.results(inputs, _only(g, part), "float64")
        exact |= {name: _pick(exact[name], part) for name in ("y", "x")}
        few = (inputs[0], _pick(inputs[1], part))
        _compare(examination, exact, few, _pick(g, part), at, whole=whole)


def check_bitwise(examination: Examination, dtype: str) -> None:
    """Require the same bits in every call, and for an example in whatever batch it comes.

    An example is compared alone, among the others in reverse, and in a batch of twice the size.
    What is summed over the batch, such as the gradients of params, is compared from call to call.
    """
    subject = examination.subject
    inputs, g = cast(examination.draws[0], dtype)
    first = subject.results(inputs, g)

    def require(expected: Tree, received: Tree, when: str) -> None:
        for path, a, b in pytree.zip_with_path(expected, received):
            if b is not None and not same_bits(a, b):
                message = f"{path} has other bits in {dtype} {when}"
                more = {"leaf": path, "dtype": dtype, "cause": "not reproducible"}
                examination.find("bitwise", message, **more)

    for _ in range(CALLS):
        require(first, subject.results(inputs, g), "in another call of the same inputs")
    batch = _batch(examination, *cast((inputs, g), np.float64))
    if batch is None:
        return
    size = batch[0]
    orders = {f"for x[{i}:{i + 1}] alone": [i] for i in range(size)}
    orders["for the batch in reverse"] = list(range(size))[::-1]
    orders["for a batch of twice the size"] = [*range(size), *range(size)]
    for when, order in orders.items():
        some_x, some_g = _pick(inputs[1], order), _pick(g, order)
        found = subject.results((inputs[0], some_x), some_g)
        names = ("y", "x")
        require({n: _pick(first[n], order) for n in names}, {n: found[n] for n in names}, when)


def check_one_token(examination: Examination) -> None:
    """Require the reference's results for a second axis of one, where the reference allows it.

    That axis is time by convention. Keyword arrays with the same length in one of their first two
    axes are cut along with x.
    """
    oracle, subject = examination.oracle, examination.subject
    (params, x), g = examination.draws[0]
    leaves = _with_axes((x, g))
    if not (isinstance(oracle, JaxOracle) and leaves) or any(leaf.ndim < 3 for leaf in leaves):
        return
    lengths = {leaf.shape[1] for leaf in leaves}
    kinds = {leaf.dtype.kind in "iub" for leaf in pytree.leaves(x)}
    if lengths == {1} or len(lengths) > 1 or len(kinds) > 1:
        return  # keys beside queries, or indices into another input
    given = (x, subject.keywords(np.float64), oracle.keywords["float64"])
    short, keywords, theirs = pytree.map(lambda leaf: _cut(leaf, lengths), given)
    try:
        y = oracle.output((params, short), "float64", keywords=theirs)
        if any(leaf.ndim < 2 or leaf.shape[1] != 1 or not leaf.size for leaf in _with_axes(y)):
            return  # that axis is not time
        short_g = pytree.map(lambda a, b: a[tuple(map(slice, b.shape))].copy(), g, y)
        exact = oracle.results((params, short), short_g, "float64", keywords=theirs)
    except Exception:  # whatever a reference raises that is not made for this
        return
    at, may_break = "one token (x[:, :1])", bool(pytree.leaves(keywords))
    inputs = (params, short)

    def in_float32() -> Tree:
        few, few_g, sides = cast((inputs, short_g, theirs), np.float32)
        return oracle.results(few, few_g, "float32", keywords=sides)

    more: dict[str, Any] = {"keywords": keywords, "may_break": may_break}
    _compare(examination, exact, inputs, short_g, at, in_float32=in_float32, **more)


def check_scales(examination: Examination) -> None:
    """Look at the extreme scales that the layer declares."""
    for scale in examination.subject.extreme_scales:
        inputs, g = examination.draws[0]
        moved = (inputs[0], scaled(inputs[1], scale))
        exact = examination.oracle.results(moved, g, "float64")
        _compare(examination, exact, moved, g, f"x times {scale:g}", "not finite")


def _compare(
    examination: Examination,
    exact: Any,
    inputs: Any,
    g: Any,
    at: str,
    cause: str = "edge shape",
    *,
    dtype: str = "float64",
    keywords: dict[str, Any] | None = None,
    whole: Tree | None = None,
    may_break: bool = False,
    in_float32: Callable[[], Tree] | None = None,
) -> None:
    """Add a finding for each leaf that differs by more than rounding.

    A part may err as much as the ``whole``, and as much as the reference's float32 results, if
    they are given, say that it errs itself: a small loss may be the difference of large numbers.
    """
    subject, oracle, leaves = examination.subject, examination.oracle, examination.report.leaves
    try:
        ours = oracle.project(subject.results(inputs, g, keywords))
    except BrokenLayer as error:
        if at == EMPTY and not subject.strict:
            subject.notes[f"{error} for {at}"] = None
        elif not may_break:
            examination.find("inputs", f"{error} for {at}", dtype=dtype, cause=cause)
        return
    faults = [fault for name in exact for fault in like_faults(name, exact[name], ours[name])]
    if faults:
        message, leaf = f"{faults[0].message} for {at}", faults[0].leaf
        examination.find("inputs", message, leaf=leaf, dtype=dtype, cause=cause)
        return
    tolerance = oracle.tolerance if dtype == "float64" else 1e-11
    slack = float(np.finfo(dtype).eps / np.finfo(np.float64).eps)
    # The names are those of the leaves of the whole, whose size rounding goes by.
    sizes = dict(pytree.leaves_with_path(exact if whole is None else whole))
    for path, expected, received, largest in rows(exact, ours):
        of_whole = leaves.get(path)
        if of_whole is not None and not of_whole.within("float64"):
            continue  # it is wrong everywhere, and the report says so
        limit = max(
            limits.float64_limit(finite(leaf), largest, tolerance=tolerance)
            for leaf in (expected, sizes[path])
        )
        if of_whole is not None and of_whole.float64_limit is not None:
            limit = max(limit, of_whole.float64_limit * limits.norm(finite(sizes[path])))
        apart = distance(received, expected, subject.may_be_non_finite)
        if not apart <= slack * limit and in_float32 is not None:
            theirs = dict(pytree.leaves_with_path(in_float32()))[path]
            noise = distance(theirs, finite(expected), may_be_non_finite=False)
            limit = max(limit, limits.FLOAT64_OVER_FLOAT32 * 16 * noise)  # one draw tells little
        if not apart <= slack * limit:
            message = f"{path} is wrong for {at}"
            examination.find("inputs", message, leaf=path, dtype=dtype, cause=cause)


def _batch(examination: Examination, inputs: Any, g: Any) -> tuple[int, Tree] | None:
    """Return the size of the leading axis of x and y and the results; None if it is no batch.

    A keyword array that might have that axis too leaves it open what one example is.
    """
    oracle = examination.oracle
    sizes = {leaf.shape[0] for leaf in _with_axes((inputs[1], g))}
    if not (sizes and _with_axes(g) and oracle.has_float32):
        return None
    sides = pytree.leaves(examination.subject.keywords(np.float64))
    size = next(iter(sizes))
    if len(sizes) > 1 or size < 2 or any(size in np.shape(leaf) for leaf in sides):
        return None
    whole = oracle.results(inputs, g, "float64")
    return (size, whole) if _separable(oracle, inputs, g, whole, size) else None


def _separable(oracle: Any, inputs: Any, g: Any, whole: Tree, size: int) -> bool:
    """Tell whether the reference gives an example the same value beside copies of itself."""
    params, x = inputs
    last = size - 1
    copies = pytree.map(lambda leaf: np.repeat(leaf[last:], size, axis=0) if leaf.ndim else leaf, x)
    alone = oracle.results((params, copies), g, "float64")
    pairs = zip(pytree.leaves(whole["y"]), pytree.leaves(alone["y"]), strict=True)
    return all(
        np.allclose(a[last:] if a.ndim else a, b, rtol=1e-11, atol=1e-13, equal_nan=True)
        for a, b in pairs
    )


def _with_axes(tree: Any) -> list[Any]:
    """Return the leaves that are no scalars."""
    return [leaf for leaf in pytree.leaves(tree) if leaf.ndim]


def _pick(tree: Any, part: slice | list[int]) -> Any:
    return pytree.map(lambda leaf: np.array(leaf[part], order="C") if leaf.ndim else leaf, tree)


def _only(tree: Any, part: slice) -> Any:
    """Return zeros but for a part of the leading axis, and for scalars."""

    def one(leaf: Any) -> Any:
        if not leaf.ndim:
            return leaf
        masked = np.zeros_like(leaf)
        masked[part] = leaf[part]
        return masked

    return pytree.map(one, tree)


def _cut(leaf: Any, lengths: set[int]) -> Any:
    """Return the first entry along the second axis, or along the first if it alone is as long."""
    if leaf.ndim > 1 and leaf.shape[1] in lengths:
        return np.ascontiguousarray(leaf[:, :1])
    if leaf.ndim == 1 and leaf.shape[0] in lengths:
        return leaf[:1].copy()
    return leaf
