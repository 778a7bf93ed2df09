"""Custom models, and losses with a fault."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np

from functional_lm.compose import bind, repeat, residual, serial
from functional_lm.contract import Layer, init_nothing
from functional_lm.layers import embedding, linear, rms_norm, unembedding
from functional_lm.models import self_attention


def activation(function: Callable[[Any], Any], slope_at: Callable[[Any], Any]) -> Layer:
    """Return an entrywise layer, given its slope as a function of its value."""

    def forward(params: Any, x: Any) -> Any:
        y = function(x)
        return y, y

    return SimpleNamespace(
        init=init_nothing, forward=forward, vjp=lambda y, g: ({}, g * slope_at(y))
    )


TANH = activation(np.tanh, lambda y: 1 - y * y)
RELU = activation(lambda x: np.maximum(x, 0), lambda y: y > 0)


def chain_of_maps(d_model: int, depth: int) -> Layer:
    """Return a stack of layers without skip paths."""
    layer = serial(map=bind(linear, d_in=d_model, d_out=d_model, bias=False), act=TANH)
    return serial(
        embedding=embedding, blocks=repeat(layer, depth), norm=rms_norm, unembedding=unembedding
    )


def relu_transformer(d_model: int) -> Layer:
    """Return a transformer of two blocks with ReLU."""
    attend = serial(norm=rms_norm, attention=bind(self_attention, n_heads=4))
    think = serial(
        norm=rms_norm,
        up=bind(linear, d_in=d_model, d_out=4 * d_model),
        act=RELU,
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
