"""Matrices: linear maps, adapters, small networks, outer products, patches."""

import math

import jax
import jax.numpy as jnp
import numpy as np

from functional_lm.layers import linear, swiglu, unembedding
from functional_lm.numerics import normal_cdf, rows  # noqa: F401  # the first is for a bug

from .bug import Layer, Pair, draw, plant

INPUT = draw(1006, 2, 3, 5)

plant(
    linear,
    {"weight": draw(5, 5, 5), "bias": draw(2, 5)},
    draw(4, 2, 7, 5),
    """
    the bias gets the mean of the rows
    params.bias: constant factor (1/(2·7))
    - d_params["bias"] = sum_rows(g)
    + d_params["bias"] = sum_rows(g) / max(len(g), 1)

    the bias is summed over the batch and not over time
    params.bias: missing sum
    - g = rows(g)
    + d_bias = g.sum(axis=0)
    + g = rows(g)
    - d_params["bias"] = sum_rows(g)
    + d_params["bias"] = d_bias

    W for its transpose in d_x
    x: jacobian not transposed
    - return d_params, (g @ weight.T).reshape(x.shape)
    + return d_params, (g @ weight).reshape(x.shape)

    .T of a batch of sequences reverses all axes
    exception
    - d_params = {"weight": rows(x).T @ g}
    + d_params = {"weight": x.T @ g}

    the bias is left out of d_params
    params.bias: structure (bias)
    - if has_bias:
    -     d_params["bias"] = sum_rows(g)
    """,
)

plant(
    unembedding,
    {"weight": draw(9, 7, 7)},
    draw(10, 2, 3, 7),
    """
    the weight gradient is xᵀ·g for gᵀ·x
    params.weight: transposed
    - return {"weight": g.T @ rows(x)}, (g @ weight).reshape(x.shape)
    + return {"weight": rows(x).T @ g}, (g @ weight).reshape(x.shape)
    """,
)

plant(
    swiglu,
    {},
    draw(13, 2, 3, 10),
    """
    the planes of gate and up are stacked in the other order
    x: misplaced
    - return {}, np.concatenate([g * gate_slope, g * silu], axis=-1)
    + return {}, np.concatenate([g * silu, g * gate_slope], axis=-1)
    """,
)


class lora(Layer):
    """y = x·W + (alpha/R)·(x·down)·up: an adapter of rank R (Hu et al. 2021)."""

    def forward(params, x, *, alpha):
        weight, down, up = params["weight"], params["down"], params["up"]
        scaling = alpha / down.shape[1]
        low = x @ down  # (..., R)
        return x @ weight + scaling * (low @ up), (x, low, weight, down, up, scaling)

    def vjp(residuals, g):
        x, low, weight, down, up, scaling = residuals
        d_low = scaling * (g @ up.T)
        d_params = {
            "weight": rows(x).T @ rows(g),
            "down": rows(x).T @ rows(d_low),
            "up": scaling * (rows(low).T @ rows(g)),
        }
        return d_params, g @ weight.T + d_low @ down.T

    def reference(params, x, *, alpha):
        adapter = params["down"] @ params["up"] * (alpha / params["down"].shape[1])
        return x @ (params["weight"] + adapter)

    inputs = (
        {"weight": draw(14, 5, 7), "down": draw(15, 5, 3), "up": draw(16, 3, 7)},
        draw(17, 2, 13, 5),
        {"alpha": 16.0},
    )
    bugs = """
    the path to x through the adapter is not scaled
    x: wrong term
    - return d_params, g @ weight.T + d_low @ down.T
    + return d_params, g @ weight.T + (g @ up.T) @ down.T
    """


class tanh_mlp(Layer):
    """y = tanh(x·W₁ + b₁)·W₂ + b₂."""

    def forward(params, x):
        up, down = params["up"], params["down"]
        h = np.tanh(x @ up["weight"] + up["bias"])
        return h @ down["weight"] + down["bias"], (x, h, up["weight"], down["weight"])

    def vjp(residuals, g):
        x, h, up, down = residuals
        d_a = (g @ down.T) * (1.0 - h * h)
        d_up = {"weight": rows(x).T @ rows(d_a), "bias": rows(d_a).sum(axis=0)}
        d_down = {"weight": rows(h).T @ rows(g), "bias": rows(g).sum(axis=0)}
        return {"up": d_up, "down": d_down}, d_a @ up.T

    def reference(params, x):
        h = jnp.tanh(x @ params["up"]["weight"] + params["up"]["bias"])
        return h @ params["down"]["weight"] + params["down"]["bias"]

    inputs = (
        {
            "up": {"weight": draw(18, 5, 7), "bias": draw(19, 7)},
            "down": {"weight": draw(20, 7, 3), "bias": draw(21, 3)},
        },
        draw(22, 2, 3, 5),
        {},
    )
    bugs = """
    tanh is applied once more to the hidden values
    params.up.bias params.up.weight x: wrong point
    - d_a = (g @ down.T) * (1.0 - h * h)
    + d_a = (g @ down.T) * (1.0 - np.tanh(h) ** 2)
    """


