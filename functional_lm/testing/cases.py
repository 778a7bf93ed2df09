"""The inputs at which each layer, loss and model is checked.

Sizes are distinct primes or awkward, never all powers of two, so that a transposed or broadcast
axis cannot hide; scales are random, so that a factor that happens to be one cannot either.
"""

import itertools
import zlib
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

from .. import prng, pytree
from ..contract import Array, Tree
from .attention_cases import attention, flash_attention


class Case(NamedTuple):
    """Inputs, in float64, at which a layer is checked."""

    layer: str  # its name, such as "rms_norm"
    label: str  # what is particular about the inputs
    params: Tree
    x: Any
    keywords: dict[str, Any]

    def __str__(self) -> str:
        """Return the label, for the id of a test."""
        return self.label


def cases_of(name: str, module: Any) -> list[Case]:
    """Return the inputs at which the layer of that name is checked; the same every time.

    Args:
        name: the layer.
        module: the layer itself, for its ``init`` and types.
    """
    draw = Draws((zlib.crc32(name.encode()),))
    return [Case(name, *case) for case in _CASES[name](draw, module)]


class Draws:
    """Random inputs, each from a key of its own."""

    def __init__(self, key: tuple[int, ...]) -> None:
        """Start counting the keys."""
        self._key = key
        self._count = itertools.count()

    def key(self) -> tuple[int, ...]:
        """Return the next key."""
        return (*self._key, next(self._count))

    def normal(self, *shape: int, scale: float = 1.0) -> Array:
        """Draw N(0, scale²)."""
        return prng.normal(self.key(), shape, scale=scale, dtype=np.float64)

    def integers(self, *shape: int, below: int) -> Array:
        """Draw from [0, below)."""
        return prng.integers(self.key(), shape, low=0, high=below)

    def near(self, tree: Tree, scale: float = 0.3) -> Tree:
        """Move every leaf, so that no scale stays at one."""
        return pytree.map(lambda leaf: leaf + self.normal(*leaf.shape, scale=scale), tree)


_Inputs = Iterator[tuple[str, Tree, Any, dict[str, Any]]]

_LEADING = {"primes": (2, 3), "T=1": (2, 1), "B=0": (0, 3), "one row": ()}


def _linear(draw: Draws, _: Any) -> _Inputs:
    for label, leading in _LEADING.items():
        yield label, {"weight": draw.normal(5, 7)}, draw.normal(*leading, 5), {}
    params = {"weight": draw.normal(5, 7), "bias": draw.normal(7)}
    yield "bias", params, draw.normal(2, 3, 5), {}
    narrow = {"weight": draw.normal(5, 6), "bias": draw.normal(6)}
    yield "bias, 7 rows", narrow, draw.normal(7, 5), {}
    yield "bias, many rows", params, draw.normal(1031, 5), {}
    yield "one column", {"weight": draw.normal(5, 1), "bias": draw.normal(1)}, draw.normal(3, 5), {}


def _embedding(draw: Draws, _: Any) -> _Inputs:
    for label, leading in _LEADING.items():
        yield label, {"weight": draw.normal(11, 7)}, draw.integers(*leading, below=11), {}
    yield "repeated", {"weight": draw.normal(3, 5)}, draw.integers(7, 13, below=3), {}
    yield "large vocabulary", {"weight": draw.normal(1009, 3)}, draw.integers(5, 331, below=997), {}
    yield "large, B=0", {"weight": draw.normal(1009, 3)}, draw.integers(0, 5, below=997), {}


def _unembedding(draw: Draws, _: Any) -> _Inputs:
    for label, leading in _LEADING.items():
        yield label, {"weight": draw.normal(11, 7)}, draw.normal(*leading, 7), {}


def _rms_norm(draw: Draws, _: Any) -> _Inputs:
    for label, leading in _LEADING.items():
        yield label, {"scale": draw.normal(13)}, draw.normal(*leading, 13), {}
    yield "large eps", {"scale": draw.normal(7)}, draw.normal(2, 3, 7), {"eps": 0.5}
    yield "small x", {"scale": draw.normal(7)}, draw.normal(2, 3, 7, scale=1e-4), {}
    yield "large x", {"scale": draw.normal(7)}, draw.normal(2, 3, 7, scale=1e4), {}
    yield "many rows", {"scale": draw.normal(7)}, draw.normal(1031, 7), {}
    yield "D=1", {"scale": draw.normal(1)}, draw.normal(3, 1), {"eps": 0.1}


def _entrywise(draw: Draws, _: Any) -> _Inputs:
    for label, leading in _LEADING.items():
        yield label, {}, draw.normal(*leading, 7), {}
    yield "large x", {}, draw.normal(31, 13, scale=30.0), {}
    yield "small x", {}, draw.normal(3, 13, scale=1e-3), {}


def _softmax(draw: Draws, _: Any) -> _Inputs:
    yield from _entrywise(draw, _)
    yield "far from zero", {}, draw.normal(3, 13) + 1e2, {}  # e¹⁰⁰ is infinite in float32


