"""The inputs at which the attention layers are checked; see `cases`."""

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from ..contract import Tree

if TYPE_CHECKING:
    from .cases import Draws

_Inputs = Iterator[tuple[str, Tree, Any, dict[str, Any]]]


def attention(draw: "Draws", module: Any) -> _Inputs:
    """Yield label, parameters, input and keywords."""
    qkv = _drawn(draw, module)
    yield "full", {}, qkv(2, 5, 7, 3, 3, 5), {}
    yield "causal", {}, qkv(2, 7, 7, 3, 3, 5), {"causal": True}
    yield "causal, H=6 G=2", {}, qkv(2, 5, 5, 6, 2, 3), {"causal": True}
    yield "H=6 G=1", {}, qkv(3, 5, 7, 6, 1, 3), {}
    yield "offset", {}, qkv(2, 3, 7, 2, 2, 5), {"causal": True, "query_offset": 4}
    yield "negative offset", {}, qkv(2, 5, 5, 6, 2, 3), {"causal": True, "query_offset": -2}
    yield "more queries than keys", {}, qkv(2, 7, 3, 6, 2, 3), {"causal": True}
    yield "T=1", {}, qkv(2, 1, 5, 6, 2, 3), {"causal": True, "query_offset": 4}
    yield "B=0", {}, qkv(0, 5, 5, 6, 2, 3), {"causal": True}
    yield "K=1", {}, qkv(2, 5, 7, 3, 3, 1), {}
    yield "large scores", {}, qkv(2, 13, 13, 6, 2, 7, scale=5.0), {"causal": True}
    mask = draw.integers(2, 6, 5, 7, below=3) > 0
    mask[0, 1, 2] = mask[1, :, 3] = False  # rows that see no key
    yield "mask", {}, qkv(2, 5, 7, 6, 2, 3), {"mask": mask}
    yield "mask of keys", {}, qkv(2, 5, 7, 6, 2, 3), {"mask": mask[:, :1, 1:2]}
    yield "mask, causal", {}, qkv(2, 5, 7, 6, 2, 3), {"mask": mask, "causal": True}
    mask = draw.integers(3, 6, 5, 7, below=3) > 0
    yield "mask, B=3", {}, qkv(3, 5, 7, 6, 2, 3), {"mask": mask}
    yield "no keys", {}, qkv(2, 5, 0, 6, 2, 3), {}
    yield "nothing seen", {}, qkv(2, 5, 7, 6, 2, 3), {"mask": np.zeros((1, 7), bool)}


def flash_attention(draw: "Draws", module: Any) -> _Inputs:
    """Yield those of `attention` in one tile and in several, and more."""
    qkv = _drawn(draw, module)
    yield from attention(draw, module)
    tiles = {"block_q": 3, "block_k": 5}
    for label, params, x, side in attention(draw, module):
        yield f"{label}, in tiles", params, x, side | tiles
    tall = {"block_q": 5, "block_k": 2}
    yield "tall tiles", {}, qkv(2, 13, 11, 6, 2, 3), {**tall, "causal": True, "query_offset": -3}
    blind = {"causal": True, "query_offset": -4, "block_q": 3, "block_k": 2}
    yield "a tile that sees nothing", {}, qkv(2, 8, 7, 6, 2, 3), blind
    low = qkv(2, 5, 7, 6, 2, 3)
    low = low._replace(q=low.q - 30.0, k=low.k + 30.0)  # scores of −1500: each exp of one is zero
    yield "scores far below zero", {}, low, {"block_k": 3}
    yield "single entries", {}, qkv(2, 5, 7, 6, 2, 3), {"causal": True, "block_q": 1, "block_k": 1}
    large = qkv(2, 29, 29, 6, 2, 7, scale=5.0)
    yield "large scores, wide tiles", {}, large, {"causal": True, "block_q": 7, "block_k": 11}
    yield "default tiles", {}, qkv(1, 131, 521, 2, 1, 5), {"causal": True, "query_offset": 390}


def _drawn(draw: "Draws", module: Any) -> Callable[..., Any]:
    def qkv(B: int, T: int, S: int, H: int, G: int, K: int, scale: float = 1.0) -> Any:
        q = draw.normal(B, T, H, K, scale=scale)
        return module.QKV(q, draw.normal(B, S, G, K, scale=scale), draw.normal(B, S, G, K))

    return qkv
