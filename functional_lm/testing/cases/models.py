"""The cases of the models."""

from typing import Any

import numpy as np

from ...contract import Tree
from .draws import Draws, Inputs

_BLOCK = {"d_model": 24, "n_heads": 6, "n_kv_heads": 2, "dtype": np.float64}  # K = 4


def _self_attention(draw: Draws, module: Any, **sizes: Any) -> Inputs:
    params = draw.near(module.init(draw.key(), **_BLOCK, **sizes))
    for label, (B, T) in {"H=6 G=2": (2, 5), "T=1": (2, 1), "B=0": (0, 5)}.items():
        side = {"n_heads": 6, "n_kv_heads": 2, "positions": np.arange(T)}
        yield label, params, draw.normal(B, T, 24), side
    padding = draw.integers(2, 1, 1, 5, below=2) > 0
    padded = {
        "n_heads": 6,
        "n_kv_heads": 2,
        "positions": np.arange(5) + 3,
        "mask": padding,
        "rope_pairing": "half",
    }
    yield "padding, half", params, draw.normal(2, 5, 24), padded
    side = {
        "n_heads": 6,
        "n_kv_heads": 2,
        "positions": np.arange(5),
        "causal": False,
        "rope_theta": 50.0,
    }
    yield "full", params, draw.normal(2, 5, 24), side
    yield "tiled, padding, half", params, draw.normal(2, 5, 24), padded | {"attention": "tiled"}
    long = {"n_heads": 6, "n_kv_heads": 2, "positions": np.arange(131), "attention": "tiled"}
    yield "tiled, several tiles", params, draw.normal(1, 131, 24), long


def _transformer_block(draw: Draws, module: Any) -> Inputs:
    yield from _self_attention(draw, module, d_ff=7)
    params = draw.near(module.init(draw.key(), **_BLOCK, d_ff=7))
    side = {
        "n_heads": 6,
        "n_kv_heads": 2,
        "positions": np.arange(5),
        "dropout": 0.3,
        "key": (5,),
        "norm_eps": 0.1,
    }
    yield "dropout", params, draw.normal(2, 5, 24), side


_SIZES: dict[str, Any] = {"d_model": 24, "n_heads": 6, "n_kv_heads": 2, "d_ff": 7}


def _backbone(draw: Draws, module: Any) -> Inputs:
    for label, shape, settings in (
        ("H=6 G=2", (3, 5), {}),
        ("T=1", (3, 1), {}),
        ("B=0", (0, 5), {}),
        ("dropout", (3, 5), {"dropout": 0.2, "norm_eps": 0.1}),
        ("dropout, rematerialised", (3, 5), {"dropout": 0.2, "remat": True}),
        ("tiled", (3, 5), {"attention": "tiled", "rope_theta": 50.0}),
    ):
        yield label, *_drawn(draw, module, shape, settings)


def _transformer(draw: Draws, module: Any) -> Inputs:
    for label, shape, settings in (
        ("H=6 G=2", (3, 5), {}),
        ("T=1", (3, 1), {}),
        ("B=0", (0, 5), {}),
        ("no batch", (5,), {}),
        ("untied, half", (3, 5), {"tie_embeddings": False, "rope_pairing": "half"}),
        ("dropout", (3, 5), {"dropout": 0.2, "norm_eps": 0.1}),
        ("rematerialised", (3, 5), {"remat": True}),
    ):
        yield label, *_drawn(draw, module, shape, settings)


def _drawn(
    draw: Draws, module: Any, shape: tuple[int, ...], settings: dict[str, Any]
) -> tuple[Tree, Any, dict[str, Any]]:
    config = module.Config(13, **_SIZES, n_layers=2, max_seq_len=5, **settings)
    params = draw.near(module.init(draw.key(), config=config, dtype=np.float64))
    return params, draw.integers(*shape, below=13), {"config": config, "key": (7,)}


def _language_model(draw: Draws, module: Any) -> Inputs:
    for label, params, tokens, side in _transformer(draw, module):
        targets = draw.integers(*tokens.shape, below=13)
        yield label, params, tokens, {**side, "targets": targets}


CASES = {
    "backbone": _backbone,
    "language_model": _language_model,
    "self_attention": _self_attention,
    "transformer": _transformer,
    "transformer_block": _transformer_block,
}
