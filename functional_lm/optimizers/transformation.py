"""What an optimizer is: a pair of pure functions, and how pairs chain."""

import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from .. import pytree
from ..contract import Array, Tree
from ..speed.entrywise import entrywise

__all__ = [
    "GradientTransformation",
    "apply_updates",
    "by_entry",
    "chain",
    "expect_gradient",
    "partition",
]


class GradientTransformation(NamedTuple):
    """A pure optimizer, as in optax.

    ``init(params) -> state`` and ``update(grads, state, params, norm=None) -> (updates, state)``,
    where ``norm`` is that of ``grads`` if the caller knows it. Updates are added to the parameters;
    neither function writes to its arguments.

    ``by_leaf(path)`` tells whether the update of an entry depends on others of its leaf, besides
    their norm; if not, parts of the leaf can be updated apart.
    """

    init: Callable[[Tree], Any]
    update: Callable[..., tuple[Tree, Any]]
    by_leaf: Callable[[str], bool] = lambda path: True


def by_entry(path: str) -> bool:
    """Serve as ``by_leaf`` where each entry is updated from its own gradient and state alone."""
    return False


def chain(*transformations: GradientTransformation) -> GradientTransformation:
    """Apply transformations in order, each to the updates of the one before; states are a tuple."""

    def init(params: Tree) -> tuple[Any, ...]:
        return tuple(transformation.init(params) for transformation in transformations)

    def update(
        grads: Tree, state: tuple[Any, ...], params: Tree, norm: float | None = None
    ) -> tuple[Tree, tuple[Any, ...]]:
        new_state = []
        for transformation, old in zip(transformations, state, strict=True):
            grads, new = transformation.update(grads, old, params, norm)
            norm = None  # known for the input of the first alone
            new_state.append(new)
        return grads, tuple(new_state)

    def by_leaf(path: str) -> bool:
        return any(transformation.by_leaf(path) for transformation in transformations)

    return GradientTransformation(init, update, by_leaf)


def partition(
    transformations: Mapping[str, GradientTransformation], label: Callable[[str], str]
) -> GradientTransformation:
    """Give each leaf to the transformation that its path is labelled with; states are a dict.

    The leaves of the others are None in what a transformation gets, as frozen leaves are.

    Args:
        transformations: by their labels.
        label: maps a path, such as ``blocks.0.norm1.scale``, to one of them.
    """

    def split(tree: Tree) -> dict[str, Tree]:
        labelled = [(label(path), leaf) for path, leaf in pytree.leaves_with_path(tree)]

        def part(name: str) -> Tree:
            own = iter([leaf if its == name else None for its, leaf in labelled])
            return pytree.map(lambda _: next(own), tree)

        return {name: part(name) for name in transformations}

    def init(params: Tree) -> dict[str, Any]:
        parts = split(params)
        for path, _ in pytree.leaves_with_path(params):
            if label(path) not in transformations:
                raise ValueError(
                    f"label must name a transformation: got {label(path)!r} for {path}; pass one "
                    f"of {', '.join(transformations)}"
                )
        return {name: one.init(parts[name]) for name, one in transformations.items()}

    def update(
        grads: Tree, state: dict[str, Any], params: Tree, norm: float | None = None
    ) -> tuple[Tree, dict[str, Any]]:
        parts, of_parts = split(params), split(grads)
        results = {
            name: transformation.update(of_parts[name], state[name], parts[name])
            for name, transformation in transformations.items()
        }
        updates = functools.reduce(pytree.combine, (own for own, _ in results.values()))
        return updates, {name: own for name, (_, own) in results.items()}

    return GradientTransformation(
        init, update, lambda path: transformations[label(path)].by_leaf(path)
    )


def apply_updates(params: Tree, updates: Tree) -> Tree:
    """Return ``params + updates``, leaf by leaf, in the dtypes of the params.

    Raises:
        ValueError: for updates of another structure or shape.
    """
    return entrywise(lambda p, u, out: np.add(p, u, out=out), params, updates)


def expect_gradient(grads: Tree, params: Tree) -> None:
    """Require the structure and the shapes of the params; no leaf is broadcast.

    Raises:
        ValueError: naming the leaf.
    """
    unlike: list[Array] = []

    def compare(leaf: Array, gradient: Any) -> None:
        if np.shape(gradient) != leaf.shape:
            unlike.append(leaf)

    pytree.map(compare, params, grads)
    for path, leaf, gradient in pytree.zip_with_path(params, grads) if unlike else ():
        if np.shape(gradient) != leaf.shape:
            raise ValueError(
                f"the gradient of {path} must have its shape, {leaf.shape}: "
                f"got {np.shape(gradient)}; check the vjp"
            )
