"""The cases of the losses."""

from typing import Any

import numpy as np

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


CASES = {
    "cross_entropy": _cross_entropy,
}
