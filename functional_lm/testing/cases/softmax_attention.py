"""Inputs for the layers between tokens."""

from typing import Any

import numpy as np

from .draws import HEADS, Cases, Draws, Inputs, Layers, Maker

__all__ = ["LAYERS"]


def _rotary(draw: Draws, _: Any, leading: Any, H: int, K: int) -> Inputs:
    return {}, draw.normal(*leading, H, K), {"positions": np.arange(leading[-1])}


def _rotary_cases(draw: Draws, make: Maker) -> Cases:
    cases: Cases = {}
    for pairing in ("interleaved", "half"):
        far = {"positions": 10**5 + 7 * np.arange(5), "theta": 500.0}
        cases |= {
            pairing: make((2, 5), 3, 6, pairing=pairing),
            f"{pairing}, K=2": make((2, 5), 3, 2, pairing=pairing),
            f"{pairing}, far": make((2, 5), 3, 6, pairing=pairing, **far),
        }
    own = draw.integers(2, 5, below=97)
    return cases | {
        "T=1": make((2, 1), 3, 6, positions=np.array([11])),
        "B=0": make((0, 5), 3, 6),
        "no batch": make((5,), 3, 6),
        "positions of each example": make((2, 5), 3, 6, positions=own),
        "fractional positions": make((2, 5), 3, 6, positions=own / 4),
        "four of seven": make((2, 5), 3, 7, size=4),
        "two of six, half": make((2, 5), 3, 6, size=2, pairing="half"),
    }


def _rotary_attention(draw: Draws, _: Any, leading: Any, H: int, G: int, K: int) -> Inputs:
    side = {"n_heads": H, "n_kv_heads": G, "positions": np.arange(leading[-1])}
    return {}, draw.normal(*leading, (H + 2 * G) * K), side


def _rotary_attention_cases(draw: Draws, make: Maker) -> Cases:
    own, still = draw.integers(2, 7, below=10**5), np.zeros(67)
    one_head = make((1, 65), 1, 1, 4, far=1.0, positions=np.zeros(65))  # a positive sum of scores
    cases = {
        **make.each(HEADS, 6, 2, 4),
        "H=3 G=3": make((2, 7), 3, 3, 2, n_kv_heads=None),
        "three blocks, H=6 G=2": make((1, 131), 6, 2, 2),
        "three blocks, H=3 G=3": make((2, 131), 3, 3, 2, n_kv_heads=None),
        "half": make((2, 5), 6, 2, 4, pairing="half", theta=50.0),
        "positions of each example": make((2, 7), 6, 2, 4, positions=own),
        "large scores": make((2, 67), 6, 2, 4, positions=still),
        "a block of one row": make((2, 65), 6, 2, 4),
        "a block of one row, H=1": one_head,
    }
    x = cases["large scores"][1]
    x[..., 0] += 10.0  # the first query and key heads get scores of 100 and −100 ...
    x[..., 24] += np.where(draw.integers(2, 67, below=2), 20.0, -20.0)
    for sign in (40.0, -40.0):
        low = make((2, 67), 6, 2, 4, positions=still)
        low[1][..., :24] += sign  # ... or all of −3200
        low[1][..., 24:32] -= sign
        cases[f"low scores, queries near {sign:g}"] = low
    return cases


def _attention(
    draw: Draws,
    m: Any,
    leading: Any,
    S: int,
    H: int,
    G: int,
    K: int,
    *,
    Kv: int = 0,
    sinks: bool = False,
) -> Inputs:
    q, B = draw.normal(*leading, H, K), leading[0]
    params = {"sinks": draw.normal(H)} if sinks else {}
    return params, m.QKV(q, draw.normal(B, S, G, K), draw.normal(B, S, G, Kv or K)), {}


def _attention_cases(draw: Draws, make: Maker) -> Cases:
    mask, other = (draw.integers(B, 6, 5, 7, below=3) > 0 for B in (2, 3))
    mask[0, 1, 2] = mask[1, :, 3] = False  # rows that see no key ...
    mask[:, :, 0, 0] = False  # ... and some that would see none if they were causal
    begins = np.array([[0, 0, 4, 4, 6], [3, 3, 5, 6, 6]])  # the second query of the first sees 0–3
    documents = {"causal": True, "offset": np.array([2, 1]), "first": begins}
    return {
        "full": make((2, 5), 7, 3, 3, 5),
        "causal, H=6 G=2": make((2, 5), 5, 6, 2, 3, causal=True),
        "H=6 G=1": make((3, 5), 7, 6, 1, 3),
        "offset": make((2, 3), 7, 2, 2, 5, causal=True, offset=4),
        "negative offset": make((2, 5), 5, 6, 2, 3, causal=True, offset=-2),
        "more queries than keys": make((2, 7), 3, 6, 2, 3, causal=True),
        "T=1": make((2, 1), 5, 6, 2, 3, causal=True, offset=4),
        "B=0": make((0, 5), 5, 6, 2, 3, causal=True),
        "K=1": make((2, 5), 7, 3, 3, 1),
        "large scores": make((2, 13), 13, 6, 2, 7, scale=5.0, causal=True),
        "mask": make((2, 5), 7, 6, 2, 3, mask=mask),
        "mask of keys": make((2, 5), 7, 6, 2, 3, mask=mask[:, :1, 1:2]),
        "mask, causal": make((2, 5), 7, 6, 2, 3, causal=True, mask=mask),
        "values of another size": make((2, 5), 7, 6, 2, 3, Kv=5, causal=True, offset=2),
        "window": make((2, 13), 13, 6, 2, 3, causal=True, window=5),
        "window, T=1": make((2, 1), 5, 6, 2, 3, causal=True, offset=4, window=3),
        "window of more than T": make((2, 5), 5, 6, 2, 3, causal=True, window=7),
        "window, offset": make((2, 3), 11, 6, 2, 3, causal=True, offset=8, window=4),
        "window, mask": make((3, 5), 7, 6, 2, 3, Kv=2, causal=True, offset=2, window=3, mask=other),
        "documents": make((2, 5), 7, 6, 2, 3, causal=True, offset=2, first=begins),
        "documents, window, mask": make((2, 5), 7, 6, 2, 3, **documents, window=3, mask=mask),
        "no keys": make((2, 5), 0, 6, 2, 3),
        "nothing seen": make((2, 5), 7, 6, 2, 3, mask=np.zeros((1, 7), bool)),
    }