class tied_autoencoder(Layer):
    """y = tanh(x·W)·Wᵀ: one weight encodes and decodes."""

    def forward(params, x):
        weight = params["weight"]
        h = np.tanh(x @ weight)
        return h @ weight.T, (x, h, weight)

    def vjp(residuals, g):
        x, h, weight = residuals
        d_a = (g @ weight) * (1.0 - h * h)
        return {"weight": rows(x).T @ rows(d_a) + rows(g).T @ rows(h)}, d_a @ weight.T

    def reference(params, x):
        return jnp.tanh(x @ params["weight"]) @ params["weight"].T

    inputs = ({"weight": draw(23, 7, 3)}, draw(24, 2, 5, 7), {})
    bugs = """
    the weight's use in the decoder is not counted
    params.weight: missing term
    - return {"weight": rows(x).T @ rows(d_a) + rows(g).T @ rows(h)}, d_a @ weight.T
    + return {"weight": rows(x).T @ rows(d_a)}, d_a @ weight.T
    """


class weight_norm(Layer):
    """y = x·W, where each column of W is a direction over its norm, times a gain."""

    def forward(params, x):
        direction, gain = params["direction"], params["gain"]  # (D, F), (F,)
        norm = np.sqrt((direction * direction).sum(axis=0))
        unit = direction / norm
        return x @ (gain * unit), (x, unit, norm, gain)

    def vjp(residuals, g):
        x, unit, norm, gain = residuals
        d_weight = rows(x).T @ rows(g)
        d_unit = d_weight * gain
        d_direction = (d_unit - unit * (d_unit * unit).sum(axis=0)) / norm
        d_params = {"direction": d_direction, "gain": (d_weight * unit).sum(axis=0)}
        return d_params, g @ (gain * unit).T

    def reference(params, x):
        norm = jnp.linalg.norm(params["direction"], axis=0)
        return x @ (params["direction"] / norm) * params["gain"]

    inputs = ({"direction": draw(1004, 5, 7), "gain": draw(1005, 7)}, INPUT, {})
    bugs = """
    the norm of the direction is taken for a constant
    params.direction: missing term
    - d_direction = (d_unit - unit * (d_unit * unit).sum(axis=0)) / norm
    + d_direction = d_unit / norm

    the projection is not summed over the column
    params.direction: missing sum
    - d_direction = (d_unit - unit * (d_unit * unit).sum(axis=0)) / norm
    + d_direction = (d_unit - unit * (d_unit * unit)) / norm

    the gain's gradient comes from what is multiplied with the gain already
    params.gain: extra factor (gain)
    - d_params = {"direction": d_direction, "gain": (d_weight * unit).sum(axis=0)}
    + d_params = {"direction": d_direction, "gain": (d_unit * unit).sum(axis=0)}

    the forward normalises the parameter in place
    overwritten (params)
    - unit = direction / norm
    + unit = np.divide(direction, norm, out=direction)

    d_params is a pair and not a dict
    params: structure
    - d_params = {"direction": d_direction, "gain": (d_weight * unit).sum(axis=0)}
    + d_params = d_direction, (d_weight * unit).sum(axis=0)
    """


GELU_INNER = math.sqrt(2.0 / math.pi)
GELU_CUBE = 0.044715


