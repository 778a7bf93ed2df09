"""Backward passes of other libraries as layers, and layers as functions of other libraries.

What the four functions ``from_...`` return has ``forward`` and ``vjp``, so that `check_vjp` can
judge it. Its input x is passed on by its form:

    an array      f(x)
    a tuple       f(*x)        a NamedTuple too
    a dict        f(**x)

Params other than {} come first, ``f(params, ...)``, and keywords last. Outputs may be an array or a
tuple or dict of arrays; then ``g`` has that form too.
"""

import copy
import functools
from collections.abc import Callable, Iterator, Mapping
from types import FunctionType, MethodType, ModuleType, SimpleNamespace
from typing import Any

import numpy as np

from .. import pytree
from ..contract import Array, Differentiable, Tree, is_floating

__all__ = ["as_jax", "as_torch", "from_jax", "from_object", "from_pair", "from_torch"]


def from_pair(
    forward: Callable[..., Any], backward: Callable[..., Any], *, cache: bool = False
) -> Differentiable:
    """Return a layer made of two functions on NumPy arrays.

    Args:
        forward: returns y, or ``(y, cache)``.
        backward: takes ``(g, *inputs)`` as ``forward`` takes them, keywords too, or
            ``(g, cache)``. Returns the gradients of the inputs: one, a tuple in their order, or a
            dict by their names. With params that is ``(d_params, d_x...)``. None stands for an
            input without a gradient.
        cache: whether ``forward`` returns one.

    >>> softsign = from_pair(lambda x: x / (1 + abs(x)), lambda g, x: g / (1 + abs(x)) ** 2)
    >>> y, residuals = softsign.forward({}, np.array([1.0, -3.0]))
    >>> softsign.vjp(residuals, np.ones(2))[1]
    array([0.25  , 0.0625])
    """

    return _of_pair(forward, backward, cache, into=lambda leaf: leaf, back=lambda leaf: leaf)


def from_object(
    made: Any,
    parameters: Mapping[str, str | tuple[str, str]] = {},  # never written
    *,
    forward: str = "forward",
    backward: str = "backward",
) -> Differentiable:
    """Return a layer made of an object that keeps its state on itself.

    Each call has a copy of the object, so that nothing is left from one to the next. The layer's
    ``init()`` returns the parameters that the object has.

    Args:
        made: the object.
        parameters: by name, the attribute of each parameter and that of its gradient after
            ``backward``. One string: the attribute of the gradient; the parameter has its name.
            Dots lead into attributes, dicts and lists: ``{"w": ("weights.0", "gradients.W")}``.
        forward: the method that takes x and keywords and returns y.
        backward: the method that takes ``g`` and returns the gradients of the inputs.

    Raises:
        AttributeError: for an attribute that is not there.
    """
    places = {n: (n, at) if isinstance(at, str) else at for n, at in parameters.items()}

    def init() -> Tree:
        return {name: np.array(_get(made, place)) for name, (place, _) in places.items()}

    def layer_forward(params: Tree, x: Any, **keywords: Any) -> tuple[Any, Any]:
        own = copy.deepcopy(made)
        for name, (place, _) in places.items():
            _set(own, place, params[name])
        args, named = _call({}, x)
        return getattr(own, forward)(*args, **named, **keywords), _Kept(own, x)

    def layer_vjp(residuals: Any, g: Any) -> tuple[Tree, Any]:
        kept, x = residuals.values
        own = copy.deepcopy(kept)
        _, d_x = _like_inputs({}, x, getattr(own, backward)(g))
        return {name: np.asarray(_get(own, place)) for name, (_, place) in places.items()}, d_x

    layer = _layer(type(made), layer_forward, layer_vjp)
    layer.init, layer.FIXED_SIZES = init, _sizes_of(made)
    return layer


