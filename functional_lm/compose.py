"""Combinators for sketching a model: bind, serial, residual, repeat, remat.

Each returns a layer with the usual ``init``, ``forward`` and ``vjp``. The models of this package
are written out instead, because their backward is what people come to read. A test keeps the two
forms equal, bit for bit::

    block = serial(
        residual(serial(norm=rms_norm, attention=bind(self_attention, d_model=8, n_heads=2))),
        residual(serial(norm=rms_norm, mlp=bind(swiglu, d_model=8, d_ff=20))),
    )
    params = block.init((0,), d_model=8)
    y, residuals = block.forward(params, x, positions=np.arange(5))

Keywords are passed by name: a setting or side input goes to every layer whose ``init`` or
``forward`` names it, and one that no layer names is an error. A ``key`` is split: the i-th layer
gets ``key + (i,)``.
"""

import dataclasses
import functools
import inspect
from collections.abc import Callable, Iterable, Set
from typing import Any

import numpy as np

from . import pytree
from .contract import Array, Key, Layer, Tree, did_you_mean, expect_int, expect_params
from .locate import FUNCTIONS, located, name_of
from .outline import call, describe, tree
from .prng import fold_in

__all__ = [
    "Bound",
    "Frozen",
    "Remat",
    "Residual",
    "Serial",
    "bind",
    "cache_for",
    "distribute",
    "freeze",
    "has_step",
    "keyed",
    "keywords_of_forward",
    "keywords_of_init",
    "map_members",
    "next_step",
    "pick",
    "remat",
    "repeat",
    "residual",
    "serial",
]


def bind(layer: Layer, **settings: Any) -> "Bound":
    """Fix settings of a layer: each goes to its ``init`` and ``forward``, wherever it is named.

    Raises:
        TypeError: for a setting that neither of them names.
    """
    _expect_layers("bind", {"": layer})
    _refuse_unknown(settings, keywords_of_init(layer) | keywords_of_forward(layer), layer)
    return Bound(layer, settings)


def distribute(layer: Layer, settings: dict[str, Any]) -> Layer:
    """Bind settings to every layer inside that names them; its own come first.

    Unlike those of `bind`, they reach the ``step`` of layers inside others too, and one that no
    layer names is no error.
    """
    if isinstance(layer, Serial):
        members = tuple(distribute(member, settings) for member in layer.layers)
        return dataclasses.replace(layer, layers=members)
    if isinstance(layer, _Wrapper):
        return type(layer)(distribute(layer.layer, settings))
    if isinstance(layer, Bound):
        return distribute(layer.layer, settings | layer.settings)
    named = pick(settings, keywords_of_init(layer) | keywords_of_forward(layer))
    return Bound(layer, named) if named else layer


def serial(*layers: Layer, **named: Layer) -> "Serial":
    """Chain layers: the output of one is the input of the next.

    Positional layers make params a tuple, named ones a dict; residuals likewise.

    Raises:
        TypeError: for both forms at once, or none; for a member that is not a layer.
    """
    if bool(layers) == bool(named):
        raise TypeError(
            f"serial needs layers, either positional or named: got {len(layers)} positional, "
            f"{len(named)} named; use one form"
        )
    _expect_layers("serial", named or {str(i): layer for i, layer in enumerate(layers)})
    return Serial(layers or tuple(named.values()), tuple(named) or None)


def residual(layer: Layer) -> "Residual":
    """Add a layer's output to its input: y = x + f(x)."""
    _expect_layers("residual", {"": layer})
    return Residual(layer)


def repeat(layer: Layer, n: int) -> "Serial":
    """Chain n copies of a layer, each with parameters of its own; params is a tuple."""
    return serial(*[layer] * expect_int("n", n))


def remat(layer: Layer) -> "Remat":
    """Keep only a layer's inputs, and run its forward again in the backward pass."""
    _expect_layers("remat", {"": layer})
    return Remat(layer)


