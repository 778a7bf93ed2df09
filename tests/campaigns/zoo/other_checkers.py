"""Gradient checkers of other projects, each applied to a layer of this one in its usual form.

A `Flat` layer is what the frameworks want: a function of a list of floating arrays. Each checker
is given one and raises if it finds a fault. What the layer returns is cast to the dtype
that the framework needs and otherwise left as it is. Integers are closed over.
"""

import importlib.util
import logging
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from functional_lm import pytree
from functional_lm.testing.inputs import cast


class Checker(NamedTuple):
    """A way to check a layer without a reference."""

    name: str
    what: str  # the function that is called, and how
    dtype: str  # of the inputs
    run: Callable[["Flat"], None]
    complaint: type[Exception]  # what it raises when gradients differ


class Flat:
    """A layer as functions of a list of floating arrays.

    ``faults`` notes what no framework can handle: an exception in the layer, a gradient that is
    missing or has another shape. Any other exception is the wrapper's own.
    """

    def __init__(self, layer: Any, params: Any, x: Any, keywords: Any, dtype: str) -> None:
        """Take a layer and copies of its inputs in a dtype."""
        self.layer = layer
        self.inputs = cast((params, x), dtype)
        self.keywords = cast(keywords, dtype)
        self.leaves = [leaf for leaf in pytree.leaves(self.inputs) if leaf.dtype.kind == "f"]
        self.faults: list[str] = []
        self._y: Any = None

    def forward(self, leaves: list[Any]) -> tuple[list[Any], Any]:
        """Return the leaves of y, and the residuals."""
        given = iter(leaves)
        inputs = pytree.map(lambda x: next(given) if x.dtype.kind == "f" else x, self.inputs)
        y, residuals = self._noting(lambda: self.layer.forward(*inputs, **self.keywords))
        self._y = y if pytree.leaves(y) else np.asarray(y)
        dtype = self.leaves[0].dtype
        return [np.asarray(leaf, dtype, order="C") for leaf in pytree.leaves(self._y)], residuals

    def vjp(self, residuals: Any, g: Any, take: Callable[[Any, Any], list[Any]]) -> list[Any]:
        """Return a cotangent for each floating leaf.

        Args:
            residuals: from forward.
            g: the cotangents of the leaves of y.
            take: ``(inputs, cotangents) -> list``, the cotangents that stand at the leaves.
        """
        given = iter(g)
        g = pytree.map(lambda _: next(given), self._y)
        cotangents = self._noting(lambda: take(self.inputs, self.layer.vjp(residuals, g)))
        pairs = zip(pytree.leaves(self.inputs), cotangents, strict=True)
        return [self._as(leaf, d_leaf) for leaf, d_leaf in pairs if leaf.dtype.kind == "f"]

    def _noting(self, call: Callable[[], Any]) -> Any:
        """Call the layer; note what it raises."""
        try:
            return call()
        except Exception as error:
            self.faults.append(f"{type(error).__name__}: {error}")
            raise

    def _as(self, leaf: Any, d_leaf: Any) -> Any:
        """Cast a cotangent; note one that is missing or misshapen, and leave it so."""
        if d_leaf is None:
            self.faults.append("a cotangent is None")
            return None
        d_leaf = np.asarray(d_leaf, leaf.dtype, order="C")
        if d_leaf.shape != leaf.shape:
            self.faults.append(f"a cotangent is {d_leaf.shape} for {leaf.shape}")
        return d_leaf


def by_place(inputs: Any, cotangents: Any) -> list[Any]:
    """Take cotangents by key or index, as one writes a ``backward`` by hand."""
    if pytree.is_leaf(inputs):
        return [cotangents]
    places = sorted(inputs) if isinstance(inputs, dict) else range(len(inputs))
    return [d for place in places for d in by_place(inputs[place], cotangents[place])]