class gelu_mlp(Layer):
    """y = gelu(x·up + up_bias)·down, with the gelu in its tanh form."""

    def forward(params, x):
        a = x @ params["up"] + params["up_bias"]
        t = np.tanh(GELU_INNER * (a + GELU_CUBE * a * a * a))
        h = 0.5 * a * (1.0 + t)
        return h @ params["down"], (x, a, t, h, params["up"], params["down"])

    def vjp(residuals, g):
        x, a, t, h, up, down = residuals
        d_inner = GELU_INNER * (1.0 + 3.0 * GELU_CUBE * a * a)
        slope = 0.5 * (1.0 + t) + 0.5 * a * (1.0 - t * t) * d_inner
        d_a = (g @ down.T) * slope
        d_params = {
            "up": rows(x).T @ rows(d_a),
            "up_bias": rows(d_a).sum(axis=0),
            "down": rows(h).T @ rows(g),
        }
        return d_params, d_a @ up.T

    def reference(params, x):
        h = jax.nn.gelu(x @ params["up"] + params["up_bias"], approximate=True)
        return h @ params["down"]

    inputs = (
        {"up": draw(1007, 5, 7), "up_bias": draw(1008, 7), "down": draw(1009, 7, 3)},
        INPUT,
        {},
    )
    bugs = """
    the three of the cube's derivative is forgotten
    params.up params.up_bias x: wrong term
    - d_inner = GELU_INNER * (1.0 + 3.0 * GELU_CUBE * a * a)
    + d_inner = GELU_INNER * (1.0 + GELU_CUBE * a * a)

    the slope is taken at the activation
    params.up params.up_bias x: wrong point
    - d_inner = GELU_INNER * (1.0 + 3.0 * GELU_CUBE * a * a)
    + a, t = h, np.tanh(GELU_INNER * (h + GELU_CUBE * h * h * h))
    + d_inner = GELU_INNER * (1.0 + 3.0 * GELU_CUBE * a * a)

    the backward of an older forward, which kept five arrays
    exception
    - x, a, t, h, up, down = residuals
    + x, a, t, up, down = residuals
    + h = 0.5 * a * (1.0 + t)

    the forward has erf where the reference has tanh
    y: value
    - return h @ params["down"], (x, a, t, h, params["up"], params["down"])
    + return (a * normal_cdf(a)) @ params["down"], (x, a, t, h, params["up"], params["down"])
    """


class layer_scale(Layer):
    """y = x + gamma·tanh(x·W): a residual branch with a scale for each channel."""

    def forward(params, x):
        weight, gamma = params["weight"], params["gamma"]
        t = np.tanh(x @ weight)
        return x + gamma * t, (x, t, weight, gamma)

    def vjp(residuals, g):
        x, t, weight, gamma = residuals
        d_a = g * gamma * (1.0 - t * t)
        d_params = {"weight": rows(x).T @ rows(d_a), "gamma": rows(g * t).sum(axis=0)}
        return d_params, g + d_a @ weight.T

    def reference(params, x):
        return x + jnp.tanh(x @ params["weight"]) * params["gamma"]

    inputs = ({"weight": draw(1010, 5, 5), "gamma": draw(1011, 5)}, INPUT, {})
    bugs = """
    the skip's cotangent is added twice
    x: wrong term
    - return d_params, g + d_a @ weight.T
    + return d_params, g + g + d_a @ weight.T

    gamma is left out on the way to the weight
    params.weight: missing factor (gamma)
    - d_params = {"weight": rows(x).T @ rows(d_a), "gamma": rows(g * t).sum(axis=0)}
    + d_weight = rows(x).T @ rows(g * (1.0 - t * t))
    + d_params = {"weight": d_weight, "gamma": rows(g * t).sum(axis=0)}

    the branch is added to g itself
    overwritten (g)
    - return d_params, g + d_a @ weight.T
    + g += d_a @ weight.T
    + return d_params, g.copy()
    """


class bilinear(Layer):
    """yₖ = a·Wₖ·b for the two inputs a and b."""

    def forward(params, x):
        a, b = x
        y = np.einsum("...i,ijk,...j->...k", a, params["weight"], b)
        return y, (a, b, params["weight"])

    def vjp(residuals, g):
        a, b, weight = residuals
        d_weight = np.einsum("ni,nj,nk->ijk", rows(a), rows(b), rows(g))
        d_a = np.einsum("...k,ijk,...j->...i", g, weight, b)
        d_b = np.einsum("...k,ijk,...i->...j", g, weight, a)
        return {"weight": d_weight}, Pair(d_a, d_b)

    def reference(params, x):
        products = x.a[..., :, None] * x.b[..., None, :]
        return jnp.tensordot(products, params["weight"], axes=2)

    inputs = ({"weight": draw(1104, 5, 5, 3)}, Pair(draw(1105, 2, 7, 5), draw(1106, 2, 7, 5)), {})
    bugs = """
    the cotangents of a and b are exchanged
    x.a x.b: swapped
    - return {"weight": d_weight}, Pair(d_a, d_b)
    + return {"weight": d_weight}, Pair(d_b, d_a)

    the outer product of b and a
    params.weight: transposed
    - d_weight = np.einsum("ni,nj,nk->ijk", rows(a), rows(b), rows(g))
    + d_weight = np.einsum("ni,nj,nk->ijk", rows(b), rows(a), rows(g))

    b sees the matrix from the same side as a
    x.b: jacobian not transposed
    - d_b = np.einsum("...k,ijk,...i->...j", g, weight, a)
    + d_b = np.einsum("...k,ijk,...j->...i", g, weight, a)
    """


