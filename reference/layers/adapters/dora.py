"""Weight-decomposed low-rank adaptation in JAX."""

import jax.numpy as jnp

from .. import linear
from . import lora


def forward(params, x, *, base=linear, columns=None, **settings):
    """Return the output of lora, each adapted column scaled by magnitude/‖W + α/r·A·B‖."""
    weight = params["base"]["weight"]
    low_rank = {"base": {"weight": weight}, "a": params["a"], "b": params["b"]}
    z = lora.forward(low_rank, x, base=base, columns=columns, **settings)
    settings = {name: settings[name] for name in ("alpha", "rslora") if name in settings}
    identity = jnp.eye(weight.shape[0], dtype=weight.dtype)
    lengths = jnp.linalg.norm(lora.forward(low_rank, identity, columns=columns, **settings), axis=0)
    ratio, first = jnp.ones(weight.shape[1], weight.dtype), 0
    for start, stop in columns or [(0, weight.shape[1])]:
        magnitude = params["magnitude"][first : first + stop - start]
        ratio = ratio.at[start:stop].set(magnitude / lengths[start:stop])
        first += stop - start
    return z * ratio + params["base"].get("bias", 0)
