"""What is looked up."""

import jax.numpy as jnp
import numpy as np

from functional_lm.layers import embedding

from .bug import Layer, draw, plant

plant(
    embedding,
    {"weight": draw(504, 11, 5)},
    np.random.default_rng(505).integers(0, 11, (2, 3)),
    """
    tokens get a gradient of zeros
    x: integer cotangent
    - return {"weight": d_weight}, None
    + return {"weight": d_weight}, np.zeros_like(tokens)
    """,
)


class position_embedding(Layer):
    """The row of each token plus the row of its position."""

    def forward(params, x):
        tokens, positions = params["tokens"], params["positions"]
        return tokens[x] + positions[: x.shape[1]], (x, tokens, positions)

    def vjp(residuals, g):
        x, tokens, positions = residuals
        d_tokens = np.zeros_like(tokens)
        np.add.at(d_tokens, x, g)
        d_positions = np.zeros_like(positions)
        d_positions[: x.shape[1]] = g.sum(axis=0)
        return {"tokens": d_tokens, "positions": d_positions}, None

    def reference(params, x):
        return jnp.take(params["tokens"], x, axis=0) + params["positions"][: x.shape[1]]

    inputs = (
        {"tokens": draw(501, 5, 3), "positions": draw(502, 13, 3)},
        np.random.default_rng(503).integers(0, 5, (2, 7)),
        {},
    )
    bugs = """
    += with an index array counts a repeated token once
    params.tokens: scatter
    - np.add.at(d_tokens, x, g)
    + d_tokens[x] += g

    the gradient of the positions is allocated and not filled
    params.positions: never written
    - d_positions[: x.shape[1]] = g.sum(axis=0)
    """


class embedding_bag(Layer):
    """The mean of the rows of a bag of tokens; the padding does not count."""

    def forward(params, x, *, padding):
        weight = params["weight"]  # (V, D)
        kept = (x != padding)[:, :, None].astype(weight.dtype)  # (B, T, 1)
        count = np.maximum(kept.sum(axis=1), 1.0)  # (B, 1)
        return (weight[x] * kept).sum(axis=1) / count, (x, kept, count, weight)

    def vjp(residuals, g):
        x, kept, count, weight = residuals
        d_weight = np.zeros_like(weight)
        np.add.at(d_weight, x, kept * (g / count)[:, None])
        return {"weight": d_weight}, None

    def reference(params, x, *, padding):
        kept = (x != padding).astype(params["weight"].dtype)
        sums = jnp.einsum("btd,bt->bd", jnp.take(params["weight"], x, axis=0), kept)
        return sums / jnp.maximum(kept.sum(axis=1, keepdims=True), 1.0)

    inputs = (
        {"weight": draw(1401, 7, 5)},
        np.array([[3, 1, 0, 0], [6, 2, 3, 0], [5, 5, 4, 1]]),
        {"padding": 0},
    )
    bugs = """
    the padding's row learns
    params.weight: mask leak
    - np.add.at(d_weight, x, kept * (g / count)[:, None])
    + np.add.at(d_weight, x, (g / count)[:, None])

    the tokens get zeros in the dtype of g
    x: integer cotangent
    - return {"weight": d_weight}, None
    + return {"weight": d_weight}, np.zeros(x.shape, g.dtype)
    """
