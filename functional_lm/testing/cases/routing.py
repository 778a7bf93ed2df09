"""Inputs for the layers of `functional_lm.layers.routing`."""

from typing import Any

import numpy as np

from ...contract import Array
from .draws import ROWS, Cases, Draws, Inputs, Layers, Maker

__all__ = ["LAYERS"]

BOTH = {"balance_loss": 0.7, "z_loss": 0.3}


def _top_k_router(draw: Draws, m: Any, leading: Any, E: int, *, k: int = 2) -> Inputs:
    logits = draw.normal(*leading, E)
    return {}, logits, {"experts": m.choose(logits, k=k)}


def _top_k_router_cases(draw: Draws, make: Maker) -> Cases:
    ties = np.where(draw.integers(5, 7, below=2), draw.normal(5, 7), 0.0)
    return {
        **make.each(ROWS, 5, **BOTH),
        "no losses": make((2, 3), 5),
        "k=1, balance": make((3, 5), 7, k=1, balance_loss=1.3),
        "k=all, z": make((3, 5), 3, k=3, z_loss=1.3),
        "one expert": make((2, 3), 1, k=1, **BOTH),
        "one row, k=1": make((), 5, k=1, balance_loss=1.3),
        "all equal": make((2, 3), 5, scale=0.0, **BOTH),
        "ties": ({}, ties, {"experts": np.argsort(-ties, kind="stable")[:, :3], **BOTH}),
        "large logits": make((5, 7), 11, scale=100.0, k=3, **BOTH),
        "many rows": make((307,), 7, k=3, **BOTH),
    }


def _routed_experts(
    draw: Draws, m: Any, leading: Any, D: int, F: int, E: int, *, k: int = 2, plain: bool = False
) -> Inputs:
    from ...layers import silu, swiglu

    params = m.init(draw.key(), n_experts=E, d_model=D, d_ff=F, gated=not plain, dtype=np.float64)
    x = m.Routed(draw.normal(*leading, D), draw.normal(*leading, k))
    side = {"experts": _chosen(draw, leading, E, k), "activation": silu if plain else swiglu}
    return draw.near(params), x, side


def _chosen(draw: Draws, leading: tuple[int, ...], E: int, k: int) -> Array:
    return np.argsort(draw.normal(*leading, E), axis=-1)[..., :k]


def _routed_experts_cases(draw: Draws, make: Maker) -> Cases:
    params, x, side = make((7,), 3, 5, 4)
    same = {"experts": np.broadcast_to([2, 0], (7, 2))}
    return {
        **make.each(ROWS, 3, 5, 7),
        "k=1": make((2, 7), 3, 5, 4, k=1),
        "k=all, no gate": make((2, 7), 3, 5, 3, k=3, plain=True),
        "one expert": make((2, 3), 7, 3, 1, k=1),
        "experts without rows": (params, x, side | same),
        "an expert chosen twice": (params, x, side | {"experts": np.full((7, 2), 1)}),
    }


LAYERS: Layers = {
    "routed_experts": ("D F E", _routed_experts, _routed_experts_cases),
    "top_k_router": ("E", _top_k_router, _top_k_router_cases),
}
