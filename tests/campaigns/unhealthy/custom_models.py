"""Custom models, and losses with a fault."""

from typing import Any

import numpy as np

from functional_lm.compose import bind, repeat, residual, serial
from functional_lm.contract import Layer
from functional_lm.layers import embedding, linear, rms_norm, unembedding
from functional_lm.models import self_attention


class Tanh:
    """tanh(x)."""

    @staticmethod
    def init(key: Any = ()) -> Any:
        return {}

    @staticmethod
    def forward(params: Any, x: Any) -> Any:
        y = np.tanh(x)
        return y, y

    @staticmethod
    def vjp(residuals: Any, g: Any) -> Any:
        return {}, g * (1 - residuals * residuals)


class Relu:
    """max(x, 0)."""

    @staticmethod
    def init(key: Any = ()) -> Any:
        return {}

    @staticmethod
    def forward(params: Any, x: Any) -> Any:
        y = np.maximum(x, 0)
        return y, y

    @staticmethod
    def vjp(residuals: Any, g: Any) -> Any:
        return {}, g * (residuals > 0)


def chain_of_maps(d_model: int, depth: int) -> Layer:
    """Return a stack of layers without skip paths."""
    layer = serial(map=bind(linear, d_in=d_model, d_out=d_model, bias=False), act=Tanh)
    return serial(
        embedding=embedding, blocks=repeat(layer, depth), norm=rms_norm, unembedding=unembedding
    )


def relu_transformer(d_model: int) -> Layer:
    """Return a transformer of two blocks with ReLU."""
    attend = serial(norm=rms_norm, attention=bind(self_attention, n_heads=4))
    think = serial(
        norm=rms_norm,
        up=bind(linear, d_in=d_model, d_out=4 * d_model),
        act=Relu,
        down=bind(linear, d_in=4 * d_model, d_out=d_model),
    )
    block = serial(attention=residual(attend), mlp=residual(think))
    return serial(
        embedding=embedding, blocks=repeat(block, 2), norm=rms_norm, unembedding=unembedding
    )


def bigram_model() -> Layer:
    """Return a model that sees one character."""
    return serial(embedding=embedding, unembedding=unembedding)


class Ascent:
    """An objective whose gradient has the wrong sign."""

    def __init__(self, objective: Any) -> None:
        self._objective = objective
        self.forward = objective.forward

    def vjp(self, residuals: Any, g: Any) -> Any:
        return self._objective.vjp(residuals, -g)


class Overflowing:
    """An objective whose loss is NaN at some steps, known by the key of dropout."""

    def __init__(self, objective: Any, steps: frozenset[int]) -> None:
        self._objective, self._steps = objective, steps
        self.vjp = objective.vjp

    def forward(self, params: Any, x: Any, *, key: Any, **side: Any) -> Any:
        loss, residuals = self._objective.forward(params, x, key=key, **side)
        return loss * (np.nan if key[2] in self._steps else 1), residuals
