"""Adapters in a model: small trained parts beside weights that stay as they are.

    tuned = with_adapters(model, AdapterConfig(lora_rank=8))
    params = adapt(tuned, params, key=(0,))
    ... train, with trainable=trained(tuned) ...
    plain, weights = tuned.adapted.base, merge(tuned, params)

An adapter takes the place of a layer and has its parameters as ``base``, so that the rest of the
model does not change. `with_adapters` works on an adapted model too: then both add up.
"""

import dataclasses
import fnmatch
import functools
import re
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

from .. import pytree
from ..compose import Bound, bind, keywords_of_forward, map_members
from ..contract import (
    Array,
    Key,
    Tree,
    expect_bool,
    expect_choice,
    expect_fields,
    expect_int,
    expect_number,
)
from ..layers import bottleneck, dora, lora, prefix, prompt
from ..prng import fold_in
from .language_model import LanguageModel
from .projections import Projection, projections
from .transformer import Transformer

__all__ = [
    "Adapted",
    "AdapterConfig",
    "adapt",
    "adapters_of",
    "configs",
    "merge",
    "plain",
    "trained",
    "unmerge",
    "with_adapters",
    "with_leaves",
]


@dataclasses.dataclass(frozen=True)
class AdapterConfig:
    """What is trained in place of the weights of a model. None means not given.

    Attributes:
        lora_rank: the rank of the two matrices that are trained beside each projection.
        lora_alpha: multiplies their product, as alpha/rank. Default: twice the rank.
        lora_targets: the projections, or their parts, as patterns with commas between them, such
            as "mixer.qkv.q,mlp.*" or "blocks.3.*". Default: all, each as a whole. The experts of a
            mixture are not among them.
        lora_dropout: the rate of dropout of their input.
        rslora: multiply their product by alpha/√rank instead.
        dora: train the length of each column of a projection, too.
        adapter: another adapter instead: a "bottleneck" behind the last projection of each branch,
            a "prefix" of learned keys and values in each attention, or a "prompt" of learned
            embeddings.
        adapter_size: the hidden units of the bottleneck, or the length of the prefix or prompt.

    Raises:
        TypeError: for a setting of the wrong type.
        ValueError: for one out of range, or two kinds of adapters.
    """

    lora_rank: int | None = None
    lora_alpha: float | None = None
    lora_targets: str | None = None
    lora_dropout: float = 0.0
    rslora: bool = False
    dora: bool = False
    adapter: Literal["bottleneck", "prefix", "prompt"] | None = None
    adapter_size: int = 16

    def __post_init__(self) -> None:
        expect_fields(
            self,
            (expect_int, "lora_rank adapter_size", {"maximum": 2**16}),
            (expect_number, "lora_alpha", {"low": 0.0}),
            (expect_number, "lora_dropout", {"low": 0.0, "high": 0.99}),
            (expect_bool, "rslora dora", {}),
            (expect_choice, "adapter", {"choices": ("bottleneck", "prefix", "prompt")}),
        )
        if self.lora_rank is not None and self.adapter is not None:
            raise ValueError(
                f"a run tunes one kind of adapter: got lora_rank={self.lora_rank} and "
                f"adapter={self.adapter!r}; leave one out"
            )

    @property
    def kind(self) -> str | None:
        """The kind of adapter, or None."""
        low_rank = "dora" if self.dora else "lora"
        return self.adapter if self.lora_rank is None else low_rank

    @property
    def given(self) -> dict[str, Any]:
        """The settings that differ from their defaults."""
        fields = ((f, getattr(self, f.name)) for f in dataclasses.fields(self))
        return {field.name: value for field, value in fields if value != field.default}


class Adapted(NamedTuple):
    """How a model was adapted."""

    base: LanguageModel  # before
    config: AdapterConfig
    layers: dict[str, Any]  # the adapters, by the path of what they take the place of


class Keyed(Bound):
    """A layer with adapters bound to it whose dropout needs a key, a different one each."""

    @functools.cached_property
    def forward_keywords(self) -> frozenset[str]:
        """The side inputs of the layer, and ``key``."""
        return frozenset(super().forward_keywords | {"key"})

    def forward(
        self, params: Tree, x: Any, *, key: Key | None = None, **side: Any
    ) -> tuple[Any, Any]:
        """Run the layer with the key folded for each adapter."""
        members = {
            name: bind(member, key=fold_in(key, i))
            for i, (name, member) in enumerate(self.settings.items())
            if isinstance(member, Bound) and "key" in member.forward_keywords
        }
        own = {"key": key} if "key" in keywords_of_forward(self.layer) else {}
        return Bound(self.layer, {**self.settings, **members}).forward(params, x, **side, **own)


