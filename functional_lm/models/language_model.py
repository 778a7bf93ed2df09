"""The language model: a model with its loss, from tokens and targets to the mean cross-entropy.

Forward: the body of the `transformer` → unembedding and cross-entropy in one, so that the logits
of all tokens never exist together → plus the auxiliary losses of its blocks. ``vjp`` is the forward
read upwards. The parameters are those of the transformer.

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
from ..contract import Array, Key, Scalar, Tree, pack, unpack
from ..losses import cross_entropy
from . import transformer
from .transformer import Transformer


class Residuals(NamedTuple):
    """What `vjp` needs: the residuals of the body and of the loss."""

    body: transformer.Body
    loss: Any


def init(key: Key | None, *, model: Transformer, dtype: Any = np.float32) -> Tree:
    """Make the parameters of the transformer; see `transformer.init`."""
    return transformer.init(key, model=model, dtype=dtype)


def forward(
    params: Tree,
    tokens: Array,
    *,
    targets: Array,
    model: Transformer,
    key: Key | None = None,
    recompute: bool = False,
) -> tuple[Scalar, Residuals]:
    """Return the mean loss of predicting ``targets[..., t]`` from ``tokens[..., : t + 1]``.

    Targets of −100 do not count. No key: no dropout.

    Args:
        params: from `init`.
        tokens: integers (T,) or (B, T).
        targets: integers of that shape.
        model: the layers.
        key: randomness of dropout.
        recompute: leave the gradient of the head to the vjp; for evaluation, which needs none.

    Raises:
        TypeError: for tokens or targets that are not integers.
        ValueError: for more than ``max_seq_len`` tokens, or an id outside ``[0, V)``.
    """
    x, r_body = transformer.body(params, tokens, model=model, key=key)
    x, auxiliary = unpack(x)
    x = x if tokens.ndim == 2 else x[0]
    head = transformer.head_params(params, model)
    loss, r_loss = model.loss.forward(head, x, targets=targets, recompute=recompute)
    return loss if auxiliary is None else loss + auxiliary, Residuals(r_body, r_loss)


def vjp(residuals: Residuals, g: Any) -> tuple[Tree, None]:
    """Return ``(d_params, None)`` for the scalar cotangent g."""
    r_body, r_loss = residuals
    d_head, d_x = r_body.model.loss.vjp(r_loss, g)
    d_x = d_x if d_x.ndim == 3 else d_x[None]  # a text alone is a batch of one
    return transformer.body_vjp(r_body, pack(d_x, g), d_head)  # g, for auxiliary losses too


@dataclasses.dataclass(frozen=True)
class LanguageModel:
    """A model and its loss, as training, decoding and runs use them: a layer without settings.

    Attributes:
        name: of the architecture, or FILE.py:NAME.
        config: its settings, resolved.
        model: a `Transformer`, or a layer from tokens (B, T) to logits (B, T, V).
        given: the settings as they were given, with None for the others.
    """

    name: str
    config: Any
    model: Any
    given: Any = None

    def init(self, key: Key | None, *, dtype: Any = np.float32) -> Tree:
        """Make the parameters. No key: zeros that take no memory, for their shapes."""
        if isinstance(self.model, Transformer):
            return transformer.init(key, model=self.model, dtype=dtype)
        return self.model.init(key, dtype=dtype)

    def logits(self, params: Tree, tokens: Array, *, key: Key | None = None) -> tuple[Any, Any]:
        """Return the logits (..., V) of the next tokens and the residuals. No key: no dropout.

        Raises:
            ValueError: if a custom model returns anything else.
        """
        if isinstance(self.model, Transformer):
            return transformer.forward(params, tokens, model=self.model, key=key)
        output, residuals = self.model.forward(params, tokens, key=key)
        logits, _ = unpack(output)
        required = (*tokens.shape, self.config.vocab_size)
        if np.shape(logits) != required:
            raise ValueError(
                f"a model must map tokens to logits (B, T, V) = {required}: "
                f"got {np.shape(logits)}; end it with an unembedding, without a loss"
            )
        return output, residuals

    def forward(
        self,
        params: Tree,
        tokens: Array,
        *,
        targets: Array,
        key: Key | None = None,
        recompute: bool = False,
    ) -> tuple[Scalar, Any]:
        """Return the mean cross-entropy of the targets, in nats; see `forward` of this module."""
        if isinstance(self.model, Transformer):
            side: dict[str, Any] = {"model": self.model, "key": key, "recompute": recompute}
            return forward(params, tokens, targets=targets, **side)
        output, r_model = self.logits(params, tokens, key=key)
        logits, auxiliary = unpack(output)
        loss, r_loss = cross_entropy.forward({}, logits, targets=targets)
        return loss if auxiliary is None else loss + auxiliary, (r_model, r_loss, auxiliary)

    def vjp(self, residuals: Any, g: Any) -> tuple[Tree, Any]:
        """Return ``(d_params, None)`` for the scalar cotangent g."""
        if isinstance(self.model, Transformer):
            return vjp(residuals, g)
        r_model, r_loss, auxiliary = residuals
        _, d_logits = cross_entropy.vjp(r_loss, g)
        return self.model.vjp(r_model, pack(d_logits, None if auxiliary is None else g))

    @property
    def can_step(self) -> bool:
        """Whether the model says that it decodes with a cache."""
        if isinstance(self.model, Transformer):
            return transformer.can_step(self.model)
        return self.model.can_step

    def init_cache(self, params: Tree, batch: int, length: int) -> Any:
        """Return an empty cache for that many texts of up to ``length`` tokens."""
        if isinstance(self.model, Transformer):
            return transformer.init_cache(params, batch, length, model=self.model)
        return self.model.init_cache(params, batch, length)

    def step(
        self, params: Tree, tokens: Array, cache: Any, *, lengths: Array | None = None
    ) -> tuple[Array, Any]:
        """Return the logits (B, V) after the next tokens; see `transformer.step`."""
        if isinstance(self.model, Transformer):
            return transformer.step(params, tokens, cache, model=self.model, lengths=lengths)
        return self.model.step(params, tokens, cache, lengths=lengths)

    def freeze(self, params: Tree, trainable: Callable[[str], bool]) -> "LanguageModel":
        """Return the model without the backward of what is not trained; see `compose.freeze`."""
        if isinstance(self.model, Transformer):
            frozen: Any = transformer.freeze(self.model, params, trainable)
        else:
            frozen = self.model.freeze(params, trainable)
        return dataclasses.replace(self, model=frozen)

    def activations(self, params: Tree, tokens: Array) -> Iterator[tuple[str, str, Array]] | None:
        """Return what `transformer.activations` yields, or None of a custom model."""
        if isinstance(self.model, Transformer):
            return transformer.activations(params, tokens, model=self.model)
        return None

    def flops(self, params: Tree, context: int) -> int:
        """Return the arithmetic of a forward for each token; of a custom model, its matrices'."""
        if isinstance(self.model, Transformer):
            return transformer.flops(params, context, model=self.model)
        return 2 * sum(leaf.size for leaf in pytree.leaves(params) if leaf.ndim > 1)

    @functools.cached_property
    def n_parameters(self) -> int:
        """The number of parameters, counted without making them if the model allows it."""
        try:
            return pytree.count(self.init(None))
        except Exception:  # a custom model may need a key
            return pytree.count(self.init((0,)))