class _Composed:
    """What the combinators share."""

    layer: Layer

    def __init_subclass__(cls) -> None:
        """Let errors from the functions of a combinator say where they come from."""
        for name in vars(cls).keys() & set(FUNCTIONS):
            setattr(cls, name, located(getattr(cls, name)))

    @property
    def _fixed(self) -> dict[str, Any]:
        return getattr(self, "settings", {})

    @property
    def members(self) -> tuple[Layer, ...]:
        """The layers inside."""
        return (self.layer,)

    @functools.cached_property
    def init_keywords(self) -> Set[str]:
        """The settings that the ``init`` of a member names, but for the fixed ones."""
        return frozenset().union(*map(keywords_of_init, self.members)) - self._fixed.keys()

    @functools.cached_property
    def forward_keywords(self) -> Set[str]:
        """The side inputs that the ``forward`` of a member names, but for the fixed ones."""
        return frozenset().union(*map(keywords_of_forward, self.members)) - self._fixed.keys()

    @located
    def init(self, key: Key | None, **sizes: Any) -> Tree:
        """Make the layer's parameters."""
        _refuse_unknown(sizes, self.init_keywords, self.layer)
        return self.layer.init(key, **pick(self._fixed | sizes, keywords_of_init(self.layer)))


@dataclasses.dataclass(frozen=True, repr=False)
class Bound(_Composed):
    """A layer with settings fixed; from `bind`.

    Whatever else the layer offers, such as ``step``, takes the settings that it names too, and
    with ``**settings`` all those of ``forward``.
    """

    layer: Layer
    settings: dict[str, Any]

    @functools.cached_property
    def _fixed_in_forward(self) -> dict[str, Any]:
        return pick(self.settings, keywords_of_forward(self.layer))

    def __repr__(self) -> str:
        return call(self.layer, self.settings)

    def forward(self, params: Tree, x: Any, **side: Any) -> tuple[Any, Any]:
        """Run the layer with its fixed settings."""
        _refuse_unknown(side, self.forward_keywords, self.layer)
        return self.layer.forward(params, x, **self._fixed_in_forward, **side)

    def vjp(self, residuals: Any, g: Any) -> tuple[Tree, Any]:
        """Run the layer's vjp."""
        return self.layer.vjp(residuals, g)

    def jvp(self, residuals: Any, t: Any) -> Any:
        """Run the layer's jvp."""
        return self.layer.jvp(residuals, t)

    def __getattr__(self, name: str) -> Any:
        """Return another function of the layer, with the settings that it takes."""
        if name.startswith("_") or name in ("layer", "settings"):
            raise AttributeError(name)
        function = getattr(self.layer, name)
        fixed = {}
        if callable(function):
            rest = inspect.getfullargspec(function).varkw == "settings"
            fixed = pick(self.settings, _keywords(function))
            fixed |= self._fixed_in_forward if rest else {}
        self.__dict__[name] = functools.partial(function, **fixed) if fixed else function
        return self.__dict__[name]


@dataclasses.dataclass(frozen=True, repr=False)
class Frozen(Bound):
    """A layer whose parameters are not trained; from `freeze`. Their cotangents are None.

    If its ``forward`` names ``frozen``, it is told.
    """

    nothing: Tree  # None for each parameter

    def __repr__(self) -> str:
        return f"frozen {describe(self.layer)}"

    def vjp(self, residuals: Any, g: Any) -> tuple[Tree, Any]:
        """Return d_x alone, from the layer's ``input_vjp`` if it has one."""
        if hasattr(self.layer, "input_vjp"):
            return self.nothing, self.layer.input_vjp(residuals, g)
        return self.nothing, self.layer.vjp(residuals, g)[1]


