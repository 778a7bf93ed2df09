"""Inputs for the layers of `functional_lm.layers.recurrent`."""

from typing import Any

import numpy as np

from ...contract import WithState
from .draws import BATCHES, HEADS, ROWS, Cases, Draws, Inputs, Layers, Maker

__all__ = ["LAYERS"]


def _causal_convolution(
    draw: Draws, _: Any, leading: Any, D: int, *, width: int = 4, bias: bool = False
) -> Inputs:
    params = {"weight": draw.normal(width, D)} | ({"bias": draw.normal(D)} if bias else {})
    return params, WithState(draw.normal(*leading, D), draw.normal(leading[0], width - 1, D)), {}


def _causal_convolution_cases(draw: Draws, make: Maker) -> Cases:
    return {
        **make.each(BATCHES, 7),
        "bias": make((2, 11), 5, bias=True),
        "as long as the state": make((3, 2), 5, width=3),
        "wider than the text": make((2, 2), 5, width=7, bias=True),
        "one tap": make((2, 5), 3, width=1),
        "one channel": make((2, 13), 1, width=2),
        "long": make((1, 331), 3),
    }


def _selective_scan(
    draw: Draws, m: Any, leading: Any, H: int, G: int, K: int, *, N: int = 5, dt: float = 0.5
) -> Inputs:
    params = {"A_log": draw.normal(H, scale=0.5), "D": draw.normal(H)}
    steps = dt * np.exp(draw.normal(*leading, H))
    x, b, c = draw.normal(*leading, H, K), draw.normal(*leading, G, N), draw.normal(*leading, G, N)
    return params, WithState(m.Inputs(x, steps, b, c), draw.normal(leading[0], H, N, K)), {}


def _selective_scan_cases(draw: Draws, make: Maker) -> Cases:
    return {
        **make.each(HEADS, 6, 2, 3),
        "T=0": make((2, 0), 6, 2, 3),
        "chunks, the last one short": make((6, 5), 6, 2, 6, chunk_size=2),
        "whole chunks, H=3 G=3": make((2, 6), 3, 3, 2, chunk_size=3, N=1),
        "chunks of one": make((3, 5), 2, 1, 1, chunk_size=1),
        "strong decays": make((2, 67), 3, 1, 3, dt=20.0),
        "weak decays": make((2, 67), 3, 1, 3, dt=1e-3, chunk_size=31),
    }


def _linear_attention(
    draw: Draws, m: Any, leading: Any, H: int, K: int, *, Kv: int = 0, extra: Any = None
) -> Inputs:
    B, Kv = leading[0], Kv or K
    q, k = draw.normal(*leading, H, K), draw.normal(*leading, H, K)
    parts = m.Inputs(
        q, k, draw.normal(*leading, H, Kv), *(extra(draw, (*leading, H)) if extra else ())
    )
    return {}, WithState(parts, draw.normal(B, H, K, Kv)), {}


def _linear_attention_cases(draw: Draws, make: Maker) -> Cases:
    return {
        **make.each(BATCHES, 3, 5),
        "even chunks, values of another size": make((2, 6), 3, 5, Kv=2, chunk_size=3),
        "several chunks": make((3, 13), 2, 3, Kv=4, chunk_size=4),
        "K=1, default chunks": make((1, 131), 2, 1),
    }


def _gated_delta_rule(
    draw: Draws, m: Any, leading: Any, H: int, K: int, *, Kv: int = 0, decay: float = 0.3
) -> Inputs:
    """Draw keys of length about one, β between 0 and 1, and log decays about −``decay``."""

    def gates(draw: Draws, shape: Any) -> Any:
        return 1 / (1 + np.exp(draw.normal(*shape))), -decay * np.abs(draw.normal(*shape))

    params, x, side = _linear_attention(draw, m, leading, H, K, Kv=Kv, extra=gates)
    inputs = x.x._replace(k=x.x.k * K**-0.5)
    return params, WithState(inputs, x.state), side


def _gated_delta_rule_cases(draw: Draws, make: Maker) -> Cases:
    strong = make((2, 13), 2, 3, Kv=2, chunk_size=7)
    strong[1].x.log_decay[:, ::3] *= 300.0  # strong decays between weak ones
    still, full = (make((2, 7), 2, 3, chunk_size=4, decay=decay) for decay in (0.3, 0.0))
    still[1].x.beta[:, ::2] = 0.0
    full[1].x.beta[:] = 1.0
    return {
        **_linear_attention_cases(draw, make),
        "strong and weak decays": strong,
        "β = 0": still,
        "β = 1, no decay": full,
    }


def _time_step(draw: Draws, _: Any, leading: Any, H: int) -> Inputs:
    return {"bias": draw.normal(H)}, draw.normal(*leading, H), {}


def _time_step_cases(draw: Draws, make: Maker) -> Cases:
    return {**make.each(ROWS, 7), "large x": make((31,), 5, scale=30.0)}


def _delta_gates(draw: Draws, m: Any, leading: Any, H: int) -> Inputs:
    params = {"A_log": draw.normal(H), "bias": draw.normal(H)}
    return params, m.Gates(*(draw.normal(*leading, H) for _ in range(2))), {}


def _delta_gates_cases(draw: Draws, make: Maker) -> Cases:
    return {**make.each(ROWS, 7), "large x": make((31,), 5, scale=30.0)}


LAYERS: Layers = {
    "causal_convolution": ("D", _causal_convolution, _causal_convolution_cases),
    "delta_gates": ("H", _delta_gates, _delta_gates_cases),
    "gated_delta_rule": ("H K", _gated_delta_rule, _gated_delta_rule_cases),
    "linear_attention": ("H K", _linear_attention, _linear_attention_cases),
    "selective_scan": ("H G K", _selective_scan, _selective_scan_cases),
    "time_step": ("H", _time_step, _time_step_cases),
}
