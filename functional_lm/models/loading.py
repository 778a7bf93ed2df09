"""Architectures by name, and custom models from a file, without any registration."""

import dataclasses
import importlib
import pkgutil
from collections.abc import Callable, Set
from pathlib import Path
from typing import Any, ClassVar, Protocol, Self

import numpy as np

from .. import pytree
from ..compose import distribute, freeze, has_step, keywords_of_forward, keywords_of_init, pick
from ..contract import Array, Key, Layer, Tree, did_you_mean, pack, unpack
from ..losses import cross_entropy
from ..outline import describe
from . import llama, source
from .language_model import LanguageModel
from .transformer import Transformer

__all__ = [
    "DEFAULT",
    "MAX_PARAMETERS",
    "Architecture",
    "CustomArchitecture",
    "CustomConfig",
    "CustomModel",
    "architectures",
    "build",
    "find",
    "load",
    "of_config",
    "resolve",
    "split_reference",
]

DEFAULT = "llama"
"""The architecture where none is named."""

MAX_PARAMETERS = 10**11
"""More than any machine of today can hold twice; a size beyond is a slip of the keyboard."""


class Architecture(Protocol):
    """A family of models: a module beside this file, or one of your own."""

    @property
    def Config(self) -> Any:
        """The settings, a frozen dataclass with ``vocab_size`` first and ``resolved()``."""

    @property
    def PRESETS(self) -> dict[str, dict[str, Any]]:
        """Settings by the name of a size."""

    def architecture(self, config: Any) -> Any:
        """Return the model as a value: a `Transformer`, or a layer from tokens to logits."""


def architectures() -> list[str]:
    """Return the names of the architectures of this package."""
    modules = pkgutil.iter_modules([str(Path(__file__).parent)])
    return [module.name for module in modules if _is_architecture(_import(module.name))]


def find(reference: str) -> Architecture:
    """Return an architecture by its name, or a custom one as FILE.py:NAME.

    The file is run as Python's import would, with its folder on the path, so it may import its
    neighbours. What it names is an architecture, with ``Config`` and ``architecture(config)``, or
    a layer from tokens (B, T) to logits (B, T, V). Without a name, it is the file itself.

    Raises:
        ValueError: for an unknown name; if the file cannot be run, has no such name, or that is
            neither.
    """
    if reference in architectures():
        return _import(reference)
    path = Path(split_reference(reference)[0])
    if path.suffix != ".py" or not path.is_file():
        raise ValueError(
            f"a model must be {', '.join(architectures())} or FILE.py:NAME: got {reference!r}"
            f"{did_you_mean(reference, architectures(), 'there is no such file')}"
        )
    found = load(reference)
    if _is_architecture(found):
        return found
    missing = [part for part in ("init", "forward", "vjp") if not hasattr(found, part)]
    if missing:
        raise ValueError(
            f"a model must have init, forward and vjp: {reference} has no {', '.join(missing)}; "
            "write it, build the model with functional_lm.compose, or define Config and "
            "architecture"
        )
    return CustomArchitecture(found)


def load(reference: str) -> Any:
    """Run the file in FILE.py:NAME and return what the name stands for; without one, the module.

    Raises:
        ValueError: if there is no such file, it cannot be run, or it has no such name.
    """
    file, name = split_reference(reference)
    if not Path(file).is_file():
        raise ValueError(f"FILE.py:NAME must name a file: {file} does not exist; check the path")
    found: Any = source.run(Path(file))
    if name and not hasattr(found, name):
        raise ValueError(f"{file} must define {name}: it does not; check the name after ':'")
    return getattr(found, name) if name else found


def split_reference(reference: str) -> tuple[str, str]:
    """Return the file and the name in FILE.py:NAME; either may be missing.

    >>> split_reference("mine.py:model"), split_reference("mine.py"), split_reference("llama")
    (('mine.py', 'model'), ('mine.py', ''), ('llama', ''))
    """
    file, _, name = reference.rpartition(":")
    is_name = name.isidentifier() or not name  # and no part of a path with a colon
    return (file, name) if file.endswith(".py") and is_name else (reference, "")