def _silu(draw: Draws, _: Any) -> _Inputs:
    yield from _entrywise(draw, _)
    yield "no axes", {}, np.asarray(draw.normal()), {}


def _rotary(draw: Draws, _: Any) -> _Inputs:
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


def _swiglu(draw: Draws, _: Any) -> _Inputs:
    params = {"gate_up": draw.normal(2, 5, 7), "down": draw.normal(7, 5)}
    for label, leading in _LEADING.items():
        yield label, params, draw.normal(*leading, 5), {}
    yield "large x", params, draw.normal(2, 3, 5, scale=10.0), {}


def _dropout(draw: Draws, _: Any) -> _Inputs:
    for rate in (0.0, 0.3, 1.0):
        yield f"rate {rate}", {}, draw.normal(2, 13, 7), {"rate": rate, "key": (5, 3)}
    yield "no key", {}, draw.normal(2, 13, 7), {"rate": 0.3}
    yield "B=0", {}, draw.normal(0, 13, 7), {"rate": 0.3, "key": (5,)}
    yield "no axes", {}, np.asarray(draw.normal()), {"rate": 0.3, "key": (5, 3)}
    drawn = prng.uniform((5, 3), (2, 13, 7))
    at_a_draw = 1.0 - (float(drawn.max()) + 2.0**-30)  # the comparison is one of float32 numbers
    yield "rate at a draw", {}, draw.normal(2, 13, 7), {"rate": at_a_draw, "key": (5, 3)}


def _cross_entropy(draw: Draws, _: Any) -> _Inputs:
    for label, leading in _LEADING.items():
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


def _linear_cross_entropy(draw: Draws, _: Any) -> _Inputs:
    def params(V: int, D: int) -> Tree:
        return {"weight": draw.normal(V, D)}

    for recompute in (False, True):
        side: dict[str, Any] = {"recompute": True} if recompute else {}
        also = ", recomputed" if recompute else ""
        for label, leading in _LEADING.items():
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
    many = {"targets": draw.integers(307, below=2063)}
    yield "large vocabulary", params(2063, 2), draw.normal(307, 2), many


_BLOCK = {"d_model": 24, "n_heads": 6, "n_kv_heads": 2, "dtype": np.float64}  # K = 4


def _self_attention(draw: Draws, module: Any, **sizes: Any) -> _Inputs:
    params = draw.near(module.init(draw.key(), **_BLOCK, **sizes))
    for label, (B, T) in {"H=6 G=2": (2, 5), "T=1": (2, 1), "B=0": (0, 5)}.items():
        side = {"n_heads": 6, "n_kv_heads": 2, "positions": np.arange(T)}
        yield label, params, draw.normal(B, T, 24), side
    padding = draw.integers(2, 1, 1, 5, below=2) > 0
    side = {
        "n_heads": 6,
        "n_kv_heads": 2,
        "positions": np.arange(5) + 3,
        "mask": padding,
        "rope_pairing": "half",
    }
    yield "padding, half", params, draw.normal(2, 5, 24), side
    side = {
        "n_heads": 6,
        "n_kv_heads": 2,
        "positions": np.arange(5),
        "causal": False,
        "rope_theta": 50.0,
    }
    yield "full", params, draw.normal(2, 5, 24), side


def _transformer_block(draw: Draws, module: Any) -> _Inputs:
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


def _transformer(draw: Draws, module: Any) -> _Inputs:
    sizes: dict[str, Any] = {"d_model": 24, "n_heads": 6, "n_kv_heads": 2, "d_ff": 7}
    for label, shape, settings in (
        ("H=6 G=2", (3, 5), {}),
        ("T=1", (3, 1), {}),
        ("B=0", (0, 5), {}),
        ("no batch", (5,), {}),
        ("untied, half", (3, 5), {"tie_embeddings": False, "rope_pairing": "half"}),
        ("dropout", (3, 5), {"dropout": 0.2, "norm_eps": 0.1}),
    ):
        config = module.Config(13, **sizes, n_layers=2, max_seq_len=5, **settings)
        params = draw.near(module.init(draw.key(), config=config, dtype=np.float64))
        side = {"config": config, "key": (7,)}
        yield label, params, draw.integers(*shape, below=13), side


def _language_model(draw: Draws, module: Any) -> _Inputs:
    for label, params, tokens, side in _transformer(draw, module):
        targets = draw.integers(*tokens.shape, below=13)
        yield label, params, tokens, {**side, "targets": targets}


_CASES: dict[str, Callable[[Draws, Any], _Inputs]] = {
    "attention": attention,
    "cross_entropy": _cross_entropy,
    "dropout": _dropout,
    "embedding": _embedding,
    "flash_attention": flash_attention,
    "language_model": _language_model,
    "linear": _linear,
    "linear_cross_entropy": _linear_cross_entropy,
    "rms_norm": _rms_norm,
    "rotary": _rotary,
    "self_attention": _self_attention,
    "silu": _silu,
    "softmax": _softmax,
    "swiglu": _swiglu,
    "transformer": _transformer,
    "transformer_block": _transformer_block,
    "unembedding": _unembedding,
}