def from_torch(
    function: Any, backward: Callable[..., Any] | None = None, *, cache: bool = False
) -> Differentiable:
    """Return a layer made of code for PyTorch, on the CPU; dtypes and memory layouts are kept.

    Args:
        function: a subclass of ``torch.autograd.Function``, an ``nn.Module``, or a function of
            tensors, whose backward pass is that of autograd. The params of a module are its
            parameters: ``{"linear.weight": ...}`` is ``{"linear": {"weight": ...}}`` here, and
            ``init()`` returns those that it has.
        backward: with it, the two are functions of tensors as in `from_pair`.
        cache: as there.

    Raises:
        ImportError: without torch.
    """
    import torch

    if backward is not None:
        return _of_pair(function, backward, cache, into=_tensor, back=_array)
    module = function if isinstance(function, torch.nn.Module) else None
    apply = getattr(function, "apply", None)
    run = apply if isinstance(function, type) and apply is not None else function

    def layer_forward(params: Tree, x: Any, **keywords: Any) -> tuple[Any, Any]:
        tensors = _map(_tensor, (params, x))
        leaves = [leaf for leaf in _leaves(tensors) if leaf.is_floating_point()]
        for leaf in leaves:
            leaf.requires_grad_()
        with torch.enable_grad():
            args, named = _call(tensors[0] if module is None else {}, tensors[1])
            named |= _map(_tensor, keywords)
            if module is None:
                y = run(*args, **named)
            else:
                y = torch.func.functional_call(module, dict(_flat(tensors[0])), args, named)
        return _map(_array, y), _Kept(params, x, leaves, y)

    def layer_vjp(residuals: Any, g: Any) -> tuple[Tree, Any]:
        params, x, leaves, y = residuals.values
        pairs = zip(_leaves(y), _leaves(_map(_tensor, g)), strict=True)
        connected = [pair for pair in pairs if pair[0].requires_grad]
        found: Any = [None] * len(leaves)
        if connected:
            outputs, cotangents = zip(*connected, strict=True)
            found = torch.autograd.grad(
                outputs, leaves, cotangents, retain_graph=True, allow_unused=True
            )
        gradients = zip(leaves, found, strict=True)
        arrays = iter([_array(leaf * 0 if d is None else d) for leaf, d in gradients])
        return pytree.map(lambda leaf: next(arrays) if is_floating(leaf) else None, (params, x))

    layer = _layer(function, layer_forward, layer_vjp)
    if module is not None:
        layer.init = lambda: _nested({n: _array(p).copy() for n, p in module.named_parameters()})
        layer.FIXED_SIZES = frozenset().union(*map(_sizes_of, module.modules()))
    return layer


def from_jax(function: Callable[..., Any]) -> Differentiable:
    """Return a layer made of a JAX function, with the backward that `jax.vjp` finds for it.

    That is its own where it is a ``custom_vjp``.

    Raises:
        ImportError: without jax.
    """
    import jax

    def layer_forward(params: Tree, x: Any, **keywords: Any) -> tuple[Any, Any]:
        with _precision(jax, (params, x)):
            y, pull = jax.vjp(lambda params, x: _applied(function, params, x, keywords), params, x)
        return jax.tree.map(np.array, y), _Kept(params, x, pull)

    def layer_vjp(residuals: Any, g: Any) -> tuple[Tree, Any]:
        params, x, pull = residuals.values
        with _precision(jax, (params, x)):
            found = pull(g)
        kept = (is_floating(leaf) for leaf in pytree.leaves((params, x)))
        # The gradient of an integer has the dtype float0.
        return jax.tree.map(lambda d: np.array(d) if next(kept) else None, found)

    return _layer(function, layer_forward, layer_vjp)


def as_jax(layer: Differentiable, **keywords: Any) -> Callable[[Tree, Any], Any]:
    """Return a layer as a JAX function ``(params, x) -> y`` with its hand-written backward.

    It works under ``jit``, ``grad`` and ``vmap``, as a ``custom_vjp`` that calls NumPy on the host.
    JAX keeps arrays only, so the backward pass runs ``forward`` once more for the residuals. While
    JAX traces, ``forward`` runs once on ones, for the shape of y.

    Args:
        layer: anything with ``forward`` and ``vjp``.
        **keywords: its keyword-only inputs.

    Raises:
        ImportError: without jax.
    """
    import jax

    def host(function: Callable[..., Any], shapes: Any, *arguments: Any) -> Any:
        def call(*given: Any) -> Any:
            return function(*jax.tree.map(np.asarray, given))

        return jax.pure_callback(call, shapes, *arguments, vmap_method="sequential")

    def value(params: Tree, x: Any) -> Any:
        return layer.forward(params, x, **keywords)[0]

    def gradients(params: Tree, x: Any, g: Any) -> list[Array]:
        _, residuals = layer.forward(params, x, **keywords)
        return [leaf for leaf in pytree.leaves(layer.vjp(residuals, g)) if leaf is not None]

    @jax.custom_vjp
    def function(params: Tree, x: Any) -> Any:
        ones = jax.tree.map(lambda leaf: np.ones(leaf.shape, leaf.dtype), (params, x))
        return host(value, _shapes(jax, value(*ones)), params, x)

    def forward(params: Tree, x: Any) -> tuple[Any, Any]:
        return function(params, x), (params, x)

    def backward(inputs: tuple[Tree, Any], g: Any) -> Any:
        leaves, structure = jax.tree.flatten(inputs)
        floating = [leaf for leaf in leaves if np.issubdtype(leaf.dtype, np.floating)]
        found = iter(host(gradients, _shapes(jax, floating), *inputs, g))
        return jax.tree.unflatten(
            structure,
            [
                next(found)
                if np.issubdtype(leaf.dtype, np.floating)
                else np.zeros(leaf.shape, jax.dtypes.float0)
                for leaf in leaves
            ],
        )

    function.defvjp(forward, backward)
    return function