def resolve(model: Any) -> tuple[str, Architecture]:
    """Return the name and the architecture of what names one, is one, or is a layer; see `find`."""
    if isinstance(model, str):
        return model, find(model)
    name = getattr(model, "__name__", type(model).__name__).rpartition(".")[2]
    return name, model if _is_architecture(model) else CustomArchitecture(model)


def build(reference: str, **settings: Any) -> LanguageModel:
    """Return a model by its name and settings::

        model = build("llama", vocab_size=65, **find("llama").PRESETS["tiny"])
        params = model.init((0,))

    Args:
        reference: see `find`.
        **settings: fields of the architecture's ``Config``.

    Raises:
        TypeError: for a setting of the wrong type, or an unknown one.
        ValueError: for settings that do not fit each other.
    """
    return of_config(reference, find(reference), settings)


def of_config(
    reference: str, architecture: Architecture, settings: dict[str, Any]
) -> LanguageModel:
    """Return the model of an architecture that was found already; see `build`."""
    known = [field.name for field in dataclasses.fields(architecture.Config)]
    if unknown := [name for name in settings if name not in known]:
        raise TypeError(
            f"{reference} takes the settings {', '.join(known)}: got {', '.join(unknown)}"
            f"{did_you_mean(unknown[0], known)}"
        )
    given = architecture.Config(**settings)
    config = given.resolved()
    layers = architecture.architecture(config)
    if not isinstance(layers, Transformer):
        settings = {field.name: getattr(config, field.name) for field in dataclasses.fields(config)}
        layers = distribute(layers, {"config": config, **settings})
        return LanguageModel(reference, config, CustomModel(layers, config), given)
    model = LanguageModel(reference, config, layers, given)
    if model.n_parameters > MAX_PARAMETERS:
        raise ValueError(
            f"a model must have at most {MAX_PARAMETERS:.0e} parameters: "
            f"got {model.n_parameters:.1e}; lower n_layers, d_model or d_ff"
        )
    return model


@dataclasses.dataclass(frozen=True)
class CustomConfig(llama.Config):
    """The settings of a custom model: those of a Llama."""

    def resolved(self) -> Self:
        """Return the config, leaving the sizes of heads to the layers."""
        found = super().resolved()
        return dataclasses.replace(found, n_kv_heads=self.n_kv_heads, head_size=self.head_size)


@dataclasses.dataclass(frozen=True)
class CustomArchitecture:
    """The architecture of a single layer from tokens to logits: settings go where it names them."""

    layer: Layer
    Config = CustomConfig
    PRESETS = llama.PRESETS

    @property
    def IGNORED(self) -> Set[str]:
        """The settings that make no difference, since the layer names neither them nor config."""
        named = keywords_of_init(self.layer) | keywords_of_forward(self.layer)
        fields = {field.name for field in dataclasses.fields(CustomConfig)}
        return set() if "config" in named else fields - named - {"max_seq_len", "vocab_size"}

    def architecture(self, config: Any) -> Layer:
        """Return the layer."""
        return self.layer


