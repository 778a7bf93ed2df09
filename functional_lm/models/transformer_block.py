"""A pre-norm transformer block: a mixer of positions and a feed-forward layer, each on a skip path.

Forward:

    x ← x + dropout(mixer(norm1(x)))
    x ← x + dropout(mlp(norm2(x)))

``vjp`` is the forward read upwards. Where x feeds the skip path and a branch, cotangents add. The
block is a value: which layers these are, with their settings bound, is data.

Shapes: x and y (B, T, D); where an mlp has an auxiliary loss, y and its cotangent are `Stream`.
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

__all__ = [
    "Block",
    "Residuals",
    "apart",
    "expect_shape_of",
    "forward",
    "init",
    "init_cache",
    "jvp",
    "step",
    "vjp",
]

SHARES_MEMORY = "an auxiliary loss and its cotangent are passed on as they are"


class Block(NamedTuple):
    """The layers of a block, with their settings bound."""

    norm1: Layer
    mixer: Layer  # takes ``positions``
    norm2: Layer
    mlp: Layer  # may return a `Stream`
    dropout: Layer = bind(dropout, rate=0.0)  # of both branches
    wiring: Any = sys.modules[__name__]  # what runs the block: this file

    def __repr__(self) -> str:
        members = zip(self._fields[:-1], self[:-1], strict=True)
        return tree("block", [m for m in members if describe(m[1]) != "dropout(rate=0)"])


class Residuals(NamedTuple):
    """What `vjp` needs: the residuals of each layer, and the block."""

    norm1: Any
    mixer: Any
    dropout1: Any
    norm2: Any
    mlp: Any
    dropout2: Any
    block: Block
    with_auxiliary: tuple[bool, bool]  # whether x and the mlp's output have an auxiliary loss


@located
def init(key: Key | None, *, block: Block, dtype: Any = np.float32) -> Tree:
    """Make the parameters of the four layers."""
    return {
        "norm1": block.norm1.init(fold_in(key, 0), dtype=dtype),
        "mixer": block.mixer.init(fold_in(key, 1), dtype=dtype),
        "norm2": block.norm2.init(fold_in(key, 2), dtype=dtype),
        "mlp": block.mlp.init(fold_in(key, 3), dtype=dtype),
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
    expect_params(params, ["norm1", "mixer", "norm2", "mlp"])
    x, auxiliary = unpack(x)
    h, norm1 = block.norm1.forward(params["norm1"], x)
    own = keyed(block.mixer, fold_in(key, 2)) | apart(begins)
    a, mixer = block.mixer.forward(params["mixer"], h, positions=positions, **own)
    expect_shape_of(x, mixer=a)
    a, dropout1 = block.dropout.forward({}, a, key=fold_in(key, 0))
    x = x + a

    h, norm2 = block.norm2.forward(params["norm2"], x)
    own = keyed(block.mlp, fold_in(key, 3))
    output, mlp = block.mlp.forward(params["mlp"], h, **own)
    m, router_loss = unpack(output)
    expect_shape_of(x, mlp=m)
    m, dropout2 = block.dropout.forward({}, m, key=fold_in(key, 1))
    x = x + m
    with_auxiliary = auxiliary is not None, router_loss is not None
    residuals = Residuals(norm1, mixer, dropout1, norm2, mlp, dropout2, block, with_auxiliary)
    return pack(x, auxiliary, router_loss), residuals


@located
def vjp(residuals: Residuals, g: Any) -> tuple[Tree, Any]:
    """Return ``({"norm1", "mixer", "norm2", "mlp"}, d_x)`` for the cotangent g of y."""
    expect_residuals(residuals, Residuals)
    block = residuals.block
    x_has_loss, mlp_has_loss = residuals.with_auxiliary
    g, d_auxiliary = unpack(g)
    _, d_m = block.dropout.vjp(residuals.dropout2, g)
    d_mlp, d_h = block.mlp.vjp(residuals.mlp, Stream(d_m, d_auxiliary) if mlp_has_loss else d_m)
    d_norm2, d_branch = block.norm2.vjp(residuals.norm2, d_h)
    g = g + d_branch  # x feeds the skip path and the branch: cotangents add

    _, d_a = block.dropout.vjp(residuals.dropout1, g)
    d_mixer, d_h = block.mixer.vjp(residuals.mixer, d_a)
    d_norm1, d_branch = block.norm1.vjp(residuals.norm1, d_h)
    g = g + d_branch
    d_params = {"norm1": d_norm1, "mixer": d_mixer, "norm2": d_norm2, "mlp": d_mlp}
    return d_params, Stream(g, d_auxiliary) if x_has_loss else g


@located
def jvp(residuals: Residuals, t: tuple[Tree, Any]) -> Any:
    """Return the tangent of y for ``({"norm1", "mixer", "norm2", "mlp"}, t_x)``."""
    expect_residuals(residuals, Residuals)
    block = residuals.block
    t_params, t_x = t
    t_x, t_auxiliary = unpack(t_x)
    t_h = block.norm1.jvp(residuals.norm1, (t_params["norm1"], t_x))
    t_a = block.mixer.jvp(residuals.mixer, (t_params["mixer"], t_h))
    t_x = t_x + block.dropout.jvp(residuals.dropout1, ({}, t_a))

    t_h = block.norm2.jvp(residuals.norm2, (t_params["norm2"], t_x))
    t_m, t_router_loss = unpack(block.mlp.jvp(residuals.mlp, (t_params["mlp"], t_h)))
    t_x = t_x + block.dropout.jvp(residuals.dropout2, ({}, t_m))
    return pack(t_x, t_auxiliary, t_router_loss)


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
    h = run("norm1", x)
    x = x + run("mixer", h, **apart(begins))
    m, _ = unpack(run("mlp", run("norm2", x)))
    return x + m, after


def apart(begins: Array | None) -> dict[str, Array]:
    """Return where documents begin as a keyword for a mixer; nothing where there is one."""
    return {} if begins is None else {"begins": begins}


def expect_shape_of(x: Any, **branch: Array) -> None:
    """Require that a branch, given by its name, has the shape of x."""
    ((name, y),) = branch.items()
    if y.shape != x.shape:
        raise ValueError(
            f"{name} must keep the shape of x, {x.shape}: got {y.shape}; make its output D wide"
        )