def as_torch(layer: Differentiable, **keywords: Any) -> Callable[[Tree, Any], Any]:
    """Return a layer as a PyTorch function ``(params, x) -> y`` with its hand-written backward.

    Args:
        layer: anything with ``forward`` and ``vjp``.
        **keywords: its keyword-only inputs.

    Raises:
        ImportError: without torch.
    """
    import torch

    class Function(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, inputs: Tree, outputs: list[Any], *tensors: Any) -> Any:
            y, ctx.residuals = layer.forward(*_map(_array, inputs), **keywords)
            outputs.append(y)
            leaves = pytree.leaves(y)
            ctx.y, ctx.inputs = y, inputs
            return tuple(torch.from_numpy(np.array(leaf)) for leaf in leaves)

        @staticmethod
        @torch.autograd.function.once_differentiable
        def backward(ctx: Any, *gs: Any) -> Any:
            cotangents = iter(gs)
            g = pytree.map(lambda leaf: _array(next(cotangents)), ctx.y)
            found = iter(pytree.leaves(layer.vjp(ctx.residuals, g)))
            d_tensors = [
                torch.from_numpy(np.array(next(found))) if leaf.is_floating_point() else None
                for leaf in _leaves(ctx.inputs)
            ]
            return None, None, *d_tensors

    def function(params: Tree, x: Any) -> Any:
        outputs: list[Any] = []
        y = iter(Function.apply((params, x), outputs, *_leaves((params, x))))
        return pytree.map(lambda _: next(y), outputs[0])

    return function


_NO_PARTS = (type, FunctionType, MethodType, ModuleType)


def _sizes_of(made: Any, depth: int = 3) -> frozenset[int]:
    """Return the integers that an object and its parts keep: sizes that it was made for."""
    found = set()
    for value in vars(made).values():
        for item in value if isinstance(value, (list, tuple)) else [value]:
            if type(item) is int:
                found.add(item)
            elif depth and hasattr(item, "__dict__") and not isinstance(item, _NO_PARTS):
                found |= _sizes_of(item, depth - 1)
    return frozenset(found)


class _Kept:
    """Residuals that are not arrays of NumPy, and equal to themselves alone."""

    def __init__(self, *values: Any) -> None:
        self.values = values


def _layer(of: Any, forward: Callable[..., Any], vjp: Callable[..., Any]) -> Any:
    name = getattr(of, "__name__", type(of).__name__)
    return SimpleNamespace(forward=forward, vjp=vjp, init=dict, __name__=name)


def _of_pair(
    forward: Callable[..., Any],
    backward: Callable[..., Any],
    cache: bool,
    *,
    into: Callable[[Any], Any],
    back: Callable[[Any], Any],
) -> Any:
    """Return a layer of two functions on arrays of another kind."""

    def layer_forward(params: Tree, x: Any, **keywords: Any) -> tuple[Any, Any]:
        args, named = _call(*_map(into, (params, x)))
        named |= _map(into, keywords)
        y = forward(*args, **named)
        y, saved = y if cache else (y, None)
        return _map(back, y), _Kept(params, x, args, named, saved)

    def layer_vjp(residuals: Any, g: Any) -> tuple[Tree, Any]:
        params, x, args, named, saved = residuals.values
        g = _map(into, g)
        found = backward(g, saved) if cache else backward(g, *args, **named)
        return _like_inputs(params, x, _map(back, found))

    return _layer(forward, layer_forward, layer_vjp)


