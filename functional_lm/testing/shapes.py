"""Inputs for a layer at sizes of one's choice, named by the letters of `contract`."""

import inspect
from collections.abc import Callable
from typing import Any

import numpy as np

from ..contract import Tree
from .cases import Case, Draws

DEFAULTS = {
    "B": 2,
    "T": 5,
    "S": 5,
    "D": 24,
    "D_in": 5,
    "D_out": 7,
    "H": 6,
    "G": 2,
    "K": 4,
    "F": 7,
    "V": 11,
    "L": 2,
}
"""The size of each letter that is not given; L is the number of blocks."""


def case_at(
    name: str, module: Any, sizes: dict[str, int], settings: dict[str, Any], seed: int = 0
) -> Case:
    """Draw parameters, input and side inputs of a layer at given sizes.

    Args:
        name: the layer.
        module: the layer itself.
        sizes: by letter; those not given have their default.
        settings: keyword-only inputs, such as ``causal`` or ``eps``, beside those that are drawn.
        seed: of the draws.

    Raises:
        ValueError: for a letter that the layer does not have, a size below zero, or a keyword
            that its forward does not name.
    """
    letters = LETTERS[name]
    for letter, size in sizes.items():
        if letter not in letters:
            raise ValueError(f"{name} has the sizes {', '.join(letters)}: got {letter}; use these")
        if size < 0:
            raise ValueError(f"sizes must not be negative: got {letter}={size}; pass 0 or more")
    known = set(inspect.signature(module.forward).parameters) - {"params", "x", "tokens"}
    if "visibility" in known:  # its fields may be given one by one
        fields = module.Visibility._fields
        seen = {name: settings[name] for name in fields if name in settings}
        settings = {name: value for name, value in settings.items() if name not in seen}
        if seen:
            settings["visibility"] = module.Visibility(**seen)
    for setting in settings:
        if setting not in known:
            has = f"the keywords {', '.join(sorted(known))}" if known else "no keywords"
            raise ValueError(f"{name} has {has}: got {setting}; leave it out")
    full = {letter: sizes.get(letter, DEFAULTS[letter]) for letter in letters}
    if "S" in full and "S" not in sizes:
        full["S"] = full["T"]
    if "G" in full and "G" not in sizes and full["H"] % full["G"]:
        full["G"] = full["H"]
    params, x, keywords = _MAKERS[name](Draws((seed,)), module, **full)
    label = " ".join(f"{letter}={size}" for letter, size in full.items())
    return Case(name, label, params, x, keywords | settings)


_Inputs = tuple[Tree, Any, dict[str, Any]]


def _attention(draw: Draws, m: Any, B: int, T: int, S: int, H: int, G: int, K: int) -> _Inputs:
    return {}, m.QKV(draw.normal(B, T, H, K), draw.normal(B, S, G, K), draw.normal(B, S, G, K)), {}


def _cross_entropy(draw: Draws, m: Any, B: int, T: int, V: int) -> _Inputs:
    return {}, draw.normal(B, T, V), {"targets": draw.integers(B, T, below=V)}


def _dropout(draw: Draws, m: Any, B: int, T: int, D: int) -> _Inputs:
    return {}, draw.normal(B, T, D), {"rate": 0.1, "key": draw.key()}


def _embedding(draw: Draws, m: Any, B: int, T: int, D: int, V: int) -> _Inputs:
    return {"weight": draw.normal(V, D)}, draw.integers(B, T, below=V), {}


def _layer_norm(draw: Draws, m: Any, B: int, T: int, D: int) -> _Inputs:
    return {"scale": draw.normal(D), "bias": draw.normal(D)}, draw.normal(B, T, D), {}


def _learned_positions(draw: Draws, m: Any, B: int, T: int, D: int) -> _Inputs:
    return {"weight": draw.normal(T + 3, D)}, draw.normal(B, T, D), {"positions": np.arange(T)}


def _linear(draw: Draws, m: Any, B: int, T: int, D_in: int, D_out: int) -> _Inputs:
    params = {"weight": draw.normal(D_in, D_out), "bias": draw.normal(D_out)}
    return params, draw.normal(B, T, D_in), {}


def _linear_cross_entropy(draw: Draws, m: Any, B: int, T: int, D: int, V: int) -> _Inputs:
    params, x, _ = _unembedding(draw, m, B, T, D, V)
    return params, x, {"targets": draw.integers(B, T, below=V)}


