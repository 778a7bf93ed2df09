"""What training minimises: the cross-entropy of any model's next-token logits.

A model here is a layer from tokens (B, T) to logits (B, T, V): the `transformer`, or a stranger's.
Its ``init`` and ``forward`` get the settings and side inputs that they name:

    init       ``config``, every field of the config (``vocab_size``, ``d_model``, ...), ``dtype``
    forward    ``config``, every field of the config, ``positions`` (0 to T − 1), ``key`` (dropout)
"""

import dataclasses
import functools
from typing import Any, NamedTuple

import numpy as np

from ..compose import keywords_of_forward, keywords_of_init, pick
from ..contract import Array, Key, Layer, Scalar, Tree
from ..generation import Decoder, Model, window_start
from ..losses import cross_entropy
from ..models import language_model, transformer
from ..models.config import Config


class Residuals(NamedTuple):
    """What `Objective.vjp` needs for a stranger's model: its residuals and those of the loss."""

    model: Any
    cross_entropy: cross_entropy.Residuals


@dataclasses.dataclass(frozen=True)
class Objective:
    """The loss of a model as a layer: ``forward(params, tokens, targets=...) -> loss``."""

    model: Layer
    config: Config

    def init(self, key: Key, *, dtype: Any = np.float32) -> Tree:
        """Make the model's parameters."""
        known = {**self._settings(), "dtype": dtype}
        return self.model.init(key, **pick(known, keywords_of_init(self.model)))

    def logits(self, params: Tree, tokens: Array, key: Key | None = None) -> tuple[Array, Any]:
        """Return the model's logits and residuals. No key: no dropout.

        Raises:
            ValueError: if the model returns anything but logits (..., T, V).
        """
        known = {**self._settings(), "positions": np.arange(tokens.shape[-1]), "key": key}
        side = pick(known, keywords_of_forward(self.model))
        logits, residuals = self.model.forward(params, tokens, **side)
        required = (*tokens.shape, self.config.vocab_size)
        if np.shape(logits) != required:
            raise ValueError(
                f"a model must map tokens to logits (B, T, V) = {required}: "
                f"got {np.shape(logits)}; end it with an unembedding, without a loss"
            )
        return logits, residuals

    def forward(
        self,
        params: Tree,
        tokens: Array,
        *,
        targets: Array,
        key: Key | None = None,
        recompute: bool = False,
    ) -> tuple[Scalar, Residuals | language_model.Residuals]:
        """Return the mean cross-entropy of the targets, in nats.

        The library's own transformer never makes the logits of all tokens: its loss is
        `language_model`, and with ``recompute``, for evaluation, it keeps no gradient either.
        """
        if self.model is transformer:
            side: dict[str, Any] = {"config": self.config, "key": key, "recompute": recompute}
            return language_model.forward(params, tokens, targets=targets, **side)
        logits, r_model = self.logits(params, tokens, key)
        loss, r_cross_entropy = cross_entropy.forward({}, logits, targets=targets)
        return loss, Residuals(r_model, r_cross_entropy)

    def vjp(self, residuals: Residuals | language_model.Residuals, g: Any) -> tuple[Tree, Any]:
        """Return the model's vjp of the loss's."""
        if isinstance(residuals, language_model.Residuals):
            return language_model.vjp(residuals, g)
        _, d_logits = cross_entropy.vjp(residuals.cross_entropy, g)
        return self.model.vjp(residuals.model, d_logits)

    def next_logits(self, params: Tree, tokens: Array) -> Array:
        """Return the logits (V,) of the next token; of many, the model sees `window_start`'s."""
        start = window_start(len(tokens), self.config.max_seq_len)
        logits, _ = self.logits(params, tokens[None, start:])
        return logits[0, -1]

    def decoder(self, params: Tree) -> Model:
        """Return what `generate` takes as its model: with a cache if it is the transformer."""
        if self.model is transformer:
            return Decoder(params, self.config)
        return functools.partial(self.next_logits, params)

    def _settings(self) -> dict[str, Any]:
        fields = dataclasses.fields(self.config)
        return {"config": self.config} | {f.name: getattr(self.config, f.name) for f in fields}