def with_adapters(model: LanguageModel, config: AdapterConfig) -> LanguageModel:
    """Return a model with adapters; its parameters come from `adapt`.

    Raises:
        ValueError: for a config without a kind, a pattern that fits no projection, or a model that
            cannot have this kind.
    """
    if config.kind is None:
        raise ValueError("adapters need a kind: got none; give lora_rank or adapter")
    inner: Any = model.model
    if config.kind == "prompt":
        if not isinstance(inner, Transformer) or inner.prompt is not None:
            raise ValueError(
                "a prompt needs an architecture of this package, without one yet: got "
                f"{model.name}; tune a prefix, or something else"
            )
        layers = {"prompt": bind(prompt, size=config.adapter_size, d_model=model.config.d_model)}
        inner = inner._replace(prompt=layers["prompt"])
    else:
        layers = _prefixes(model, config) if config.kind == "prefix" else _prepared(model, config)

        def visit(layer: Any, own: Tree, path: str) -> Any:
            if path in layers:
                return layers[path]
            changed = map_members(layer, own, visit, path)
            inside = isinstance(changed, Bound) and any(
                member is adapter
                for member in changed.settings.values()
                for adapter in layers.values()
            )
            if f"{path}.prefix" in layers:
                settings = {**changed.settings, "prefix": layers[f"{path}.prefix"]}
                return dataclasses.replace(changed, settings=settings)
            drops = config.lora_dropout > 0 and inside
            return Keyed(changed.layer, changed.settings) if drops else changed

        inner = inner.map_blocks(model.shapes(), visit)
    adapted = dataclasses.replace(model, model=inner, adapted=Adapted(model, config, layers))
    if not isinstance(inner, Transformer) or inner.fast_decoder is None:
        return adapted
    fast = None  # it knows the weights of a plain model only
    if all(one.kind in MERGED for one in configs(adapted)):
        first = plain(model).model.fast_decoder

        def fast(params: Tree) -> Any:
            return first(merge(adapted, params))

    return dataclasses.replace(adapted, model=inner._replace(fast_decoder=fast))


MERGED = ("lora", "dora")
"""The kinds whose weights can be merged into those of the model."""


def adapt(model: LanguageModel, params: Tree, key: Key | None) -> Tree:
    """Return parameters of an adapted model: those of its base, and adapters that change nothing.

    That is, but for prefixes and prompts, which start from random rows.

    Args:
        model: from `with_adapters`; parameters of any other are returned as they are.
        params: of the model before.
        key: randomness.
    """
    if model.adapted is None:
        return params
    dtype = pytree.leaves(params)[0].dtype
    base, _, layers = model.adapted
    found = projections(base)

    def new(part: Tree, path: str, key: Key | None) -> Tree:
        if part is None:  # a prefix or prompt takes the place of nothing
            return layers[path].init(key, dtype=dtype)
        sizes = {"d_in": found[path].d_in, "d_out": sum(found[path].d_out)}
        return layers[path].init(key, given=part, dtype=dtype, **sizes)

    for i, path in enumerate(layers):
        params = _changed(params, path, new, path, fold_in(key, i))
    return params


def trained(model: LanguageModel) -> Callable[[str], bool]:
    """Return what tells from the path of a leaf whether it belongs to the adapters."""
    layers = model.adapted.layers
    return frozenset(
        leaf
        for leaf, _ in pytree.leaves_with_path(model.shapes())
        for path in layers
        if leaf.startswith(f"{path}.") and not leaf.startswith(f"{path}.base.")
    ).__contains__


def adapters_of(model: LanguageModel, params: Tree) -> dict[str, Array]:
    """Return the leaves of the adapters by their paths: all that tuning changes."""
    is_trained = trained(model)
    return {path: leaf for path, leaf in pytree.leaves_with_path(params) if is_trained(path)}


def with_leaves(params: Tree, leaves: dict[str, Array]) -> Tree:
    """Return parameters with other leaves at some paths, such as those of `adapters_of`."""
    return pytree.map_with_path(lambda path, leaf: leaves.get(path, leaf), params)


def merge(model: LanguageModel, params: Tree) -> Tree:
    """Return the parameters of `plain` (model) that compute the same.

    Raises:
        ValueError: for adapters that are no part of a projection.
    """
    _expect_kind(model, MERGED, "merge")
    if model.adapted is None:
        return params
    for path, projection in projections(model).items():
        params = _changed(params, path, _merged, projection.layer)
    return params


def unmerge(model: LanguageModel, merged: Tree, adapters: dict[str, Array]) -> Tree:
    """Return the parameters of an adapted model from merged ones: undo `merge`, to rounding.

    Args:
        model: with one adapter of low rank at each place.
        merged: from `merge`.
        adapters: from `adapters_of`.

    Raises:
        ValueError: for any other adapters. The weights that `dora` merges have lost the length of
            what their magnitudes replaced; keep the base.
    """
    _expect_kind(model, ("lora",), "unmerge")
    params = with_leaves(adapt(model, merged, (0,)), adapters)

    def apart(part: Tree, layer: Any) -> Tree:
        return {**part, "base": layer.merge(part, alpha=-layer.settings["alpha"])}

    for path, layer in model.adapted.layers.items():
        params = _changed(params, path, apart, layer)
    return params


