"""Combinators for sketching a model: bind, serial, residual, repeat, remat.

Each returns a layer with the usual ``init``, ``forward`` and ``vjp``. The models of this package
are written out instead, since their backward is what people come to read; a test holds the two
forms equal bit for bit::

    block = serial(
        residual(serial(norm=rms_norm, attention=bind(self_attention, d_model=8, n_heads=2))),
        residual(serial(norm=rms_norm, mlp=bind(swiglu, d_model=8, d_ff=20))),
    )
    params = block.init((0,), d_model=8)
    y, residuals = block.forward(params, x, positions=np.arange(5))

Keywords find their way by name: a setting or side input goes to every layer whose ``init`` or
``forward`` names it, and one that no layer names is an error. A ``key`` is split: the i-th layer
gets ``key + (i,)``.
"""

import dataclasses
import inspect
from collections.abc import Callable
from typing import Any

import numpy as np

from .contract import Key, Layer, Tree, expect_int, expect_params
from .prng import fold_in


def bind(layer: Layer, **settings: Any) -> "Bound":
    """Fix settings of a layer: each goes to its ``init`` and ``forward``, wherever it is named.

    Raises:
        TypeError: for a setting that neither of them names.
    """
    _refuse_unknown(settings, keywords_of_init(layer) | keywords_of_forward(layer), layer)
    return Bound(layer, settings)


def serial(*layers: Layer, **named: Layer) -> "Serial":
    """Chain layers: the output of one is the input of the next.

    Positional layers make params a tuple, named ones a dict; residuals likewise.

    Raises:
        TypeError: for both forms at once, or none.
    """
    if bool(layers) == bool(named):
        raise TypeError(
            f"serial needs layers, either positional or named: got {len(layers)} positional, "
            f"{len(named)} named; use one form"
        )
    if named:
        return Serial(tuple(named.values()), tuple(named))
    return Serial(layers, None)


def residual(layer: Layer) -> "Residual":
    """Add a layer's output to its input: y = x + f(x)."""
    return Residual(layer)


def repeat(layer: Layer, n: int) -> "Serial":
    """Chain n copies of a layer, each with parameters of its own; params is a tuple."""
    return Serial((layer,) * expect_int("n", n), None)


def remat(layer: Layer) -> "Remat":
    """Keep only a layer's inputs, and run its forward again in the backward pass."""
    return Remat(layer)


@dataclasses.dataclass(frozen=True)
class Bound:
    """A layer with settings fixed; from `bind`."""

    layer: Layer
    settings: dict[str, Any]

    @property
    def init_keywords(self) -> set[str]:
        """The settings of ``init`` that are still open."""
        return keywords_of_init(self.layer) - set(self.settings)

    @property
    def forward_keywords(self) -> set[str]:
        """The side inputs of ``forward`` that are still open."""
        return keywords_of_forward(self.layer) - set(self.settings)

    def init(self, key: Key, **sizes: Any) -> Tree:
        """Make the layer's parameters."""
        _refuse_unknown(sizes, self.init_keywords, self.layer)
        return _call_init(self.layer, key, self.settings | sizes)

    def forward(self, params: Tree, x: Any, **side: Any) -> tuple[Any, Any]:
        """Run the layer with its fixed settings."""
        _refuse_unknown(side, self.forward_keywords, self.layer)
        fixed = pick(self.settings, keywords_of_forward(self.layer))
        return self.layer.forward(params, x, **fixed, **side)

    def vjp(self, residuals: Any, g: Any) -> tuple[Tree, Any]:
        """Run the layer's vjp."""
        return self.layer.vjp(residuals, g)


