"""A transformer block whose mixer and feed-forward layer read the same rows, side by side.

Forward:

    h = norm(x)
    y = x + dropout(mixer(h)) + dropout(mlp(h))

``vjp`` is the forward read upwards. h feeds two branches and x the skip path, too: cotangents add.

Shapes: x and y (B, T, D); where an mlp has an auxiliary loss, y and its cotangent are `Stream`.
Source: Wang and Komatsuzaki 2021 (GPT-J); Chowdhery et al. 2022 (PaLM), section 2.
"""

import sys
from typing import Any, NamedTuple

import numpy as np

from ..compose import bind, cache_for, keyed, next_step
from ..contract import (
    Array,
    Key,
    Layer,
    Stream,
    Tree,
    expect_params,
    expect_residuals,
    pack,
    unpack,
)
from ..layers import dropout
from ..locate import located
from ..outline import describe, tree
from ..prng import fold_in
from .transformer_block import apart, expect_shape_of

__all__ = ["Block", "Residuals", "forward", "init", "init_cache", "jvp", "step", "vjp"]

SHARES_MEMORY = "an auxiliary loss and its cotangent are passed on as they are"


class Block(NamedTuple):
    """The layers of a parallel block, with their settings bound."""

    norm: Layer
    mixer: Layer  # takes ``positions``
    mlp: Layer  # may return a `Stream`
    dropout: Layer = bind(dropout, rate=0.0)  # of both branches
    wiring: Any = sys.modules[__name__]  # what runs the block: this file

    def __repr__(self) -> str:
        members = zip(self._fields[:-1], self[:-1], strict=True)
        return tree("parallel block", [m for m in members if describe(m[1]) != "dropout(rate=0)"])


class Residuals(NamedTuple):
    """What `vjp` needs: the residuals of each layer, and the block."""

    norm: Any
    mixer: Any
    dropout1: Any
    mlp: Any
    dropout2: Any
    block: Block
    with_auxiliary: tuple[bool, bool]  # whether x and the mlp's output have an auxiliary loss


@located
def init(key: Key | None, *, block: Block, dtype: Any = np.float32) -> Tree:
    """Make the parameters of the three layers."""
    return {
        "norm": block.norm.init(fold_in(key, 0), dtype=dtype),
        "mixer": block.mixer.init(fold_in(key, 1), dtype=dtype),
        "mlp": block.mlp.init(fold_in(key, 2), dtype=dtype),
    }


@located
def forward(
    params: Tree,
    x: Array | Stream,
    *,
    block: Block,
    positions: Array,
    begins: Array | None = None,
    key: Key | None = None,
) -> tuple[Any, Residuals]:
    """Return the block's output, shape (B, T, D).

    Args:
        params: from `init`.
        x: (B, T, D), or a `Stream` of it.
        block: the layers.
        positions: of the tokens, (T,) or (B, T).
        begins: (B, T) where the document of each token begins, for a mixer that keeps documents
            apart.
        key: randomness of dropout. No key: no dropout.
    """
    expect_params(params, ["norm", "mixer", "mlp"])
    x, auxiliary = unpack(x)
    h, norm = block.norm.forward(params["norm"], x)

    own = keyed(block.mixer, fold_in(key, 2)) | apart(begins)
    a, mixer = block.mixer.forward(params["mixer"], h, positions=positions, **own)
    expect_shape_of(x, mixer=a)
    a, dropout1 = block.dropout.forward({}, a, key=fold_in(key, 0))

    own = keyed(block.mlp, fold_in(key, 3))
    output, mlp = block.mlp.forward(params["mlp"], h, **own)
    m, router_loss = unpack(output)
    expect_shape_of(x, mlp=m)
    m, dropout2 = block.dropout.forward({}, m, key=fold_in(key, 1))

    with_auxiliary = auxiliary is not None, router_loss is not None
    residuals = Residuals(norm, mixer, dropout1, mlp, dropout2, block, with_auxiliary)
    return pack(x + a + m, auxiliary, router_loss), residuals


@located
def vjp(residuals: Residuals, g: Any) -> tuple[Tree, Any]:
    """Return ``({"norm", "mixer", "mlp"}, d_x)`` for the cotangent g of y."""
    expect_residuals(residuals, Residuals)
    block = residuals.block
    x_has_loss, mlp_has_loss = residuals.with_auxiliary
    g, d_auxiliary = unpack(g)
    _, d_m = block.dropout.vjp(residuals.dropout2, g)
    d_mlp, d_h = block.mlp.vjp(residuals.mlp, Stream(d_m, d_auxiliary) if mlp_has_loss else d_m)

    _, d_a = block.dropout.vjp(residuals.dropout1, g)
    d_mixer, d_branch = block.mixer.vjp(residuals.mixer, d_a)
    d_h = d_h + d_branch  # h feeds both branches: cotangents add

    d_norm, d_branch = block.norm.vjp(residuals.norm, d_h)
    g = g + d_branch  # x feeds the skip path and the norm
    d_params = {"norm": d_norm, "mixer": d_mixer, "mlp": d_mlp}
    return d_params, Stream(g, d_auxiliary) if x_has_loss else g


@located
def jvp(residuals: Residuals, t: tuple[Tree, Any]) -> Any:
    """Return the tangent of y for ``({"norm", "mixer", "mlp"}, t_x)``."""
    expect_residuals(residuals, Residuals)
    block = residuals.block
    t_params, t_x = t
    t_x, t_auxiliary = unpack(t_x)
    t_h = block.norm.jvp(residuals.norm, (t_params["norm"], t_x))
    t_a = block.mixer.jvp(residuals.mixer, (t_params["mixer"], t_h))
    t_a = block.dropout.jvp(residuals.dropout1, ({}, t_a))
    t_m, t_router_loss = unpack(block.mlp.jvp(residuals.mlp, (t_params["mlp"], t_h)))
    t_m = block.dropout.jvp(residuals.dropout2, ({}, t_m))
    return pack(t_x + t_a + t_m, t_auxiliary, t_router_loss)


def init_cache(params: Tree, batch: int, length: int, *, block: Block) -> Any:
    """Return the cache of each layer, for that many texts of up to ``length`` tokens."""
    return {name: cache_for(getattr(block, name), params[name], batch, length) for name in params}


def step(
    params: Tree,
    x: Array,
    cache: Any,
    *,
    block: Block,
    lengths: Array | None = None,
    begins: Array | None = None,
) -> tuple[Array, Any]:
    """Return the output for the next positions (B, T, D) of each text, and the cache after them.

    See `self_attention.step`, also for the cache.
    """

    def run(name: str, x: Any, **own: Any) -> Any:
        layer = getattr(block, name)
        y, after[name] = next_step(layer, params[name], x, cache[name], lengths, **own)
        return y

    after = dict[str, Any]()
    h = run("norm", x)
    m, _ = unpack(run("mlp", h))
    return x + run("mixer", h, **apart(begins)) + m, after
