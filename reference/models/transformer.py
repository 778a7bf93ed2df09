"""The decoder-only transformer in JAX."""

import jax
import jax.numpy as jnp
import numpy as np


def forward(params, tokens, *, model, key=None):
    """Return the logits (..., T, V) of tokens (..., T), or a stream with the routers' losses."""
    if tokens.ndim == 1:
        y = forward(params, tokens[None], model=model, key=key)
        return y._replace(x=y.x[0]) if hasattr(y, "auxiliary") else y[0]
    positions, begins, own = np.arange(tokens.shape[1]), 0, {}
    if model.boundary is not None:  # rotations measure distances, wherever a document begins
        begins = jax.lax.cummax(jnp.where(tokens == model.boundary, positions, 0), axis=1)
        own = {"begins": begins}
    x = model.embedding.forward(params["embedding"], tokens)
    if model.positions is not None:
        x = model.positions.forward(params["positions"], x, positions=positions - begins)
    x = model.dropout.forward({}, x, key=None if key is None else (*key, 0))
    T = x.shape[1]
    if model.prompt is not None:
        x = model.prompt.forward(params["prompt"], x)
        positions = np.arange(x.shape[1])
    for i, block in enumerate(model.blocks):
        block_key = None if key is None else (*key, i + 1)
        x = block.wiring.forward(
            params["blocks"][i], x, block=block, positions=positions, key=block_key, **own
        )
    stream = x if hasattr(x, "auxiliary") else None
    x = x if stream is None else x.x
    x = model.norm.forward(params["norm"], x[:, x.shape[1] - T :])
    head = {"weight": params["embedding"]["weight"]} if model.tied else params["unembedding"]
    logits = model.unembedding.forward(head, x)
    return logits if stream is None else stream._replace(x=logits)