@dataclasses.dataclass(frozen=True, repr=False)
class Serial(_Composed):
    """Layers in a chain; from `serial` and `repeat`."""

    layers: tuple[Layer, ...]
    names: tuple[str, ...] | None

    @property
    def members(self) -> tuple[Layer, ...]:
        """The layers in order."""
        return self.layers

    @property
    def all_names(self) -> tuple[str, ...]:
        """The names of the layers; their numbers if they have none."""
        return self.names or tuple(map(str, range(len(self.layers))))

    def __repr__(self) -> str:
        return tree("serial", zip(self.all_names, self.layers, strict=True))

    def init(self, key: Key | None, **sizes: Any) -> Tree:
        """Make the parameters of each layer."""
        _refuse_unknown(sizes, self.init_keywords, self)
        parts = []
        for i, (_name, layer) in enumerate(zip(self.all_names, self.layers, strict=True)):
            parts.append(layer.init(fold_in(key, i), **pick(sizes, keywords_of_init(layer))))
        return self._pack(parts)

    def forward(self, params: Tree, x: Any, **side: Any) -> tuple[Any, Any]:
        """Run the layers in order."""
        _refuse_unknown(side, self.forward_keywords, self)
        residuals = []
        for i, (_name, layer, own) in enumerate(self._with(params)):
            layer_side = pick(side, keywords_of_forward(layer))
            if "key" in layer_side:
                layer_side["key"] = fold_in(side["key"], i)
            x, layer_residuals = layer.forward(own, x, **layer_side)
            residuals.append(layer_residuals)
        return x, self._pack(residuals)

    def vjp(self, residuals: Any, g: Any) -> tuple[Tree, Any]:
        """Run the layers' vjps in reverse order."""
        d_params = []
        for _name, layer, own in reversed(self._with(residuals, "residuals")):
            d_layer, g = layer.vjp(own, g)
            d_params.append(d_layer)
        return self._pack(reversed(d_params)), g

    def jvp(self, residuals: Any, t: Any) -> Any:
        """Run the layers' jvps in order."""
        t_params, t_x = t
        tangents = [own for _name, _layer, own in self._with(t_params)]
        parts = zip(self._with(residuals, "residuals"), tangents, strict=True)
        for (_name, layer, own), t_own in parts:
            t_x = layer.jvp(own, (t_own, t_x))
        return t_x

    def init_cache(self, params: Tree, batch: int, length: int) -> list[Any]:
        """Return the caches of the layers that have a ``step``, and None for the others."""
        return [cache_for(layer, own, batch, length) for _, layer, own in self._with(params)]

    def step(
        self, params: Tree, x: Any, cache: list[Any], *, lengths: Any = None
    ) -> tuple[Any, list[Any]]:
        """Run the layers on the next positions; those without a ``step`` must not mix positions."""
        after = []
        for (_name, layer, own), old in zip(self._with(params), cache, strict=True):
            x, new = next_step(layer, own, x, old, lengths)
            after.append(new)
        return x, after

    def _pack(self, items: Iterable[Any]) -> Any:
        return tuple(items) if self.names is None else dict(zip(self.names, items, strict=True))

    def _with(self, tree: Any, what: str = "params") -> list[tuple[str, Any, Any]]:
        """Return each name, layer and part of params or residuals."""
        if self.names is not None:
            expect_params(tree, self.names, what=what)
            tree = tuple(tree[name] for name in self.names)
        if not isinstance(tree, tuple) or len(tree) != len(self.layers):
            raise ValueError(
                f"serial must have {what} for its {len(self.layers)} layers, as a tuple: got "
                f"{len(tree) if isinstance(tree, (tuple, list, dict)) else tree!r}; pass what "
                f"{'init' if what == 'params' else 'forward'} returns"
            )
        return list(zip(self.all_names, self.layers, tree, strict=True))


@dataclasses.dataclass(frozen=True, repr=False)
class _Wrapper(_Composed):
    """A layer around another, with its parameters."""

    layer: Layer

    def __repr__(self) -> str:
        return f"{type(self).__name__.lower()} {describe(self.layer)}"

    def init_cache(self, params: Tree, batch: int, length: int) -> Any:
        """Return the layer's cache."""
        return self.layer.init_cache(params, batch, length)  # type: ignore[attr-defined]