def plain(model: LanguageModel) -> LanguageModel:
    """Return the model without any adapters."""
    return model if model.adapted is None else plain(model.adapted.base)


def configs(model: LanguageModel) -> list[AdapterConfig]:
    """Return the settings of the adapters, the innermost first."""
    if model.adapted is None:
        return []
    return [*configs(model.adapted.base), model.adapted.config]


def _prefixes(model: LanguageModel, config: AdapterConfig) -> dict[str, Any]:
    """Return a prefix for each self-attention by path."""
    layers: dict[str, Any] = {}

    def visit(layer: Any, own: Tree, path: str) -> Any:
        if hasattr(layer, "prefix_sizes") and "prefix" not in own:
            sizes = layer.prefix_sizes()
            layers[f"{path}.prefix"] = bind(prefix, size=config.adapter_size, **sizes)
        return map_members(layer, own, visit, path)

    model.model.map_blocks(model.shapes(), visit)
    if not layers:
        raise ValueError(
            f"a prefix needs self-attention without one yet: {model.name} has none; "
            'give lora_rank, adapter="bottleneck" or adapter="prompt"'
        )
    return layers


def _prepared(model: LanguageModel, config: AdapterConfig) -> dict[str, Any]:
    """Return the adapters that take the place of projections, by path."""
    layers: dict[str, Any] = {}
    found = projections(model)
    if config.kind == "bottleneck":
        size = config.adapter_size
        for path, projection in found.items():
            if path.endswith((".out", ".down")):
                layers[path] = bind(bottleneck, base=projection.layer, size=size)
        if not layers:
            raise ValueError(f"a bottleneck needs projections out or down: got {_listed(found)}")
        return layers
    alpha = 2.0 * (config.lora_rank or 0) if config.lora_alpha is None else config.lora_alpha
    for path, columns in _chosen(config.lora_targets, found).items():
        layers[path] = bind(
            dora if config.dora else lora,
            base=found[path].layer,
            rank=config.lora_rank,
            alpha=alpha,
            rslora=config.rslora,
            columns=columns,
            **({"rate": config.lora_dropout} if config.lora_dropout else {}),
        )
    return layers


def _chosen(targets: str | None, found: dict[str, Projection]) -> dict[str, Any]:
    """Return the columns to adapt of each projection that the patterns fit; None: all."""
    patterns = [pattern.strip() for pattern in (targets or "*").split(",")]
    unused, chosen = set(patterns), dict[str, Any]()

    def fits(name: str) -> bool:
        fitting = {p for p in patterns if any(fnmatch.fnmatchcase(name, q) for q in (p, f"*.{p}"))}
        unused.difference_update(fitting)
        return bool(fitting)

    for path, projection in found.items():
        ranges = [part for name, part in projection.parts.items() if fits(f"{path}.{name}")]
        if fits(path):
            chosen[path] = None
        elif ranges:
            chosen[path] = tuple(ranges)
    if unused:
        raise ValueError(
            f"lora_targets must fit projections: {', '.join(sorted(unused))} fits none; there are "
            f"{_listed(found)}"
        )
    return chosen


def _listed(found: dict[str, Projection]) -> str:
    """Return the projections and their parts; those of all blocks are listed once."""
    names = [
        re.sub(r"^blocks\.\d+\.", "", name)
        for path, projection in found.items()
        for name in (path, *(f"{path}.{part}" for part in projection.parts))
    ]
    return ", ".join(dict.fromkeys(names))


def _merged(part: Tree, layer: Any) -> Tree:
    """Return the parameters of the plain projection inside, with all adapters merged."""
    if "base" not in part:
        return part
    base = _merged(part["base"], layer.settings["base"])
    return layer.merge({**part, "base": base})


def _changed(tree: Tree, path: str, change: Callable[..., Tree], *more: Any) -> Tree:
    """Return a tree with ``change(node, *more)`` at a path; the node may be None, a new one."""
    if not path:
        return change(tree, *more)
    name, _, rest = path.partition(".")
    if isinstance(tree, tuple):
        return tuple(
            _changed(node, rest, change, *more) if str(i) == name else node
            for i, node in enumerate(tree)
        )
    return {**tree, name: _changed(tree.get(name), rest, change, *more)}


def _expect_kind(model: LanguageModel, kinds: tuple[str, ...], what: str) -> None:
    for config in configs(model):
        if config.kind not in kinds:
            raise ValueError(
                f"adapters that {what} are {' or '.join(kinds)}: got {config.kind}; use the tuned "
                "model as it is"
            )
