"""A mixture of experts in place of a feed-forward layer: each token passes the k it is sent to.

Forward: ``router`` → the k experts with the largest logits → their weights and the auxiliary loss →
``experts``; and, if there is one, a ``shared`` layer that every token passes (Dai et al. 2024).
``vjp`` is the forward read upwards; which experts were chosen is a constant to it.

Shapes: x (B, T, D), y a `Stream` of (B, T, D) and the auxiliary loss.
"""

from typing import Any, NamedTuple

import numpy as np

from .. import pytree
from ..contract import Array, Key, Layer, Stream, Tree, expect_params, expect_residuals
from ..layers import linear, routed_experts, top_k_router
from ..layers.routing.routed_experts import Routed
from ..layers.routing.top_k_router import Gates
from ..prng import fold_in

__all__ = ["Residuals", "expert_shares", "forward", "idle_weights", "init", "jvp", "vjp"]


class Residuals(NamedTuple):
    """What `vjp` needs: the residuals of each layer, and the layers."""

    router: Any
    gate: Any
    experts: Any
    shared: Any
    layers: tuple[Layer, Layer, Layer, Layer | None]


def init(
    key: Key | None,
    *,
    d_model: int,
    n_experts: int,
    router: Layer = linear,
    experts: Layer = routed_experts,
    shared: Layer | None = None,
    dtype: Any = np.float32,
) -> Tree:
    """Make the parameters of ``router`` and ``experts``, and of ``shared`` if there is one."""
    params = {
        "router": router.init(fold_in(key, 0), d_in=d_model, d_out=n_experts, dtype=dtype),
        "experts": experts.init(fold_in(key, 1), d_model=d_model, n_experts=n_experts, dtype=dtype),
    }
    if shared is not None:
        params["shared"] = shared.init(fold_in(key, 2), dtype=dtype)
    return params


def forward(
    params: Tree,
    x: Array,
    *,
    k: int,
    router: Layer = linear,
    gate: Layer = top_k_router,
    experts: Layer = routed_experts,
    shared: Layer | None = None,
) -> tuple[Stream, Residuals]:
    """Return what the experts make of x, and the auxiliary loss.

    Args:
        params: of ``router`` and ``experts``, and of ``shared`` if there is one.
        x: (B, T, D).
        k: the experts that each token is sent to.
        router: the projection to a logit for each expert.
        gate: what makes weights and the auxiliary loss of them.
        experts: the experts, with their activation bound.
        shared: a feed-forward layer that every token passes.
    """
    expect_params(params, ["router", "experts", *(["shared"] if shared is not None else [])])
    logits, r_router = router.forward(params["router"], x)  # (B, T, E)
    chosen = gate.choose(logits, k=k)  # type: ignore[attr-defined]
    (weights, auxiliary), r_gate = gate.forward({}, logits, experts=chosen)
    y, r_experts = experts.forward(params["experts"], Routed(x, weights), experts=chosen)
    r_shared = None
    if shared is not None:
        m, r_shared = shared.forward(params["shared"], x)
        if m.shape != y.shape:
            raise ValueError(
                f"shared must keep the shape of x, {y.shape}: got {m.shape}; make its output D wide"
            )
        y = y + m
    layers = router, gate, experts, shared
    return Stream(y, auxiliary), Residuals(r_router, r_gate, r_experts, r_shared, layers)


def vjp(residuals: Residuals, g: Stream) -> tuple[Tree, Array]:
    """Return ``({"router", "experts", "shared"}, d_x)`` for the cotangent g of y."""
    expect_residuals(residuals, Residuals)
    router, gate, experts, shared = residuals.layers
    d_y, d_auxiliary = g
    d_experts, (d_x, d_weights) = experts.vjp(residuals.experts, d_y)
    _, d_logits = gate.vjp(residuals.gate, Gates(d_weights, d_auxiliary))
    d_router, d_x_router = router.vjp(residuals.router, d_logits)
    d_params, d_x = {"router": d_router, "experts": d_experts}, d_x + d_x_router
    if shared is not None:
        d_params["shared"], d_x_shared = shared.vjp(residuals.shared, d_y)
        d_x = d_x + d_x_shared
    return d_params, d_x


def jvp(residuals: Residuals, t: tuple[Tree, Array]) -> Stream:
    """Return the tangent of y for ``({"router", "experts", "shared"}, t_x)``."""
    expect_residuals(residuals, Residuals)
    router, gate, experts, shared = residuals.layers
    t_params, t_x = t
    t_logits = router.jvp(residuals.router, (t_params["router"], t_x))
    t_weights, t_auxiliary = gate.jvp(residuals.gate, ({}, t_logits))
    t_y = experts.jvp(residuals.experts, (t_params["experts"], Routed(t_x, t_weights)))
    if shared is not None:
        t_y = t_y + shared.jvp(residuals.shared, (t_params["shared"], t_x))
    return Stream(t_y, t_auxiliary)


def expert_shares(residuals: Residuals) -> Array:
    """Return the share (E,) of the choices that fell on each expert, for statistics."""
    return residuals.gate.shares


def idle_weights(params: Tree, *, k: int) -> int:
    """Return how many weights of the experts a token does not pass, to count its arithmetic."""
    leaves = pytree.leaves(params["experts"])
    return sum(leaf.size // len(leaf) * (len(leaf) - k) for leaf in leaves)
