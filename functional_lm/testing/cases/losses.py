"""The cases of the losses."""

from typing import Any

import numpy as np

from ...contract import Tree
from .draws import LEADING, Draws, Inputs


def _cross_entropy(draw: Draws, _: Any) -> Inputs:
    for label, leading in LEADING.items():
        targets = draw.integers(*leading, below=11)
        yield label, {}, draw.normal(*leading, 11), {"targets": targets}
    some = draw.integers(13, below=11)
    some[::3] = -100
    yield "one axis, some ignored", {}, draw.normal(13, 11), {"targets": some}
    targets = draw.integers(5, 7, below=11)
    targets[1::2, ::3] = -100
    yield "some ignored", {}, draw.normal(5, 7, 11), {"targets": targets}
    yield "ignored 3", {}, draw.normal(5, 7, 11), {"targets": abs(targets) % 11, "ignore_index": 3}
    yield "nothing kept", {}, draw.normal(5, 7, 11), {"targets": np.full((5, 7), -100)}
    large = draw.normal(5, 7, 11, scale=100.0)
    yield "large logits", {}, large, {"targets": abs(targets) % 11}
    yield "confident", {}, large, {"targets": large.argmax(axis=-1)}
    many = {"targets": draw.integers(31, below=1009)}
    yield "large vocabulary", {}, draw.normal(31, 1009), many


def _linear_cross_entropy(draw: Draws, _: Any) -> Inputs:
    def params(V: int, D: int) -> Tree:
        return {"weight": draw.normal(V, D)}

    for recompute in (False, True):
        side: dict[str, Any] = {"recompute": True} if recompute else {}
        also = ", recomputed" if recompute else ""
        for label, leading in LEADING.items():
            own = {**side, "targets": draw.integers(*leading, below=11)}
            yield label + also, params(11, 7), draw.normal(*leading, 7), own
        targets = draw.integers(5, 7, below=11)
        targets[1::2, ::3] = -100
        own = {**side, "targets": targets, "chunk_size": 4}
        yield f"some ignored, in chunks{also}", params(11, 3), draw.normal(5, 7, 3), own
        own = {**side, "targets": abs(targets) % 11, "chunk_size": 1}
        yield f"single rows{also}", params(11, 3), draw.normal(5, 7, 3), own
        own = {**side, "targets": np.full((5, 7), -100)}
        yield f"nothing kept{also}", params(11, 3), draw.normal(5, 7, 3), own
    own = {"targets": abs(targets) % 11, "ignore_index": 3}
    yield "ignored 3", params(11, 3), draw.normal(5, 7, 3), own
    large, x = params(11, 3), draw.normal(5, 7, 3, scale=50.0)
    yield "large logits", large, x, {"targets": abs(targets) % 11, "chunk_size": 13}
    yield "confident", large, x, {"targets": (x @ large["weight"].T).argmax(axis=-1)}
    many = {"targets": draw.integers(307, below=2063), "chunk_size": 100}
    yield "large vocabulary", params(2063, 2), draw.normal(307, 2), many


CASES = {
    "cross_entropy": _cross_entropy,
    "linear_cross_entropy": _linear_cross_entropy,
}