class patch_embedding(Layer):
    """Squares of an image, each a row, times a weight (Dosovitskiy et al. 2020)."""

    def forward(params, x, *, size):
        B, height, width = x.shape
        down, across = height // size, width // size
        tiles = x.reshape(B, down, size, across, size).swapaxes(2, 3)
        patches = tiles.reshape(B, down * across, size * size)
        return patches @ params["weight"], (patches, params["weight"], tiles.shape, x.shape)

    def vjp(residuals, g):
        patches, weight, tiles, shape = residuals
        d_x = (g @ weight.T).reshape(tiles).swapaxes(2, 3).reshape(shape)
        return {"weight": rows(patches).T @ rows(g)}, d_x

    def reference(params, x, *, size):
        B, height, width = x.shape
        tiles = x.reshape(B, height // size, size, width // size, size)
        kernel = params["weight"].reshape(size, size, -1)
        y = jnp.einsum("bhiwj,ijf->bhwf", tiles, kernel)
        return y.reshape(B, y.shape[1] * y.shape[2], y.shape[3])

    inputs = ({"weight": draw(1402, 4, 7)}, draw(1403, 3, 6, 10), {"size": 2})
    bugs = """
    the tiles are laid out without exchanging rows and tiles back
    x: misplaced
    - d_x = (g @ weight.T).reshape(tiles).swapaxes(2, 3).reshape(shape)
    + d_x = (g @ weight.T).reshape(shape)

    the weight's gradient is (out, in), as PyTorch stores it
    params.weight: transposed
    - return {"weight": rows(patches).T @ rows(g)}, d_x
    + return {"weight": rows(g).T @ rows(patches)}, d_x

    the weight's gradient is added up from call to call
    params.weight: hidden state
    - return {"weight": rows(patches).T @ rows(g)}, d_x
    + total = getattr(patch_embedding, "d_weight", 0) + rows(patches).T @ rows(g)
    + patch_embedding.d_weight = total.astype(g.dtype)
    + return {"weight": patch_embedding.d_weight}, d_x
    """


class outer_product_mean(Layer):
    """The mean over the rows of a ⊗ b, times a weight, as in AlphaFold."""

    def forward(params, x):
        a, b = x  # (B, S, C), (B, S, E)
        weight = params["weight"]  # (C·E, F)
        outer = np.einsum("bsc,bse->bce", a, b) / a.shape[1]
        flat = outer.reshape(len(a), len(weight))
        return flat @ weight, (a, b, flat, weight)

    def vjp(residuals, g):
        a, b, flat, weight = residuals
        d_outer = (g @ weight.T).reshape(len(a), a.shape[2], b.shape[2]) / a.shape[1]
        d_a = np.einsum("bce,bse->bsc", d_outer, b)
        d_b = np.einsum("bce,bsc->bse", d_outer, a)
        return {"weight": flat.T @ g}, Pair(d_a, d_b)

    def reference(params, x):
        weight = params["weight"].reshape(x.a.shape[2], x.b.shape[2], -1)
        products = jnp.einsum("bsc,bse,cef->bsf", x.a, x.b, weight)
        return products.mean(axis=1)

    inputs = ({"weight": draw(1404, 15, 11)}, Pair(draw(1405, 2, 7, 3), draw(1406, 2, 7, 5)), {})
    bugs = """
    only b gets the one over the number of rows
    x.a: constant factor
    - d_outer = (g @ weight.T).reshape(len(a), a.shape[2], b.shape[2]) / a.shape[1]
    + d_outer = (g @ weight.T).reshape(len(a), a.shape[2], b.shape[2])
    - d_b = np.einsum("bce,bsc->bse", d_outer, a)
    + d_b = np.einsum("bce,bsc->bse", d_outer, a) / a.shape[1]

    the flat weight gradient has the channels of b first
    params.weight: misplaced
    - return {"weight": flat.T @ g}, Pair(d_a, d_b)
    + flat = (np.einsum("bse,bsc->bec", b, a) / a.shape[1]).reshape(flat.shape)
    + return {"weight": flat.T @ g}, Pair(d_a, d_b)
    """
