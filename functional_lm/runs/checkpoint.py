"""A tree of arrays in one file that is whole, or is refused.

The file is a safetensors file, which holds no code. That format has no checksums: of its own it
takes a flipped bit for another number. So its metadata hold a description of the tree with the
SHA-256 of every tensor, and before it the SHA-256 of the description itself. That is one string,
since the writer of the format shuffles several: the same tree always makes the same bytes.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from .. import pytree
from ..contract import Array, Tree
from ..files import FileFormatError, parse_json, read_tensors, write_atomic

FORMAT = "functional_lm.checkpoint.1"


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
    """
    from safetensors.numpy import save

    arrays = {name: _storable(leaf, name) for name, leaf in pytree.leaves_with_path(tree)}
    content = {
        "tree": _described(tree, ""),
        "tensors": {name: _fingerprint(array) for name, array in arrays.items()},
        "metadata": dict(metadata or {}),
    }
    text = json.dumps(content, allow_nan=False)
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
        raise FileFormatError(path, "is not a checkpoint; pass a file of save_checkpoint")
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
            raise _damaged(path, f"{name[:80]} does not have its checksum")
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
        return list(node.items())
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
