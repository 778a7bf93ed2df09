"""A mixture of experts in JAX."""

from typing import Any, NamedTuple

from ..layers import linear
from ..layers.routing import routed_experts, top_k_router


class Stream(NamedTuple):
    """An output with an auxiliary loss."""

    x: Any
    auxiliary: Any


def forward(params, x, *, k, router=linear, gate=top_k_router, experts=routed_experts, shared=None):
    """Route each token to k experts; add the shared layer, if there is one."""
    logits = router.forward(params["router"], x)
    chosen = gate.choose(logits, k=k)
    weights, auxiliary = gate.forward({}, logits, experts=chosen)
    y = experts.forward(params["experts"], (x, weights), experts=chosen)
    if shared is not None:
        y = y + shared.forward(params["shared"], x)
    return Stream(y, auxiliary)
