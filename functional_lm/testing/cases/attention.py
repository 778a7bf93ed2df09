"""The cases of the layers between tokens."""

from collections.abc import Callable
from typing import Any

import numpy as np

from .draws import Draws, Inputs


def _rotary(draw: Draws, _: Any) -> Inputs:
    for pairing in ("interleaved", "half"):
        side = {"positions": np.arange(5), "pairing": pairing}
        yield pairing, {}, draw.normal(2, 5, 3, 6), side
        yield f"{pairing}, K=2", {}, draw.normal(2, 5, 3, 2), side
        far = {"positions": 10**5 + 7 * np.arange(5), "pairing": pairing, "theta": 500.0}
        yield f"{pairing}, far", {}, draw.normal(2, 5, 3, 6), far
    yield "T=1", {}, draw.normal(2, 1, 3, 6), {"positions": np.array([11])}
    yield "B=0", {}, draw.normal(0, 5, 3, 6), {"positions": np.arange(5)}
    yield "no batch", {}, draw.normal(5, 3, 6), {"positions": np.arange(5)}
    own = draw.integers(2, 5, below=97)
    yield "positions of each example", {}, draw.normal(2, 5, 3, 6), {"positions": own}
    yield "fractional positions", {}, draw.normal(2, 5, 3, 6), {"positions": own / 4}


def _rotary_attention(draw: Draws, _: Any) -> Inputs:
    def side(T: int, **settings: Any) -> dict[str, Any]:
        return {"n_heads": 6, "n_kv_heads": 2, "positions": np.arange(T), **settings}

    for label, (B, T) in {"H=6 G=2": (3, 5), "T=1": (2, 1), "B=0": (0, 5)}.items():
        yield label, {}, draw.normal(B, T, 40), side(T)
    yield "H=3 G=3", {}, draw.normal(2, 7, 18), {"n_heads": 3, "positions": np.arange(7)}
    yield "three blocks, H=6 G=2", {}, draw.normal(1, 131, 20), side(131)
    several = {"n_heads": 3, "positions": np.arange(131)}
    yield "three blocks, H=3 G=3", {}, draw.normal(2, 131, 18), several
    yield "half", {}, draw.normal(2, 5, 40), side(5, pairing="half", theta=50.0)
    own = draw.integers(2, 7, below=10**5)
    yield "positions of each example", {}, draw.normal(2, 7, 40), side(7, positions=own)
    x = draw.normal(2, 67, 40)
    x[..., 0] += 10.0  # the first query and key heads get scores of 100 and −100 ...
    x[..., 24] += np.where(draw.integers(2, 67, below=2), 20.0, -20.0)
    still = np.zeros(67)
    yield "large scores", {}, x, side(67, positions=still)
    for sign in (40.0, -40.0):
        x = draw.normal(2, 67, 40)
        x[..., :24] += sign  # ... or all of −3200
        x[..., 24:32] -= sign
        yield f"low scores, queries near {sign:g}", {}, x, side(67, positions=still)
    yield "a block of one row", {}, draw.normal(2, 65, 40), side(65)
    x = draw.normal(1, 65, 12) + 1.0  # the scores of the last row have a positive sum
    yield "a block of one row, H=1", {}, x, {"n_heads": 1, "positions": np.zeros(65)}


