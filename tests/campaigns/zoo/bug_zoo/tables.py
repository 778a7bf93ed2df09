"""What is looked up."""

from functools import partial

import jax.numpy as jnp
import numpy as np

from .bug import Bug, Layer, draw, plant_in


class embedding(Layer):
    """The row of each token."""

    def forward(params, tokens):
        return params["weight"][tokens], (tokens, params["weight"])

    def vjp(residuals, g):
        tokens, weight = residuals
        d_weight = np.zeros_like(weight)
        np.add.at(d_weight, tokens, g)
        return {"weight": d_weight}, None

    def reference(params, tokens):
        return jnp.take(params["weight"], tokens, axis=0)


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


BUGS: list[Bug] = []
plant = partial(plant_in, BUGS)


TABLES = {"tokens": draw(501, 5, 3), "positions": draw(502, 13, 3)}
TOKENS = np.random.default_rng(503).integers(0, 5, (2, 7))
POSITION_EMBEDDING = (position_embedding, TABLES, TOKENS)


@plant(
    "position_embedding: += with an index array counts a repeated token once",
    *POSITION_EMBEDDING,
    leaves="params.tokens",
    cause="scatter",
)
def repeated_token_counts_once(residuals, g):
    x, tokens, _ = residuals
    d_tokens = np.zeros_like(tokens)
    d_tokens[x] += g
    return position_embedding.vjp(residuals, g)[0] | {"tokens": d_tokens}, None


@plant(
    "position_embedding: the gradient of the positions is allocated and not filled",
    *POSITION_EMBEDDING,
    leaves="params.positions",
    cause="never written",
)
def positions_not_filled(residuals, g):
    d_params, _ = position_embedding.vjp(residuals, g)
    return d_params | {"positions": np.zeros_like(d_params["positions"])}, None


@plant(
    "embedding: tokens get a gradient of zeros",
    embedding,
    {"weight": draw(504, 11, 5)},
    np.random.default_rng(505).integers(0, 11, (2, 3)),
    leaves="x",
    cause="integer cotangent",
)
def zeros_for_tokens(residuals, g):
    return embedding.vjp(residuals, g)[0], np.zeros_like(residuals[0])


WEIGHT = {"weight": draw(1401, 7, 5)}
BAGS = np.array([[3, 1, 0, 0], [6, 2, 3, 0], [5, 5, 4, 1]])
EMBEDDING_BAG = (embedding_bag, WEIGHT, BAGS)


@plant(
    "embedding_bag: the padding's row learns",
    *EMBEDDING_BAG,
    padding=0,
    leaves="params.weight",
    cause="mask leak",
)
def padding_learns(residuals, g):
    x, _, count, weight = residuals
    d_weight = np.zeros_like(weight)
    np.add.at(d_weight, x, (g / count)[:, None])
    return {"weight": d_weight}, None


@plant(
    "embedding_bag: the tokens get zeros in the dtype of g",
    *EMBEDDING_BAG,
    padding=0,
    leaves="x",
    cause="integer cotangent",
)
def zeros_like_g(residuals, g):
    d_params, _ = embedding_bag.vjp(residuals, g)
    return d_params, np.zeros(residuals[0].shape, g.dtype)