def _scoring_cases(draw: Draws, make: Maker) -> Cases:
    mask = draw.integers(2, 6, 5, 7, below=3) > 0
    mask[0, 1, 2] = False
    extras = {"soft_cap": 2.0, "alibi": True, "dropout": 0.3, "key": (5,)}
    both = {"causal": True, "offset": np.array([0, 2]), "mask": mask}
    far = make((2, 5), 7, 6, 2, 3, sinks=True, scale=7.0)
    far[0]["sinks"][:2] = 1000.0, -1000.0  # each beyond the range of exp
    return {
        "offsets": make((2, 3), 7, 6, 2, 3, causal=True, offset=np.array([4, -1]), window=3),
        "sinks": far,
        "sinks, mask": make((2, 5), 7, 6, 2, 3, sinks=True, mask=mask),
        "sinks, no keys": make((2, 5), 0, 6, 2, 3, sinks=True),
        "soft cap": make((2, 5), 7, 6, 2, 3, scale=2.0, soft_cap=1.5),
        "alibi": make((2, 7), 7, 6, 2, 3, alibi=True, causal=True),
        "alibi, full, H=5": make((2, 5), 7, 5, 1, 3, alibi=True),
        "alibi, T=1": make((2, 1), 5, 8, 2, 3, alibi=True, causal=True, offset=4),
        "dropout": make((3, 5), 7, 6, 2, 3, dropout=0.3, key=(5, 1)),
        "everything": make((2, 5), 7, 6, 2, 3, sinks=True, **both, **extras),
    }


def _flash_attention_cases(draw: Draws, make: Maker) -> Cases:
    tiles = {"block_q": 3, "block_k": 5}
    params, far, side = make((2, 5), 7, 6, 2, 3, block_k=3)
    far = far._replace(q=far.q - 30.0, k=far.k + 30.0)  # scores of −1500: each exp of one is zero
    mask = draw.integers(2, 6, 13, 11, below=3) > 0
    tall = {"causal": True, "offset": -3, "block_q": 5, "block_k": 2}
    small = {"block_q": 3, "block_k": 2}
    wide = {"scale": 5.0, "block_q": 7, "block_k": 11}
    far_apart = np.repeat([[0, 4, 7], [2, 3, 3]], [5, 5, 3], axis=1)
    cases = _attention_cases(draw, make) | _scoring_cases(draw, make)
    whole = {f"{at}, in one tile": cases[at] for at in ("causal, H=6 G=2", "everything")}
    whole["window, mask, in one tile"] = cases["window, mask"]
    for untiled in ("H=6 G=1", "K=1", "negative offset", "window, T=1", "window of more than T"):
        del cases[untiled]  # attention shows it
    del cases["window, mask"]
    return {
        **{label: (params, x, side | tiles) for label, (params, x, side) in cases.items()},
        **whole,
        "documents, tall tiles": make((2, 13), 11, 6, 2, 3, **tall, first=far_apart),
        "tall tiles": make((2, 13), 11, 6, 2, 3, **tall),
        "tall tiles, window, mask": make((2, 13), 11, 6, 2, 3, **tall, window=2, mask=mask),
        "window of more than the keys": make((2, 3), 7, 2, 1, 3, causal=True, offset=9, window=8),
        "a tile that sees nothing": make((2, 8), 7, 6, 2, 3, causal=True, offset=-4, **small),
        "scores far below zero": (params, far, side),
        "single entries": make((2, 5), 7, 6, 2, 3, causal=True, block_q=1, block_k=1),
        "large scores, wide tiles": make((2, 29), 29, 6, 2, 7, causal=True, **wide),
        "default tiles": make((1, 131), 521, 2, 1, 5, causal=True, offset=390),
    }


LAYERS: Layers = {
    "attention": (
        "S H G K",
        _attention,
        lambda draw, make: _attention_cases(draw, make) | _scoring_cases(draw, make),
    ),
    "flash_attention": ("S H G K", _attention, _flash_attention_cases),
    "rotary": ("H K", _rotary, _rotary_cases),
    "rotary_attention": ("H G K", _rotary_attention, _rotary_attention_cases),
}