def _attention(draw: Draws, module: Any) -> Inputs:
    qkv = _drawn(draw, module)
    yield "full", {}, qkv(2, 5, 7, 3, 3, 5), {}
    yield "causal", {}, qkv(2, 7, 7, 3, 3, 5), _seen(module, True)
    yield "causal, H=6 G=2", {}, qkv(2, 5, 5, 6, 2, 3), _seen(module, True)
    yield "H=6 G=1", {}, qkv(3, 5, 7, 6, 1, 3), {}
    yield "offset", {}, qkv(2, 3, 7, 2, 2, 5), _seen(module, True, 4)
    yield "negative offset", {}, qkv(2, 5, 5, 6, 2, 3), _seen(module, True, -2)
    yield "more queries than keys", {}, qkv(2, 7, 3, 6, 2, 3), _seen(module, True)
    yield "T=1", {}, qkv(2, 1, 5, 6, 2, 3), _seen(module, True, 4)
    yield "B=0", {}, qkv(0, 5, 5, 6, 2, 3), _seen(module, True)
    yield "K=1", {}, qkv(2, 5, 7, 3, 3, 1), {}
    yield "large scores", {}, qkv(2, 13, 13, 6, 2, 7, scale=5.0), _seen(module, True)
    mask = draw.integers(2, 6, 5, 7, below=3) > 0
    mask[0, 1, 2] = mask[1, :, 3] = False  # rows that see no key ...
    mask[:, :, 0, 0] = False  # ... and some that would see none if they were causal
    yield "mask", {}, qkv(2, 5, 7, 6, 2, 3), _seen(module, mask=mask)
    yield "mask of keys", {}, qkv(2, 5, 7, 6, 2, 3), _seen(module, mask=mask[:, :1, 1:2])
    yield "mask, causal", {}, qkv(2, 5, 7, 6, 2, 3), _seen(module, True, mask=mask)
    mask = draw.integers(3, 6, 5, 7, below=3) > 0
    yield "mask, B=3", {}, qkv(3, 5, 7, 6, 2, 3), _seen(module, mask=mask)
    yield "values of another size", {}, qkv(2, 5, 7, 6, 2, 3, 5), _seen(module, True, 2)
    yield "window", {}, qkv(2, 13, 13, 6, 2, 3), _seen(module, True, window=5)
    yield "window, offset", {}, qkv(2, 3, 11, 6, 2, 3), _seen(module, True, 8, window=4)
    yield "window, mask", {}, qkv(3, 5, 7, 6, 2, 3, 2), _seen(module, True, 2, 3, mask)
    yield "no keys", {}, qkv(2, 5, 0, 6, 2, 3), {}
    yield "nothing seen", {}, qkv(2, 5, 7, 6, 2, 3), _seen(module, mask=np.zeros((1, 7), bool))


def _flash_attention(draw: Draws, module: Any) -> Inputs:
    qkv = _drawn(draw, module)
    yield from _attention(draw, module)
    tiles = {"block_q": 3, "block_k": 5}
    for label, params, x, side in _attention(draw, module):
        yield f"{label}, in tiles", params, x, side | tiles
    tall = {"block_q": 5, "block_k": 2}
    yield "tall tiles", {}, qkv(2, 13, 11, 6, 2, 3), tall | _seen(module, True, -3)
    blind = _seen(module, True, -4) | {"block_q": 3, "block_k": 2}
    yield "a tile that sees nothing", {}, qkv(2, 8, 7, 6, 2, 3), blind
    mask = draw.integers(2, 6, 13, 11, below=3) > 0
    seen = _seen(module, True, -3, 2, mask)
    yield "tall tiles, window, mask", {}, qkv(2, 13, 11, 6, 2, 3), tall | seen
    yield "window of more than the keys", {}, qkv(2, 3, 7, 2, 1, 3), _seen(module, True, 9, 8)
    low = qkv(2, 5, 7, 6, 2, 3)
    low = low._replace(q=low.q - 30.0, k=low.k + 30.0)  # scores of −1500: each exp of one is zero
    yield "scores far below zero", {}, low, {"block_k": 3}
    yield (
        "single entries",
        {},
        qkv(2, 5, 7, 6, 2, 3),
        _seen(module, True) | {"block_q": 1, "block_k": 1},
    )
    large = qkv(2, 29, 29, 6, 2, 7, scale=5.0)
    yield "large scores, wide tiles", {}, large, _seen(module, True) | {"block_q": 7, "block_k": 11}
    yield "default tiles", {}, qkv(1, 131, 521, 2, 1, 5), _seen(module, True, 390)


def _drawn(draw: Draws, module: Any) -> Callable[..., Any]:
    def qkv(
        B: int, T: int, S: int, H: int, G: int, K: int, Kv: int = 0, *, scale: float = 1.0
    ) -> Any:
        q = draw.normal(B, T, H, K, scale=scale)
        return module.QKV(q, draw.normal(B, S, G, K, scale=scale), draw.normal(B, S, G, Kv or K))

    return qkv


def _seen(module: Any, *settings: Any, **more: Any) -> dict[str, Any]:
    return {"visibility": module.Visibility(*settings, **more)}


CASES = {
    "attention": _attention,
    "flash_attention": _flash_attention,
    "rotary": _rotary,
    "rotary_attention": _rotary_attention,
}