@dataclasses.dataclass(frozen=True, repr=False)
class CustomModel:
    """A layer from tokens (B, T) to logits (B, T, V), whose functions get what they name.

    init       ``config``, every field of the config (``vocab_size``, ``d_model``, ...), ``dtype``
    forward    ``config``, every field of the config, ``positions`` (0 to T − 1), ``key``
    """

    layer: Any
    config: Any
    head: Layer | None = None
    loss: ClassVar[Layer] = cross_entropy

    def __repr__(self) -> str:
        return describe(self.layer)

    def init(self, key: Key | None, *, dtype: Any = np.float32) -> Tree:
        """Make the parameters."""
        return self.layer.init(key, **pick({"dtype": dtype}, keywords_of_init(self.layer)))

    def forward(self, params: Tree, tokens: Array, *, key: Key | None = None) -> tuple[Any, Any]:
        """Return what the head makes of the logits, if there is one, and the residuals.

        Raises:
            ValueError: if the layer makes anything but logits.
        """
        known = {"positions": np.arange(tokens.shape[-1]), "key": key}
        output, residuals = self.layer.forward(
            params, tokens, **pick(known, keywords_of_forward(self.layer))
        )
        logits, auxiliary = unpack(output)
        required = (*tokens.shape, self.config.vocab_size)
        if np.shape(logits) != required:
            raise ValueError(
                f"a model must map tokens to logits (B, T, V) = {required}: "
                f"got {np.shape(logits)}; end it with an unembedding, without a loss"
            )
        if self.head is None:
            return output, residuals
        y, r_head = self.head.forward({}, logits)
        return pack(y, auxiliary), (residuals, r_head)

    def vjp(self, residuals: Any, g: Any) -> tuple[Tree, Any]:
        """Return the vjp of the head, then that of the layer."""
        if self.head is None:
            return self.layer.vjp(residuals, g)
        r_layer, r_head = residuals
        d_y, d_auxiliary = unpack(g)
        _, d_logits = self.head.vjp(r_head, d_y)
        return self.layer.vjp(r_layer, pack(d_logits, d_auxiliary))

    def jvp(self, residuals: Any, t: Any) -> Any:
        """Return the jvp of the layer, then that of the head."""
        if self.head is None:
            return self.layer.jvp(residuals, t)
        r_layer, r_head = residuals
        t_logits, t_auxiliary = unpack(self.layer.jvp(r_layer, t))
        return pack(self.head.jvp(r_head, ({}, t_logits)), t_auxiliary)

    def with_head(self, head: Layer) -> "CustomModel":
        """Return the model with a layer after the logits."""
        return dataclasses.replace(self, head=head)

    def freeze(self, params: Tree, trainable: Callable[[str], bool]) -> "CustomModel":
        """Return the model without the backward of its frozen leaves; see `compose.freeze`."""
        return dataclasses.replace(self, layer=freeze(self.layer, params, trainable))

    def map_blocks(
        self, params: Tree, change: Callable[[Layer, Tree, str], Layer]
    ) -> "CustomModel":
        """Return the model with its layer changed."""
        return dataclasses.replace(self, layer=change(self.layer, params, ""))

    @property
    def can_step(self) -> bool:
        """Whether the layer, or one inside it, has a ``step``."""
        return has_step(self.layer)

    def init_cache(self, params: Tree, batch: int, length: int) -> Any:
        """Return the layer's cache."""
        return self.layer.init_cache(params, batch, length)

    def step(
        self,
        params: Tree,
        tokens: Array,
        cache: Any,
        *,
        lengths: Array | None = None,
        after_each: bool = False,
    ) -> tuple[Array, Any]:
        """Return the logits (B, V) after the next tokens, and the cache after them.

        With ``after_each``, those after each of the tokens, (B, T, V).
        """
        logits, cache = self.layer.step(params, tokens, cache, lengths=lengths)  # (B, T, V)
        if after_each:
            return logits, cache
        last = -1 if lengths is None else lengths - 1
        return logits[np.arange(len(tokens)), last], cache

    def activations(self, params: Tree, tokens: Array) -> None:
        """Return None: the inside of the layer is unknown."""

    def flops(self, params: Tree, context: int) -> int:
        """Return the arithmetic of the matrices for each token."""
        return 2 * sum(leaf.size for leaf in pytree.leaves(params) if leaf.ndim > 1)


def _import(name: str) -> Any:
    return importlib.import_module(f".{name}", __package__)


def _is_architecture(found: Any) -> bool:
    return hasattr(found, "Config") and hasattr(found, "architecture")