def _call(params: Tree, x: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return the positional and the named arguments of a function of the inputs."""
    first = () if isinstance(params, dict) and not params else (params,)
    if isinstance(x, dict):
        return first, dict(x)
    return (*first, *x) if isinstance(x, tuple) else (*first, x), {}


def _like_inputs(params: Tree, x: Any, found: Any) -> tuple[Tree, Any]:
    """Return ``(d_params, d_x)`` from what a backward returned.

    Raises:
        ValueError: for another number of gradients than inputs, or other names.
    """
    args, named = _call(params, x)
    names = list(named)
    if isinstance(found, dict) and names and len(args) == 0:
        if unknown := sorted(found.keys() - named.keys()):
            raise ValueError(
                f"backward must return gradients of {', '.join(names)}: got {unknown[0]}; rename it"
            )
        found = [found.get(name) for name in names]
    elif not isinstance(found, (tuple, list)):
        found = [found]
    if len(found) != len(args) + len(names):
        raise ValueError(
            f"backward must return a gradient for each of {len(args) + len(names)} inputs: got "
            f"{len(found)}; return None for one without a gradient"
        )
    split = len(args) - (len(x) if isinstance(x, tuple) else not isinstance(x, dict))
    d_params, rest = (found[0] if split else {}), list(found[split:])
    if isinstance(x, dict):
        d_x: Any = dict(zip(names, rest, strict=True))
    elif isinstance(x, tuple):
        d_x = type(x)(*rest) if hasattr(x, "_fields") else tuple(rest)
    else:
        (d_x,) = rest

    def one(leaf: Array, d: Any) -> Any:
        if not is_floating(leaf):
            return None
        return np.zeros_like(leaf) if d is None else d

    return pytree.map(one, (params, x), (d_params, d_x))


def _get(start: Any, place: str) -> Any:
    """Follow the dots of a place into attributes, dicts and lists."""
    for name in place.split("."):
        if isinstance(start, (dict, list)):
            start = start[_key(start, name)]
        else:
            start = getattr(start, name)
    return start


def _key(owner: dict[str, Any] | list[Any], name: str) -> Any:
    return int(name) if isinstance(owner, list) else name


def _set(start: Any, place: str, value: Any) -> None:
    *before, last = place.split(".")
    owner = _get(start, ".".join(before)) if before else start
    if isinstance(owner, (dict, list)):
        owner[_key(owner, last)] = value
    else:
        setattr(owner, last, value)


def _map(function: Callable[[Any], Any], tree: Tree) -> Tree:
    """Apply a function to every array or tensor, in the order of `pytree.leaves`."""
    if isinstance(tree, dict):
        return {name: _map(function, tree[name]) for name in sorted(tree)}
    if isinstance(tree, (tuple, list)):
        children = [_map(function, child) for child in tree]
        return type(tree)(*children) if hasattr(tree, "_fields") else type(tree)(children)
    return function(tree) if hasattr(tree, "dtype") else tree


def _leaves(tree: Tree) -> list[Any]:
    found: list[Any] = []
    _map(found.append, tree)
    return found


def _array(tensor: Any) -> Array:
    """Return the values of a tensor in an array of its own."""
    if not hasattr(tensor, "detach"):
        return np.array(tensor)
    if str(tensor.dtype) == "torch.bfloat16":  # PyTorch has no NumPy dtype for it
        import ml_dtypes
        import torch

        return np.array(tensor.detach().view(torch.int16).numpy()).view(ml_dtypes.bfloat16)
    return np.array(tensor.detach().numpy())


def _tensor(array: Array) -> Any:
    """Return a tensor with the values and the strides of an array, but in memory of its own."""
    import torch

    array = np.asarray(array)
    if array.dtype.name == "bfloat16":
        return _tensor(array.view(np.int16)).view(torch.bfloat16)
    plain = torch.from_numpy(np.array(array, order="C"))
    strides = [stride // array.itemsize for stride in array.strides]
    if array.size == 0 or min(strides, default=1) < 0:  # PyTorch has no negative ones
        return plain
    if 0 in strides:
        once = tuple(slice(0, 1) if stride == 0 else slice(None) for stride in strides)
        return torch.from_numpy(np.array(array[once])).expand(array.shape)
    return torch.empty_strided(array.shape, strides, dtype=plain.dtype).copy_(plain)


def _flat(tree: Tree, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, child in tree.items():
        if isinstance(child, dict):
            yield from _flat(child, f"{prefix}{name}.")
        else:
            yield prefix + name, child


def _nested(flat: Mapping[str, Any]) -> Tree:
    tree: dict[str, Any] = {}
    for path, leaf in flat.items():
        *parents, name = path.split(".")
        functools.reduce(lambda node, part: node.setdefault(part, {}), parents, tree)[name] = leaf
    return tree


def _applied(function: Callable[..., Any], params: Tree, x: Any, keywords: dict[str, Any]) -> Any:
    args, named = _call(params, x)
    return function(*args, **named, **keywords)


def _precision(jax: Any, tree: Tree) -> Any:
    """Return a context with 64 bits if an array has them."""
    return jax.enable_x64(any(leaf.dtype == np.float64 for leaf in pytree.leaves(tree)))


def _shapes(jax: Any, tree: Tree) -> Any:
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), tree)