class Residual(_Wrapper):
    """A layer with a skip path around it; from `residual`."""

    def forward(self, params: Tree, x: Any, **side: Any) -> tuple[Any, Any]:
        """Return x + f(x)."""
        branch, residuals = self.layer.forward(params, x, **side)
        if not isinstance(x, np.ndarray) or np.shape(branch) != x.shape:
            raise ValueError(
                "residual needs an array and a layer that keeps its shape: got "
                f"{np.shape(branch)} for {np.shape(x)}; change the layer's last size"
            )
        return x + branch, residuals

    def vjp(self, residuals: Any, g: Any) -> tuple[Tree, Any]:
        """Return the layer's vjp with g added: x feeds the skip path and the branch."""
        d_params, d_branch = self.layer.vjp(residuals, g)
        return d_params, g + d_branch

    def jvp(self, residuals: Any, t: Any) -> Any:
        """Return the layer's jvp with t_x added."""
        return t[1] + self.layer.jvp(residuals, t)

    def step(self, params: Tree, x: Any, cache: Any, *, lengths: Any = None) -> tuple[Any, Any]:
        """Return x + f(x) for the next positions."""
        branch, cache = self.layer.step(params, x, cache, lengths=lengths)  # type: ignore[attr-defined]
        return x + branch, cache


class Remat(_Wrapper):
    """A layer that keeps no residuals but its inputs; from `remat`."""

    def forward(self, params: Tree, x: Any, **side: Any) -> tuple[Any, Any]:
        """Run the layer and forget its residuals."""
        y, _ = self.layer.forward(params, x, **side)
        return y, (params, x, side)

    def vjp(self, residuals: Any, g: Any) -> tuple[Tree, Any]:
        """Run the forward again, then the layer's vjp."""
        params, x, side = residuals
        _, layer_residuals = self.layer.forward(params, x, **side)
        return self.layer.vjp(layer_residuals, g)

    def jvp(self, residuals: Any, t: Any) -> Any:
        """Run the forward again, then the layer's jvp."""
        params, x, side = residuals
        _, layer_residuals = self.layer.forward(params, x, **side)
        return self.layer.jvp(layer_residuals, t)

    def step(self, params: Tree, x: Any, cache: Any, *, lengths: Any = None) -> tuple[Any, Any]:
        """Run the layer's step."""
        return self.layer.step(params, x, cache, lengths=lengths)  # type: ignore[attr-defined]


def freeze(layer: Any, params: Tree, trainable: Callable[[str], bool], path: str = "") -> Any:
    """Return a layer that computes no cotangents of the leaves that are not trained.

    A layer all of whose leaves are frozen is wrapped; of one that is made of others, those inside
    are, see `map_members`. Where a layer trains only some of its own leaves, it stays unchanged.

    Args:
        layer: the layer.
        params: its parameters.
        trainable: tells from the path of a leaf whether it is trained.
        path: of ``params`` in the tree whose paths ``trainable`` knows.
    """
    own = f"{path}." if path else ""
    leaves = [trainable(own + name) for name, _ in pytree.leaves_with_path(params)]
    if all(leaves):
        return layer
    changed = map_members(
        layer, params, lambda member, part, at: freeze(member, part, trainable, at), path
    )
    if changed is not layer or any(leaves):
        return changed
    told = {"frozen": True} if "frozen" in keywords_of_forward(layer) else {}
    return Frozen(layer, told, pytree.map(lambda leaf: None, params))


