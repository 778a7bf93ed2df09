"""Whether a layer refuses what it cannot work with, and its errors name the argument."""

import inspect
import re
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np

from ... import pytree
from ...contract import Array
from ..inputs import at, cast
from ..subject import Examination
from .forward_mode import tangent_like

__all__ = ["check_refusals"]

LEAVES = 12
"""At most this many leaves of a tree are spoilt, evenly spread."""


def check_refusals(examination: Examination) -> None:
    """Require a TypeError or ValueError that names the argument for inputs spoilt in one place.

    Those are: params that are no dict, lack a key or have an unknown one; a leaf that is a list,
    float16, integers, or float64 among float32; floating tokens; a shape that the reference does
    not accept either; a cotangent or tangent of another dtype or shape, also one that would
    broadcast.
    """
    subject = examination.subject
    (params, x), g = cast(examination.draws[0], np.float32)
    name_of_x = [*inspect.signature(subject.layer.forward).parameters][1]
    given = {"params": params, name_of_x: x}

    def forward(spoilt: Any) -> Any:
        return subject.layer.forward(*spoilt.values(), **subject.keywords(np.float32))

    for what, names, spoilt in [*_spoilt_params(given), *_spoilt_leaves(given)]:
        _require(examination, f"forward {what}", names, partial(forward, spoilt))
    for what, names, spoilt in [*_lacking(given), *_misshapen(given)]:
        right = partial(_accepted, examination, spoilt)
        _require(examination, f"forward {what}", names, partial(forward, spoilt), right)
    _, residuals = subject.forward((params, x))
    for path, leaf in pytree.leaves_with_path(g):
        if np.ndim(leaf) == 0 and path:
            continue  # a scalar beside arrays
        for what, changed in _cotangents(np.asarray(leaf)):
            spoilt = _replaced(g, path, changed)
            message = f"vjp accepts {at('g', path)} {what}"
            _require(examination, message, {"g"}, partial(subject.layer.vjp, residuals, spoilt))
    t_params, t_x = tangent_like((params, x), "float32")
    tangents = {"t_params": t_params, "t_x": t_x}
    jvp: Any = getattr(subject.layer, "jvp", None)
    for path, leaf in _some_leaves(tangents) if jvp else ():
        for what, changed in _cotangents(leaf):
            pair = (*_replaced(tangents, path, changed).values(),)
            names = {*tangents}  # in the middle of a model, another may be named
            call = partial(jvp, residuals, pair)
            _require(examination, f"jvp accepts {path} {what}", names, call)


def _require(
    examination: Examination,
    accepts: str,
    names: set[str],
    call: Callable[[], Any],
    right: Callable[[], bool] = lambda: False,
) -> None:
    """Run a call that has to be refused, unless ``right`` tells that it need not be."""
    required = f"it must raise a TypeError or ValueError that names {' or '.join(sorted(names))}"
    try:
        call()
    except (TypeError, ValueError) as error:
        if names & set(re.findall(r"\w+", str(error))):
            return
        received = f"the {type(error).__name__} does not: {error}"
    except Exception as error:
        received = f"got {type(error).__name__}: {error}"
    else:
        received = "got no error"
    if not right():
        examination.find("refusals", f"{accepts}: {required}; {received}", cause="not refused")


def _spoilt_params(given: dict[str, Any]) -> Iterator[tuple[str, set[str], Any]]:
    """Yield (what is wrong, names of which one must be said, arguments)."""
    params = given["params"]
    yield "accepts None for params", {"params"}, given | {"params": None}
    if isinstance(params, dict):
        unknown = params | {"unknown": np.ones(1, np.float32)}
        yield "accepts params with an unknown key", {"unknown"}, given | {"params": unknown}


def _lacking(given: dict[str, Any]) -> Iterator[tuple[str, set[str], Any]]:
    params = given["params"]
    for key in params if isinstance(params, dict) else ():
        lacking = {k: v for k, v in params.items() if k != key}
        yield f"accepts params without {key}", {key}, given | {"params": lacking}


def _some_leaves(given: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    leaves = pytree.leaves_with_path(given)
    for path, leaf in leaves[:: max(1, len(leaves) // LEAVES)]:
        if np.ndim(leaf) > 0 or "." not in path:  # a layer may hand on a scalar beside arrays
            yield path, leaf


def _spoilt_leaves(given: dict[str, Any]) -> Iterator[tuple[str, set[str], Any]]:
    leaves = pytree.leaves_with_path(given)
    # Of two that do not fit each other, or in the middle of a model, another may be named.
    some = {path.rpartition(".")[2] for path, _ in leaves} | {"x"}
    several = sum(leaf.dtype.kind == "f" for _, leaf in leaves) > 1
    for path, leaf in _some_leaves(given):
        name = {path.rpartition(".")[2]}
        yield f"accepts {path} as a list", name, _replaced(given, path, leaf.tolist())
        if leaf.dtype.kind != "f":
            yield (
                f"accepts {path} as float32",
                name,
                _replaced(given, path, leaf.astype(np.float32)),
            )
            continue
        for dtype, names in ((np.float16, name), (np.int64, name), (np.float64, some)):
            if several or dtype != np.float64:
                what = f"accepts {path} as {np.dtype(dtype)}"
                yield what, names, _replaced(given, path, leaf.astype(dtype))


def _misshapen(given: dict[str, Any]) -> Iterator[tuple[str, set[str], Any]]:
    for path, leaf in _some_leaves(given):
        if leaf.dtype.kind != "f":
            continue
        longer = [
            np.concatenate([leaf, leaf.take([0], a)], a) for a in range(leaf.ndim) if leaf.size
        ]
        for other in [*longer, leaf[None]]:
            what = f"accepts {path} of shape {other.shape} for {leaf.shape}"
            yield what, {"got"}, _replaced(given, path, other)


def _cotangents(g: Array) -> Iterator[tuple[str, Any]]:
    yield "as float64 for float32", g.astype(np.float64)
    yield "with one more axis", g[None]
    for axis, size in enumerate(g.shape):
        if size > 1:
            yield f"that would broadcast along axis {axis}", g.take([0], axis)


def _accepted(examination: Examination, given: dict[str, Any]) -> bool:
    """Tell whether the reference takes these arguments."""
    try:
        examination.oracle.output(tuple(given.values()), "float32")
    except Exception:  # whatever it raises for what it does not take
        return False
    return True


def _replaced(tree: Any, path: str, value: Any) -> Any:
    return pytree.map_with_path(lambda p, leaf: value if p == path else leaf, tree)
