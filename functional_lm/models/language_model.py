"""The language model: a model whose head is its loss, from tokens and targets to a scalar.

Forward: the model with the loss in place of its last layer, so that the logits of all tokens never
exist together → plus the auxiliary losses of its blocks. ``vjp`` is the forward read upwards. The
parameters are those of the model.

`LanguageModel` is what the rest of the package works with: the same functions for any architecture
and for a custom model.

Shapes: tokens and targets (T,) or (B, T); the loss is a scalar, in nats per kept token.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

from .. import pytree
from ..compose import Bound
from ..contract import Array, Key, Scalar, Stream, Tree, expect_residuals, unpack
from ..outline import as_html, describe

__all__ = ["LanguageModel", "Residuals", "forward", "init", "jvp", "vjp"]


class Residuals(NamedTuple):
    """What `vjp` needs: the residuals of the model with the loss for its head, and that model."""

    inner: Any
    model: Any
    d_auxiliary: float | None  # the derivative by the auxiliary loss, if the model has one


def init(key: Key | None, *, model: Any, dtype: Any = np.float32) -> Tree:
    """Make the parameters of the model."""
    return model.init(key, dtype=dtype)


def forward(
    params: Tree,
    tokens: Array,
    *,
    targets: Array,
    model: Any,
    key: Key | None = None,
    label_smoothing: float = 0.0,
    z_loss: float = 0.0,
    auxiliary: bool = True,
    recompute: bool = False,
) -> tuple[Scalar, Residuals]:
    """Return the mean loss of predicting ``targets[..., t]`` from ``tokens[..., : t + 1]``.

    Targets of −100 do not count. No key: no dropout.

    Args:
        params: from `init`.
        tokens: integers (T,) or (B, T).
        targets: integers of that shape.
        model: a `Transformer`, or another with its ``forward``, ``vjp``, ``loss`` and
            ``with_head``.
        key: randomness of dropout.
        label_smoothing: for training; see `cross_entropy`.
        z_loss: for training; see `cross_entropy`.
        auxiliary: add the auxiliary losses of the blocks. Evaluation does not, so that its loss is
            the cross-entropy of any model.
        recompute: leave the gradient of the head to the vjp; for evaluation, which needs none.

    Raises:
        TypeError: for tokens or targets that are not integers.
        ValueError: for more than ``max_seq_len`` tokens, or an id outside ``[0, V)``.
    """
    side = {"targets": targets, "recompute": recompute}
    settings = {"label_smoothing": label_smoothing, "z_loss": z_loss}
    side |= {name: value for name, value in settings.items() if value}  # a loss may have neither
    model = model.with_head(Bound(model.loss, side))
    output, inner = model.forward(params, tokens, key=key)
    loss, of_blocks = unpack(output)
    if of_blocks is None:
        return loss, Residuals(inner, model, None)
    return loss + of_blocks if auxiliary else loss, Residuals(inner, model, float(auxiliary))


def vjp(residuals: Residuals, g: Any) -> tuple[Tree, None]:
    """Return ``(d_params, None)`` for the scalar cotangent g."""
    expect_residuals(residuals, Residuals)
    inner, model, d_auxiliary = residuals
    return model.vjp(inner, g if d_auxiliary is None else Stream(g, d_auxiliary * g))


def jvp(residuals: Residuals, t: tuple[Tree, None]) -> Scalar:
    """Return the tangent of the loss for ``(t_params, None)``."""
    expect_residuals(residuals, Residuals)
    inner, model, d_auxiliary = residuals
    t_loss, t_of_blocks = unpack(model.jvp(inner, t))
    return t_loss if d_auxiliary is None else t_loss + d_auxiliary * t_of_blocks


@dataclasses.dataclass(frozen=True, repr=False)
class LanguageModel:
    """A model and its loss, as training, decoding and runs use them: a layer without settings.

    Attributes:
        name: of the architecture, or FILE.py:NAME.
        config: its settings, resolved.
        model: a `Transformer`, or a `CustomModel` around a layer from tokens to logits.
        given: the settings as they were given, with None for the others.
        adapted: what was adapted and how; see `adapting.with_adapters`.
    """

    name: str
    config: Any
    model: Any
    given: Any = None
    adapted: Any = None

    def __repr__(self) -> str:
        try:
            size = f", {self.n_parameters:,} parameters"
        except Exception:  # of a custom model that cannot be made
            size = ""
        return f"{self.name}{size}: {describe(self.model)}"

    def _repr_html_(self) -> str:
        return as_html(repr(self))

    def init(self, key: Key | None, *, dtype: Any = np.float32) -> Tree:
        """Make the parameters. No key: zeros that take no memory, for their shapes."""
        return self.model.init(key, dtype=dtype)

    def logits(self, params: Tree, tokens: Array, *, key: Key | None = None) -> tuple[Any, Any]:
        """Return the logits (..., V) of the next tokens and the residuals. No key: no dropout.

        Raises:
            ValueError: if a custom model returns anything else.
        """
        output, residuals = self.model.forward(params, tokens, key=key)
        return unpack(output)[0], residuals

    def forward(
        self,
        params: Tree,
        tokens: Array,
        *,
        targets: Array,
        key: Key | None = None,
        label_smoothing: float = 0.0,
        z_loss: float = 0.0,
        auxiliary: bool = True,
        recompute: bool = False,
    ) -> tuple[Scalar, Residuals]:
        """Return the mean cross-entropy of the targets, in nats; see `forward` of this module."""
        side: dict[str, Any] = {"targets": targets, "key": key, "recompute": recompute}
        side |= {"label_smoothing": label_smoothing, "z_loss": z_loss, "auxiliary": auxiliary}
        return forward(params, tokens, model=self.model, **side)

    def vjp(self, residuals: Residuals, g: Any) -> tuple[Tree, None]:
        """Return ``(d_params, None)`` for the scalar cotangent g."""
        return vjp(residuals, g)

    def jvp(self, residuals: Residuals, t: tuple[Tree, None]) -> Scalar:
        """Return the tangent of the loss for ``(t_params, None)``."""
        return jvp(residuals, t)

    @property
    def can_step(self) -> bool:
        """Whether the model says that it decodes with a cache."""
        return self.model.can_step

    def init_cache(self, params: Tree, batch: int, length: int) -> Any:
        """Return an empty cache for that many texts of up to ``length`` tokens."""
        return self.model.init_cache(params, batch, length)

    def step(
        self,
        params: Tree,
        tokens: Array,
        cache: Any,
        *,
        lengths: Array | None = None,
        after_each: bool = False,
    ) -> tuple[Array, Any]:
        """Return the logits (B, V) after the next tokens; see `Transformer.step`."""
        return self.model.step(params, tokens, cache, lengths=lengths, after_each=after_each)

    def freeze(self, params: Tree, trainable: Callable[[str], bool]) -> "LanguageModel":
        """Return the model without the backward of its frozen leaves; see `compose.freeze`."""
        return dataclasses.replace(self, model=self.model.freeze(params, trainable))

    def activations(self, params: Tree, tokens: Array) -> Iterator[tuple[str, str, Array]] | None:
        """Return what `Transformer.activations` yields, or None of a custom model."""
        return self.model.activations(params, tokens)

    def flops(self, params: Tree, context: int) -> int:
        """Return the arithmetic of a forward for each token; of a custom model, its matrices'."""
        return self.model.flops(params, context)

    def shapes(self) -> Tree:
        """Return parameters for their shapes, which take no memory if the model allows it."""
        try:
            return self.init(None)
        except Exception:  # a custom model may need a key
            return self.init((0,))

    @functools.cached_property
    def n_parameters(self) -> int:
        """The number of parameters, counted without making them if the model allows it."""
        return pytree.count(self.shapes())