def check_with_jax(flat: Flat) -> None:
    """Use `jax.test_util.check_grads` on a `jax.custom_vjp` around callbacks.

    The residuals go through JAX as arrays; what is no array among them is closed over.
    """
    import jax
    from jax.test_util import check_grads

    def like(arrays: Any) -> Any:
        return [
            jax.ShapeDtypeStruct(a.shape, jax.dtypes.canonicalize_dtype(a.dtype)) for a in arrays
        ]

    def by_tree(inputs: Any, cotangents: Any) -> list[Any]:
        """Take cotangents where JAX finds the same tree; it raises if it is another."""
        return jax.tree.structure(inputs).flatten_up_to(cotangents)

    def forward(leaves: Any) -> Any:
        y, residuals = flat.forward([np.asarray(leaf) for leaf in leaves])
        kept = pytree.leaves(residuals)
        if [leaf.shape for leaf in kept] != [leaf.shape for leaf in like_residuals]:
            flat.faults.append("the residuals of one call are unlike those of another")
        pairs = zip(kept, like_residuals, strict=True)
        return y, [np.asarray(leaf, first.dtype) for leaf, first in pairs]

    def vjp(kept: Any, g: Any) -> Any:
        given = iter(kept)
        residuals = pytree.map(lambda _: np.asarray(next(given)), first_residuals)
        return flat.vjp(residuals, [np.asarray(leaf) for leaf in g], by_tree)

    @jax.custom_vjp
    def function(leaves: Any) -> Any:
        return jax.pure_callback(lambda leaves: forward(leaves)[0], like_y, leaves)

    function.defvjp(
        lambda leaves: jax.pure_callback(forward, (like_y, like_residuals), leaves),
        lambda kept, g: (jax.pure_callback(vjp, like(flat.leaves), kept, g),),
    )
    logging.getLogger("jax").setLevel(logging.CRITICAL)  # it logs what a callback raises
    with jax.enable_x64(flat.leaves[0].dtype == np.float64):
        y, first_residuals = flat.forward(flat.leaves)
        like_y, like_residuals = like(y), like(pytree.leaves(first_residuals))
        check_grads(function, (flat.leaves,), order=1, modes=["rev"])


def check_with_torch(flat: Flat) -> None:
    """Use `torch.autograd.gradcheck` on a `torch.autograd.Function` around NumPy."""
    import torch

    def tensor(array: Any) -> Any:
        return None if array is None else torch.from_numpy(np.array(array))

    class Function(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, *leaves: Any) -> Any:
            y, ctx.residuals = flat.forward([leaf.detach().numpy() for leaf in leaves])
            return tuple(map(tensor, y))

        @staticmethod
        def backward(ctx: Any, *g: Any) -> Any:
            cotangents = flat.vjp(ctx.residuals, [leaf.numpy() for leaf in g], by_place)
            return tuple(map(tensor, cotangents))

    torch.set_num_threads(1)
    torch.manual_seed(0)
    torch.autograd.gradcheck(Function.apply, [tensor(x).requires_grad_() for x in flat.leaves])


def check_with_autograd(flat: Flat) -> None:
    """Use `autograd.test_util.check_grads` on a primitive with its `defvjp`.

    Autograd keeps no residuals: each vjp runs the forward again.
    """
    from autograd.extend import defvjp, primitive
    from autograd.test_util import check_grads

    @primitive
    def function(*leaves: Any) -> Any:
        y, _ = flat.forward(list(leaves))
        return y[0] if len(y) == 1 else tuple(y)

    def vjp_of(index: int) -> Callable[..., Any]:
        def make(y: Any, *leaves: Any) -> Callable[[Any], Any]:
            _, residuals = flat.forward(list(leaves))
            several = isinstance(y, tuple)
            return lambda g: flat.vjp(residuals, g if several else [g], by_place)[index]

        return make

    places = tuple(range(len(flat.leaves)))
    defvjp(function, *map(vjp_of, places))
    np.random.seed(0)  # noqa: NPY002 - autograd draws from the global generator
    check_grads(function, places, modes=["rev"], order=1)(*flat.leaves)


def installed() -> tuple[list[Checker], list[str]]:
    """Return the installed checkers, and a line for each that is missing."""
    what = "jax.test_util.check_grads, rev"
    checkers = [
        Checker("jax", f"{what}, float64", "float64", check_with_jax, AssertionError),
        Checker("jax32", f"{what}, float32", "float32", check_with_jax, AssertionError),
    ]
    skipped = []
    if importlib.util.find_spec("torch"):
        from torch.autograd.gradcheck import GradcheckError

        what = "torch.autograd.gradcheck"
        checkers.append(Checker("torch", what, "float64", check_with_torch, GradcheckError))
    else:
        skipped.append("torch is not installed and skipped; pip install torch==2.13.0")
    if importlib.util.find_spec("autograd"):
        what = "autograd.test_util.check_grads, rev"
        checkers.append(Checker("autograd", what, "float64", check_with_autograd, AssertionError))
    else:
        skipped.append("autograd is not installed and skipped; pip install autograd")
    return checkers, skipped