def map_members(
    layer: Any, params: Tree, change: Callable[[Any, Tree, str], Any], path: str = ""
) -> Any:
    """Return a layer with each layer inside it changed; the layer itself if there is none.

    Inside are the layers of a `serial` and the like, and those that a ``forward`` names as
    keywords and has parameters for, such as the projections of a feed-forward layer.

    Args:
        layer: the layer.
        params: its parameters.
        change: maps a layer inside, its parameters and their path to another layer.
        path: of ``params``.
    """
    own = f"{path}." if path else ""
    if isinstance(layer, Serial):
        members = [change(member, part, own + name) for name, member, part in layer._with(params)]
        return dataclasses.replace(layer, layers=tuple(members))
    if isinstance(layer, _Wrapper):
        return type(layer)(change(layer.layer, params, path))
    inner, settings = (layer.layer, layer.settings) if isinstance(layer, Bound) else (layer, {})
    known = inspect.signature(inner.forward).parameters
    inside = {
        name: change(settings.get(name, known[name].default), params[name], own + name)
        for name in (params if isinstance(params, dict) else {})
        if name in known
    }
    if not inside:
        return layer
    if isinstance(layer, Bound):
        return dataclasses.replace(layer, settings={**settings, **inside})
    return Bound(inner, inside)


def keyed(layer: Layer, key: Key | None) -> dict[str, Any]:
    """Return the key as a keyword of a layer whose ``forward`` names it; nothing for another."""
    return {"key": key} if "key" in keywords_of_forward(layer) else {}


def has_step(layer: Any) -> bool:
    """Tell whether a layer decodes with a cache: it, or a layer inside it, has a ``step``."""
    if isinstance(layer, _Composed):
        return any(map(has_step, layer.members))
    return hasattr(layer, "step")


def cache_for(layer: Any, params: Tree, batch: int, length: int) -> Any:
    """Return an empty cache of a layer that has a ``step``, and None for another."""
    return layer.init_cache(params, batch, length) if has_step(layer) else None


def next_step(
    layer: Any, params: Tree, x: Any, cache: Any, lengths: Array | None, **own: Any
) -> tuple[Any, Any]:
    """Run a layer on the next positions; without a ``step`` it must not mix positions."""
    if has_step(layer):
        return layer.step(params, x, cache, lengths=lengths, **own)
    return layer.forward(params, x)[0], None


@functools.lru_cache(2**10)  # a signature takes longer to read than a small layer to run
def _keywords(function: Callable[..., Any]) -> frozenset[str]:
    parameters = inspect.signature(function).parameters.values()
    return frozenset(p.name for p in parameters if p.kind is inspect.Parameter.KEYWORD_ONLY)


def keywords_of_init(layer: Layer) -> Set[str]:
    """Return the settings that a layer's ``init`` names."""
    known = getattr(layer, "init_keywords", None)
    return _keywords(layer.init) if known is None else known


def keywords_of_forward(layer: Layer) -> Set[str]:
    """Return the side inputs that a layer's ``forward`` names."""
    known = getattr(layer, "forward_keywords", None)
    return _keywords(layer.forward) if known is None else known


def pick(keywords: dict[str, Any], names: Set[str]) -> dict[str, Any]:
    """Return the keywords of those names."""
    return {name: value for name, value in keywords.items() if name in names}


def _expect_layers(caller: str, layers: dict[str, Any]) -> None:
    for name, layer in layers.items():
        if missing := [part for part in ("init", "forward", "vjp") if not hasattr(layer, part)]:
            raise TypeError(
                f"{caller} needs layers, with init, forward and vjp: got {name_of(layer)}"
                f"{f' for {name}' if name else ''}, without {', '.join(missing)}; pass a module "
                "of functional_lm.layers, or a value with these functions"
            )


def _refuse_unknown(keywords: dict[str, Any], known: Set[str], layer: Any) -> None:
    if not keywords.keys() <= known:
        unknown = sorted(keywords.keys() - known)
        raise TypeError(
            f"{name_of(layer)} takes the keywords {{{', '.join(sorted(known))}}}: got "
            f"{', '.join(unknown)}{did_you_mean(unknown[0], known)}"
        )
