"""Trees of arrays in files that are whole or refused, and the checkpoints of a run.

A file is a safetensors file, which holds no code. That format has no checksums: a flipped bit reads
as another number. So its metadata hold a description of the tree with the SHA-256 of every tensor,
preceded by the SHA-256 of the description itself. That is one string, since the format's writer
shuffles several: the same tree always gives the same bytes.

A run keeps its last two checkpoints, and the one with the lowest validation loss.
"""

import hashlib
import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from .. import pytree
from ..contract import Array, Tree
from ..files import FileFormatError, parse_json, read_tensors, shown, write_atomic
from ..training.loop import TrainState

FORMAT = "functional_lm.checkpoint.1"
CHECKPOINTS = "checkpoints"
KEPT = 2
COUNTS = ("step", "notfinite_count", "total_notfinite")

_NAME = re.compile(r"step-(\d{8,})\.safetensors")


class Checkpoint(NamedTuple):
    """What `load_checkpoint` returns."""

    tree: Tree
    metadata: dict[str, Any]


def save_checkpoint(
    path: str | Path, tree: Tree, *, metadata: Mapping[str, Any] | None = None
) -> None:
    """Write a tree to a file, which appears whole, by a rename, once it is on the disk.

    Args:
        path: of the file; an older one is replaced.
        tree: arrays in nested dicts, tuples, lists and NamedTuples; numbers, strings and None
            among them are kept too.
        metadata: anything that JSON can hold.

    Raises:
        OSError: if it cannot be written; an older file is as it was.
        TypeError: for a tree or metadata with anything else in it.
        ValueError: for one that nests too deep, or NaN in the metadata.
    """
    from safetensors.numpy import save

    arrays = {name: _storable(leaf, name) for name, leaf in pytree.leaves_with_path(tree)}
    content = {
        "tree": _described(tree, ""),
        "tensors": {name: _fingerprint(array) for name, array in arrays.items()},
        "metadata": dict(metadata or {}),
    }
    text = json.dumps(content, allow_nan=False)
    parse_json(text, path)  # what is written can be read: no tree nests too deep
    write_atomic(path, save(arrays, {FORMAT: f"{_sha256(text.encode())} {text}"}))


def load_checkpoint(path: str | Path, *, like: Tree = None) -> Checkpoint:
    """Read what `save_checkpoint` wrote.

    Args:
        path: of the file.
        like: a tree of the structure, shapes and dtypes that the file must have. Without it,
            a NamedTuple comes back as a dict, and a NumPy scalar as an array without axes.

    Raises:
        OSError: if the file cannot be read.
        FileFormatError: if it is damaged, or holds another tree than one like that.
    """
    tensors = read_tensors(path)
    if FORMAT not in tensors.metadata:
        reason = "has no checksums; pass a file that this version of save_checkpoint wrote"
        raise FileFormatError(path, reason)
    checksum, _, text = tensors.metadata[FORMAT].partition(" ")
    if checksum != _sha256(text.encode()):
        raise _damaged(path, "its description does not have its checksum")
    content = parse_json(text, path)
    try:
        tree, metadata = _rebuilt(content["tree"], tensors.arrays, ""), dict(content["metadata"])
        expected = dict(content["tensors"])
    except (KeyError, TypeError, ValueError, AttributeError):  # somebody wrote it on purpose
        raise _damaged(path, "it describes no tree") from None
    found = {name: _fingerprint(array) for name, array in tensors.arrays.items()}
    for name in sorted(found.keys() | expected.keys()):
        if found.get(name) != expected.get(name):
            raise _damaged(path, f"{shown(name)} does not have its checksum")
    return Checkpoint(tree if like is None else in_form_of(like, tree, path), metadata)


def _storable(leaf: Any, path: str) -> Array:
    """Return a leaf as an array whose bytes are what the file shall hold, in order."""
    if leaf.dtype.kind not in "fiub":
        raise TypeError(f"a tree to save must hold numbers: {path} has {leaf.dtype}; leave it out")
    return np.asarray(leaf, leaf.dtype.newbyteorder("<"), order="C")


def _sha256(data: Any) -> str:
    return hashlib.sha256(data).hexdigest()


def _fingerprint(array: Array) -> dict[str, Any]:
    return {
        "dtype": array.dtype.name,
        "shape": list(array.shape),
        "sha256": _sha256(array.reshape(-1).view(np.uint8)),
    }


def _damaged(path: str | Path, reason: str) -> FileFormatError:
    return FileFormatError(path, f"is damaged: {reason}; go back to an earlier checkpoint")


def _described(node: Any, path: str) -> Any:
    """Return the structure of a tree as JSON: an array is "*", and each node says what it is."""
    if pytree.is_leaf(node):
        return "*"
    children = {name: _described(child, f"{path}.{name}") for name, child in _named(node)}
    if isinstance(node, dict):
        return {"dict": children}
    if isinstance(node, tuple) and hasattr(node, "_fields"):
        return {"fields": children}
    if isinstance(node, (tuple, list)):
        return {type(node).__name__: list(children.values())}
    if node is None or isinstance(node, (bool, int, float, str)):
        return {"value": node}
    raise TypeError(
        f"a tree to save must hold arrays, numbers and strings: got {type(node).__name__} at "
        f"{path.lstrip('.') or 'the root'}; leave it out"
    )


def _named(node: Any) -> list[tuple[str, Any]]:
    if isinstance(node, dict):
        return sorted(node.items())  # so that the same tree always gives the same bytes
    if isinstance(node, tuple) and hasattr(node, "_fields"):
        return list(zip(node._fields, node, strict=True))
    if isinstance(node, (tuple, list)):
        return [(str(i), child) for i, child in enumerate(node)]
    return []


