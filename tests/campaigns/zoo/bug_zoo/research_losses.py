"""More layers that a researcher brings along: tables, images, products, and losses.

Each class is a layer: ``forward`` and ``vjp`` in NumPy, ``reference`` in JAX.
"""

import jax
import jax.numpy as jnp
import numpy as np

from functional_lm.numerics import sigmoid, softmax

from .bug import rows
from .research_layers import Pair


class positional_scale:
    """Each entry times the number of its position and channel."""

    @staticmethod
    def forward(params, x):
        scale = params["scale"]  # (L, D), L not less than T
        return x * scale[: x.shape[1]], (x, scale)

    @staticmethod
    def vjp(residuals, g):
        x, scale = residuals
        d_scale = np.zeros_like(scale)
        d_scale[: x.shape[1]] = (g * x).sum(axis=0)
        return {"scale": d_scale}, g * scale[: x.shape[1]]

    @staticmethod
    def reference(params, x):
        return jnp.einsum("btd,td->btd", x, params["scale"][: x.shape[1]])


class positional_offset:
    """Each entry plus the number of its position and channel."""

    @staticmethod
    def forward(params, x):
        offset = params["offset"]  # (L, D), L not less than T
        return x + offset[: x.shape[1]], offset

    @staticmethod
    def vjp(offset, g):
        d_offset = np.zeros_like(offset)
        d_offset[: g.shape[1]] = g.sum(axis=0)
        return {"offset": d_offset}, g.copy()

    @staticmethod
    def reference(params, x):
        return jax.vmap(jnp.add, (0, None))(x, params["offset"][: x.shape[1]])


class embedding_bag:
    """The mean of the rows of a bag of tokens; the padding does not count."""

    @staticmethod
    def forward(params, x, *, padding):
        weight = params["weight"]  # (V, D)
        kept = (x != padding)[:, :, None].astype(weight.dtype)  # (B, T, 1)
        count = np.maximum(kept.sum(axis=1), 1.0)  # (B, 1)
        return (weight[x] * kept).sum(axis=1) / count, (x, kept, count, weight)

    @staticmethod
    def vjp(residuals, g):
        x, kept, count, weight = residuals
        d_weight = np.zeros_like(weight)
        np.add.at(d_weight, x, kept * (g / count)[:, None])
        return {"weight": d_weight}, None

    @staticmethod
    def reference(params, x, *, padding):
        kept = (x != padding).astype(params["weight"].dtype)
        sums = jnp.einsum("btd,bt->bd", jnp.take(params["weight"], x, axis=0), kept)
        return sums / jnp.maximum(kept.sum(axis=1, keepdims=True), 1.0)


class patch_embedding:
    """Squares of an image, each a row, times a weight (Dosovitskiy et al. 2020)."""

    @staticmethod
    def forward(params, x, *, size):
        B, height, width = x.shape
        down, across = height // size, width // size
        tiles = x.reshape(B, down, size, across, size).swapaxes(2, 3)
        patches = tiles.reshape(B, down * across, size * size)
        return patches @ params["weight"], (patches, params["weight"], tiles.shape, x.shape)

    @staticmethod
    def vjp(residuals, g):
        patches, weight, tiles, shape = residuals
        d_x = (g @ weight.T).reshape(tiles).swapaxes(2, 3).reshape(shape)
        return {"weight": rows(patches).T @ rows(g)}, d_x

    @staticmethod
    def reference(params, x, *, size):
        B, height, width = x.shape
        tiles = x.reshape(B, height // size, size, width // size, size)
        kernel = params["weight"].reshape(size, size, -1)
        y = jnp.einsum("bhiwj,ijf->bhwf", tiles, kernel)
        return y.reshape(B, y.shape[1] * y.shape[2], y.shape[3])


class outer_product_mean:
    """The mean over the rows of a ⊗ b, times a weight, as in AlphaFold."""

    @staticmethod
    def forward(params, x):
        a, b = x  # (B, S, C), (B, S, E)
        weight = params["weight"]  # (C·E, F)
        outer = np.einsum("bsc,bse->bce", a, b) / a.shape[1]
        flat = outer.reshape(len(a), len(weight))
        return flat @ weight, (a, b, flat, weight)

    @staticmethod
    def vjp(residuals, g):
        a, b, flat, weight = residuals
        d_outer = (g @ weight.T).reshape(len(a), a.shape[2], b.shape[2]) / a.shape[1]
        d_a = np.einsum("bce,bse->bsc", d_outer, b)
        d_b = np.einsum("bce,bsc->bse", d_outer, a)
        return {"weight": flat.T @ g}, Pair(d_a, d_b)

    @staticmethod
    def reference(params, x):
        weight = params["weight"].reshape(x.a.shape[2], x.b.shape[2], -1)
        products = jnp.einsum("bsc,bse,cef->bsf", x.a, x.b, weight)
        return products.mean(axis=1)


class distillation:
    """T²·KL(teacher ‖ student) of the softmax at temperature T, per row (Hinton et al. 2015)."""

    @staticmethod
    def forward(params, x, *, teacher, temperature):
        student, teacher = x / temperature, teacher / temperature
        p, q = softmax(student), softmax(teacher)
        log_p, log_q = log_softmax(student), log_softmax(teacher)
        loss = (q * (log_q - log_p)).sum() * (temperature * temperature / len(rows(x)))
        return loss, (p, q, temperature)

    @staticmethod
    def vjp(residuals, g):
        p, q, temperature = residuals
        return {}, g * (temperature / len(rows(p))) * (p - q)

    @staticmethod
    def reference(params, x, *, teacher, temperature):
        log_p = jax.nn.log_softmax(x / temperature)
        log_q = jax.nn.log_softmax(jnp.asarray(teacher, x.dtype) / temperature)
        divergence = (jnp.exp(log_q) * (log_q - log_p)).sum(axis=-1)
        return temperature**2 * divergence.mean()


def log_softmax(x):
    """Return x less the logarithm of the sum of the exponentials of its row."""
    shifted = x - x.max(axis=-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))


