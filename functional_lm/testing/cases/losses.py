"""Inputs for the losses."""

from typing import Any

import numpy as np

from ...contract import Array
from .draws import ROWS, Cases, Draws, Inputs, Layers, Maker

__all__ = ["LAYERS"]

NOTHING = np.full((5, 7), -100)
"""Targets that are all ignored."""


SMOOTH = {"label_smoothing": 0.1, "z_loss": 1e-3}


def _some_ignored(draw: Draws) -> Array:
    targets = draw.integers(5, 7, below=11)
    targets[1::2, ::3] = -100
    return targets


def _cross_entropy(draw: Draws, _: Any, leading: Any, V: int) -> Inputs:
    targets = draw.integers(*leading, below=V)
    return {}, draw.normal(*leading, V), {"targets": targets}


def _cross_entropy_cases(draw: Draws, make: Maker) -> Cases:
    row = draw.integers(13, below=11)
    row[::3] = -100
    some = _some_ignored(draw)
    large = make((5, 7), 11, scale=100.0)
    return {
        **make.each(ROWS, 11),
        "one axis, some ignored": make((13,), 11, targets=row),
        "some ignored": make((5, 7), 11, targets=some),
        "ignored 3": make((5, 7), 11, targets=abs(some) % 11, ignore_index=3),
        "nothing kept": make((5, 7), 11, targets=NOTHING),
        "large logits": large,
        "confident": ({}, large[1], {"targets": large[1].argmax(axis=-1)}),
        "large vocabulary": make((31,), 1009),
        "smoothed": make((2, 3), 11, label_smoothing=0.3),
        "smoothed, z": make((5, 7), 11, targets=some, label_smoothing=0.3, z_loss=0.2),
        "smoothed, z, one token": make((2, 3), 1, label_smoothing=0.3, z_loss=1.7),
        "smoothed, z, large logits": make((5, 7), 11, scale=100.0, **SMOOTH),
        "smoothed, z, nothing kept": make((5, 7), 11, targets=NOTHING, **SMOOTH),
        "z": make((13,), 11, z_loss=1.7),
    }


def _linear_cross_entropy(draw: Draws, _: Any, leading: Any, D: int, V: int) -> Inputs:
    targets = draw.integers(*leading, below=V)
    params = {"weight": draw.normal(V, D)}
    return params, draw.normal(*leading, D), {"targets": targets}


def _linear_cross_entropy_cases(draw: Draws, make: Maker) -> Cases:
    some = _some_ignored(draw)
    chunks = {"targets": some, "chunk_size": 4}
    params, x, side = make((5, 7), 3, 11, scale=50.0, chunk_size=13)
    sure = {"targets": (x @ params["weight"].T).argmax(axis=-1)}
    return {
        **make.each(ROWS, 7, 11),
        "some ignored, in chunks": make((5, 7), 3, 11, **chunks),
        "some ignored, in chunks, recomputed": make((5, 7), 3, 11, **chunks, recompute=True),
        "single rows": make((5, 7), 3, 11, chunk_size=1),
        "nothing kept": make((5, 7), 3, 11, targets=NOTHING),
        "nothing kept, recomputed": make((5, 7), 3, 11, targets=NOTHING, recompute=True),
        "ignored 3": make((5, 7), 3, 11, targets=abs(some) % 11, ignore_index=3),
        "large logits": (params, x, side),
        "confident": (params, x, sure),
        "large vocabulary": make((307,), 2, 2063, chunk_size=100),
        "smoothed": make((5, 7), 3, 11, **chunks, label_smoothing=0.3),
        "z, recomputed": make((5, 7), 3, 11, chunk_size=4, z_loss=0.7, recompute=True),
        "capped": make((5, 7), 3, 11, chunk_size=4, soft_cap=1.5),
        "all settings": make((5, 7), 3, 11, soft_cap=30.0, scale=10.0, **SMOOTH),
        "all settings, one token": make((5,), 3, 1, soft_cap=2.0, label_smoothing=0.1, z_loss=1.7),
        "all settings, nothing kept": make((5, 7), 3, 11, targets=NOTHING, soft_cap=2.0, **SMOOTH),
    }


LAYERS: Layers = {
    "cross_entropy": ("V", _cross_entropy, _cross_entropy_cases),
    "linear_cross_entropy": ("D V", _linear_cross_entropy, _linear_cross_entropy_cases),
}