def _rebuilt(description: Any, arrays: dict[str, Array], path: str) -> Tree:
    """Return the tree that was described; the names of its arrays are their paths."""
    if description == "*":
        return arrays[path]
    ((kind, inner),) = description.items()
    if kind == "value":
        return inner
    named = inner.items() if isinstance(inner, dict) else enumerate(inner)
    children = {
        str(name): _rebuilt(child, arrays, f"{path}.{name}" if path else str(name))
        for name, child in named
    }
    if kind == "tuple":
        return tuple(children.values())
    return list(children.values()) if kind == "list" else children


def in_form_of(like: Any, node: Any, path: str | Path, at: str = "") -> Any:
    """Return a tree that was loaded without ``like`` in the containers of another.

    Args:
        like: the other; its leaves must have the same paths, shapes and dtypes.
        node: what was loaded.
        path: of the file.
        at: where in the trees these are.

    Raises:
        FileFormatError: naming the first difference.
    """

    def expect(same: bool, required: str, got: str) -> None:
        if not same:
            where = at or "the root"
            reason = f"must hold another tree: at {where} {required}, got {got}"
            raise FileFormatError(path, f"{reason}; pass the checkpoint of this model")

    if pytree.is_leaf(like):
        leaf = pytree.is_leaf(node)
        expect(leaf, "an array", type(node).__name__)
        wanted, found = (f"{one.dtype} {one.shape}" for one in (like, node))
        expect(wanted == found, wanted, found)
        return node[()] if isinstance(like, np.generic) else node
    expect(not pytree.is_leaf(node), type(like).__name__, "an array")
    names = [name for name, _ in _named(like)]
    loaded = dict(_named(node))
    expect(set(names) == set(loaded), ", ".join(names) or "nothing", ", ".join(loaded) or "nothing")
    children = [
        in_form_of(child, loaded[name], path, f"{at}.{name}" if at else name)
        for name, child in _named(like)
    ]
    if isinstance(like, dict):
        return dict(zip(names, children, strict=True))
    if isinstance(like, tuple) and hasattr(like, "_fields"):
        return type(like)(*children)
    return type(like)(children) if isinstance(like, (tuple, list)) else node


# The checkpoints of a run.


def save_state(
    run: str | Path, state: TrainState, *, metadata: dict[str, Any], best_step: int | None = None
) -> Path:
    """Write a checkpoint of a run, then remove those that are no longer kept.

    Args:
        run: the folder of the run.
        state: of the training.
        metadata: what else shall be in it, for JSON.
        best_step: the step whose checkpoint is kept besides the last ones.

    Raises:
        OSError: if it cannot be written; those before are as they were.
    """
    folder = Path(run) / CHECKPOINTS
    folder.mkdir(exist_ok=True)
    path = folder / f"step-{state.step:08}.safetensors"
    counts = {name: getattr(state, name) for name in COUNTS}
    tree = {"params": state.params, "optimizer_state": state.optimizer_state}
    save_checkpoint(path, tree, metadata={**metadata, **counts})
    keep_last(run, best_step)
    return path


def keep_last(run: str | Path, best_step: int | None) -> None:
    """Remove the checkpoints of a run but for the last ones and that of the best step.

    Raises:
        OSError: if one cannot be removed.
    """
    present = _present(run)
    for step in sorted(present)[:-KEPT]:
        if step != best_step:
            present[step].unlink()


def latest_state(
    run: str | Path,
    like: Callable[[], TrainState],
    warn: Callable[[str], None] = lambda message: None,
    check: Callable[[dict[str, Any]], None] = lambda metadata: None,
) -> tuple[TrainState, dict[str, Any]]:
    """Return the newest checkpoint of a run that can be read, with its metadata.

    A damaged one gets another name, so that it is never mistaken for a good one again.

    Args:
        run: the folder of the run.
        like: makes a state of that model and optimizer, once the metadata are checked.
        warn: called with a sentence for each that is damaged.
        check: called with the metadata of the one that is whole, before its tree is looked at.

    Raises:
        FileFormatError: if there is none, or it is one of another model.
    """
    present = _present(run)
    for step in sorted(present, reverse=True):
        path = present[step]
        try:
            loaded, metadata = load_checkpoint(path)
        except FileFormatError as error:
            aside = path.with_name(f"{path.name}.damaged")
            path.replace(aside)
            warn(f"{error}; it is kept as {aside.name}")
            continue
        counts = {name: metadata.get(name) for name in COUNTS}
        best = metadata.get("best_step", False), metadata.get("best_loss", False)
        if not all(type(count) is int and count >= 0 for count in counts.values()) or (
            best != (None, None) and (type(best[0]), type(best[1])) != (int, float)
        ):
            raise FileFormatError(path, "is not of a run; pass the folder of one")
        check(metadata)
        state = like()
        tree = {"params": state.params, "optimizer_state": state.optimizer_state}
        loaded = in_form_of(tree, loaded, path)
        return TrainState(**counts, **loaded), metadata  # type: ignore[arg-type]
    raise FileFormatError(run, "has no checkpoint that can be read; start the run anew")


def _present(run: str | Path) -> dict[int, Path]:
    """Return the checkpoints by step."""
    folder = Path(run) / CHECKPOINTS
    names = folder.iterdir() if folder.is_dir() else []
    found = ((_NAME.fullmatch(path.name), path) for path in names)
    return {int(match[1]): path for match, path in found if match}