@dataclasses.dataclass(frozen=True)
class Serial:
    """Layers in a chain; from `serial` and `repeat`."""

    layers: tuple[Layer, ...]
    names: tuple[str, ...] | None

    @property
    def init_keywords(self) -> set[str]:
        """The settings that any layer's ``init`` names."""
        return set().union(*map(keywords_of_init, self.layers))

    @property
    def forward_keywords(self) -> set[str]:
        """The side inputs that any layer's ``forward`` names."""
        return set().union(*map(keywords_of_forward, self.layers))

    def init(self, key: Key, **sizes: Any) -> Tree:
        """Make the parameters of each layer."""
        _refuse_unknown(sizes, self.init_keywords, self)
        return self._pack(
            [_call_init(layer, fold_in(key, i), sizes) for i, layer in enumerate(self.layers)]
        )

    def forward(self, params: Tree, x: Any, **side: Any) -> tuple[Any, Any]:
        """Run the layers in order."""
        _refuse_unknown(side, self.forward_keywords, self)
        residuals = []
        for i, (layer, layer_params) in enumerate(
            zip(self.layers, self._unpack(params), strict=True)
        ):
            layer_side = pick(side, keywords_of_forward(layer))
            if "key" in layer_side:
                layer_side["key"] = fold_in(side["key"], i)
            x, layer_residuals = layer.forward(layer_params, x, **layer_side)
            residuals.append(layer_residuals)
        return x, self._pack(residuals)

    def vjp(self, residuals: Any, g: Any) -> tuple[Tree, Any]:
        """Run the layers' vjps in reverse order."""
        d_params = []
        pairs = list(zip(self.layers, self._unpack(residuals), strict=True))
        for layer, layer_residuals in reversed(pairs):
            d_layer, g = layer.vjp(layer_residuals, g)
            d_params.append(d_layer)
        return self._pack(d_params[::-1]), g

    def _pack(self, items: list[Any]) -> Any:
        return tuple(items) if self.names is None else dict(zip(self.names, items, strict=True))

    def _unpack(self, tree: Any) -> Any:
        if self.names is not None:
            expect_params(tree, self.names)
            return [tree[name] for name in self.names]
        if not isinstance(tree, tuple) or len(tree) != len(self.layers):
            raise ValueError(
                f"serial must have params for its {len(self.layers)} layers, as a tuple: got "
                f"{len(tree) if isinstance(tree, (tuple, list, dict)) else tree!r}; pass what init "
                "returns"
            )
        return tree


@dataclasses.dataclass(frozen=True)
class _Wrapper:
    """What Residual and Remat share: the parameters are those of the one layer inside."""

    layer: Layer

    @property
    def init_keywords(self) -> set[str]:
        """The settings of the layer's ``init``."""
        return keywords_of_init(self.layer)

    @property
    def forward_keywords(self) -> set[str]:
        """The side inputs of the layer's ``forward``."""
        return keywords_of_forward(self.layer)

    def init(self, key: Key, **sizes: Any) -> Tree:
        """Make the layer's parameters."""
        _refuse_unknown(sizes, self.init_keywords, self.layer)
        return _call_init(self.layer, key, sizes)


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


def _keywords(function: Callable[..., Any]) -> set[str]:
    parameters = inspect.signature(function).parameters.values()
    return {p.name for p in parameters if p.kind is inspect.Parameter.KEYWORD_ONLY}


def keywords_of_init(layer: Layer) -> set[str]:
    """Return the settings that a layer's ``init`` names."""
    known = getattr(layer, "init_keywords", None)
    return _keywords(layer.init) if known is None else known


def keywords_of_forward(layer: Layer) -> set[str]:
    """Return the side inputs that a layer's ``forward`` names."""
    known = getattr(layer, "forward_keywords", None)
    return _keywords(layer.forward) if known is None else known


def pick(keywords: dict[str, Any], names: set[str]) -> dict[str, Any]:
    """Return the keywords of those names."""
    return {name: value for name, value in keywords.items() if name in names}


def _call_init(layer: Layer, key: Key, sizes: dict[str, Any]) -> Tree:
    return layer.init(key, **pick(sizes, keywords_of_init(layer)))


def _refuse_unknown(keywords: dict[str, Any], known: set[str], layer: Any) -> None:
    unknown = sorted(set(keywords) - known)
    if unknown:
        name = getattr(layer, "__name__", type(layer).__name__)
        raise TypeError(
            f"{name} takes the keywords {{{', '.join(sorted(known))}}}: got {', '.join(unknown)}; "
            "remove or rename it"
        )