class huber:
    """The mean of half the square of the error, and linear beyond delta."""

    @staticmethod
    def forward(params, x, *, targets, delta):
        error = x - targets
        size = np.abs(error)
        losses = np.where(size <= delta, 0.5 * error * error, delta * (size - 0.5 * delta))
        return losses.mean(), (error, delta)

    @staticmethod
    def vjp(residuals, g):
        error, delta = residuals
        return {}, g / error.size * np.clip(error, -delta, delta)

    @staticmethod
    def reference(params, x, *, targets, delta):
        error = jnp.abs(x - jnp.asarray(targets, x.dtype))
        near = jnp.minimum(error, delta)
        return jnp.mean(0.5 * near * near + delta * (error - near))


class binary_cross_entropy:
    """The mean of −t·log σ(x) − (1 − t)·log σ(−x)."""

    @staticmethod
    def forward(params, x, *, targets):
        losses = np.maximum(x, 0.0) - x * targets + np.log1p(np.exp(-np.abs(x)))
        return losses.mean(), (sigmoid(x), targets)

    @staticmethod
    def vjp(residuals, g):
        probs, targets = residuals
        return {}, g / probs.size * (probs - targets)

    @staticmethod
    def reference(params, x, *, targets):
        t = jnp.asarray(targets, x.dtype)
        return -jnp.mean(t * jax.nn.log_sigmoid(x) + (1 - t) * jax.nn.log_sigmoid(-x))


class contrastive:
    """The i-th a belongs to the i-th b: cross-entropy over rows and columns (CLIP)."""

    @staticmethod
    def forward(params, x):
        a, b = x  # (N, D), (N, D)
        products = a @ b.T
        logits = params["scale"] * products
        by_row, by_column = log_softmax(logits), log_softmax(logits.T).T
        loss = -0.5 * (np.diagonal(by_row) + np.diagonal(by_column)).mean()
        return loss, (a, b, products, np.exp(by_row), np.exp(by_column), params["scale"])

    @staticmethod
    def vjp(residuals, g):
        a, b, products, by_row, by_column, scale = residuals
        N = len(a)
        d_logits = g / N * (0.5 * by_row + 0.5 * by_column - np.eye(N, dtype=a.dtype))
        d_products = scale * d_logits
        return {"scale": (d_logits * products).sum()}, Pair(d_products @ b, d_products.T @ a)

    @staticmethod
    def reference(params, x):
        logits = params["scale"] * jnp.einsum("id,jd->ij", x.a, x.b)
        right = jnp.trace(jax.nn.log_softmax(logits, axis=1) + jax.nn.log_softmax(logits, axis=0))
        return -right / (2 * len(logits))