def _rms_norm(draw: Draws, m: Any, B: int, T: int, D: int) -> _Inputs:
    return {"scale": draw.normal(D)}, draw.normal(B, T, D), {}


def _rotary(draw: Draws, m: Any, B: int, T: int, H: int, K: int) -> _Inputs:
    return {}, draw.normal(B, T, H, K), {"positions": np.arange(T)}


def _rotary_attention(draw: Draws, m: Any, B: int, T: int, H: int, G: int, K: int) -> _Inputs:
    side = {"n_heads": H, "n_kv_heads": G, "positions": np.arange(T)}
    return {}, draw.normal(B, T, (H + 2 * G) * K), side


def _entrywise(draw: Draws, m: Any, B: int, T: int, D: int) -> _Inputs:
    return {}, draw.normal(B, T, D), {}


def _swiglu(draw: Draws, m: Any, B: int, T: int, F: int) -> _Inputs:
    return {}, draw.normal(B, T, 2 * F), {}


def _mlp(draw: Draws, m: Any, B: int, T: int, D: int, F: int) -> _Inputs:
    params = draw.near(m.init(draw.key(), d_model=D, d_ff=F, dtype=np.float64))
    return params, draw.normal(B, T, D), {}


def _unembedding(draw: Draws, m: Any, B: int, T: int, D: int, V: int) -> _Inputs:
    return {"weight": draw.normal(V, D)}, draw.normal(B, T, D), {}


def _self_attention(draw: Draws, m: Any, B: int, T: int, D: int, H: int, G: int) -> _Inputs:
    heads = {"n_heads": H, "n_kv_heads": G}
    params = draw.near(m.init(draw.key(), d_model=D, dtype=np.float64, **heads))
    return params, draw.normal(B, T, D), {**heads, "positions": np.arange(T)}


def _transformer_block(
    draw: Draws, m: Any, B: int, T: int, D: int, H: int, G: int, F: int
) -> _Inputs:
    from ..models import llama

    config = llama.Config(2, d_model=D, n_heads=H, n_kv_heads=G, n_layers=1, d_ff=F)
    (block,) = llama.architecture(config).blocks
    params = draw.near(m.init(draw.key(), block=block, dtype=np.float64))
    return params, draw.normal(B, T, D), {"block": block, "positions": np.arange(T)}


def _transformer(
    draw: Draws, m: Any, B: int, T: int, D: int, H: int, G: int, F: int, V: int, L: int
) -> _Inputs:
    from ..models import llama

    sizes: dict[str, Any] = {"d_model": D, "n_heads": H, "n_kv_heads": G, "n_layers": L, "d_ff": F}
    model = llama.architecture(llama.Config(V, **sizes, max_seq_len=T))
    params = draw.near(m.init(draw.key(), model=model, dtype=np.float64))
    return params, draw.integers(B, T, below=V), {"model": model}


def _language_model(
    draw: Draws, m: Any, B: int, T: int, D: int, H: int, G: int, F: int, V: int, L: int
) -> _Inputs:
    params, tokens, side = _transformer(draw, m, B, T, D, H, G, F, V, L)
    return params, tokens, {**side, "targets": draw.integers(B, T, below=V)}


_MAKERS: dict[str, Callable[..., _Inputs]] = {
    "attention": _attention,
    "cross_entropy": _cross_entropy,
    "dropout": _dropout,
    "embedding": _embedding,
    "flash_attention": _attention,
    "language_model": _language_model,
    "gelu": _entrywise,
    "layer_norm": _layer_norm,
    "learned_positions": _learned_positions,
    "linear": _linear,
    "linear_cross_entropy": _linear_cross_entropy,
    "mlp": _mlp,
    "rms_norm": _rms_norm,
    "rotary": _rotary,
    "rotary_attention": _rotary_attention,
    "self_attention": _self_attention,
    "silu": _entrywise,
    "softmax": _entrywise,
    "swiglu": _swiglu,
    "transformer": _transformer,
    "transformer_block": _transformer_block,
    "unembedding": _unembedding,
}

LETTERS = {name: list(inspect.signature(make).parameters)[2:] for name, make in _MAKERS.items()}
"""The letters that a layer's inputs have."""
