"""Matrices: linear maps, adapters, small networks, outer products, patches."""

import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from .bug import Bug, Layer, Pair, draw, plant_in, rows, sigmoid


class linear(Layer):
    """y = x·W + b; the bias may be missing."""

    def forward(params, x):
        y = x @ params["weight"]
        return y + params["bias"] if "bias" in params else y, (
            x,
            params["weight"],
            "bias" in params,
        )

    def vjp(residuals, g):
        x, weight, has_bias = residuals
        d_params = {"weight": rows(x).T @ rows(g)}
        if has_bias:
            d_params["bias"] = rows(g).sum(axis=0)
        return d_params, g @ weight.T

    def reference(params, x):
        y = jnp.einsum("...i,ij->...j", x, params["weight"])
        return y + params["bias"] if "bias" in params else y


class unembedding(Layer):
    """y = x·Wᵀ: a logit for each row of the table."""

    def forward(params, x):
        return x @ params["weight"].T, (x, params["weight"])

    def vjp(residuals, g):
        x, weight = residuals
        return {"weight": rows(g).T @ rows(x)}, g @ weight

    def reference(params, x):
        return x @ params["weight"].T


class swiglu(Layer):
    """y = (silu(x·gate)·(x·up))·down with gate and up in one array (Shazeer 2020)."""

    def forward(params, x):
        gate_up, down = params["gate_up"], params["down"]
        a, u = rows(x) @ gate_up  # (2, N, F)
        sigma = sigmoid(a)
        hidden = a * sigma * u
        slopes = np.stack([a * sigma, u * sigma * (1.0 + a * (1.0 - sigma))])  # of u, of a
        return (hidden @ down).reshape(x.shape), (x, slopes, hidden, gate_up, down)

    def vjp(residuals, g):
        x, slopes, hidden, gate_up, down = residuals
        g = rows(g)
        d_gate_up = slopes[::-1] * (g @ down.T)  # (2, N, F)
        d_x = d_gate_up[0] @ gate_up[0].T + d_gate_up[1] @ gate_up[1].T
        return {"gate_up": rows(x).T @ d_gate_up, "down": hidden.T @ g}, d_x.reshape(x.shape)

    def reference(params, x):
        gate, up = params["gate_up"]
        return (jax.nn.silu(x @ gate) * (x @ up)) @ params["down"]


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


BUGS: list[Bug] = []
plant = partial(plant_in, BUGS)


AFFINE = {"weight": draw(1, 5, 3), "bias": draw(2, 3)}


@plant(
    "linear: the bias gets the mean of the rows",
    linear,
    AFFINE,
    draw(3, 7, 5),
    leaves="params.bias",
    cause="constant factor",
    says=("1/7",),
)
def bias_gets_the_mean(residuals, g):
    x, weight, _ = residuals
    return {"weight": x.T @ g, "bias": g.sum(axis=0) / max(len(g), 1)}, g @ weight.T


@plant(
    "linear: the bias is summed over the batch and not over time",
    linear,
    AFFINE,
    draw(4, 2, 7, 5),
    leaves="params.bias",
    cause="missing sum",
)
def bias_summed_over_the_batch_only(residuals, g):
    x, weight, _ = residuals
    return {"weight": rows(x).T @ rows(g), "bias": g.sum(axis=0)}, g @ weight.T


@plant(
    "linear: W for its transpose in d_x",
    linear,
    {"weight": draw(5, 5, 5)},
    draw(6, 2, 3, 5),
    leaves="x",
    cause="jacobian not transposed",
)
def weight_not_transposed(residuals, g):
    x, weight, _ = residuals
    return {"weight": rows(x).T @ rows(g)}, g @ weight


@plant(
    "linear: .T of a batch of sequences reverses all axes",
    linear,
    AFFINE,
    draw(7, 2, 7, 5),
    cause="exception",
)
def reverses_all_axes(residuals, g):
    x, weight, _ = residuals
    return {"weight": x.T @ g, "bias": g.sum(axis=(0, 1))}, g @ weight.T


@plant(
    "linear: the bias is left out of d_params",
    linear,
    AFFINE,
    draw(8, 2, 5),
    leaves="params.bias",
    cause="structure",
    says=("bias",),
)
def no_bias_in_the_gradient(residuals, g):
    x, weight, _ = residuals
    return {"weight": x.T @ g}, g @ weight.T


@plant(
    "unembedding: the weight gradient is xᵀ·g for gᵀ·x",
    unembedding,
    {"weight": draw(9, 7, 7)},
    draw(10, 2, 3, 7),
    leaves="params.weight",
    cause="transposed",
)
def outer_product_the_other_way(residuals, g):
    x, weight = residuals
    return {"weight": rows(x).T @ rows(g)}, g @ weight


@plant(
    "swiglu: the planes of gate and up are stacked in the other order",
    swiglu,
    {"gate_up": draw(11, 2, 5, 7), "down": draw(12, 7, 5)},
    draw(13, 2, 3, 5),
    leaves="params.gate_up",
    cause="misplaced",
)
def planes_in_the_other_order(residuals, g):
    d_params, d_x = swiglu.vjp(residuals, g)
    return d_params | {"gate_up": d_params["gate_up"][::-1].copy()}, d_x


@plant(
    "lora: the path to x through the adapter is not scaled",
    lora,
    {"weight": draw(14, 5, 7), "down": draw(15, 5, 3), "up": draw(16, 3, 7)},
    draw(17, 2, 13, 5),
    alpha=16.0,
    leaves="x",
    cause="wrong term",
)
def adapter_path_not_scaled(residuals, g):
    _, _, weight, down, up, _ = residuals
    d_params, _ = lora.vjp(residuals, g)
    return d_params, g @ weight.T + (g @ up.T) @ down.T


@plant(
    "tanh_mlp: tanh is applied once more to the hidden values",
    tanh_mlp,
    {
        "up": {"weight": draw(18, 5, 7), "bias": draw(19, 7)},
        "down": {"weight": draw(20, 7, 3), "bias": draw(21, 3)},
    },
    draw(22, 2, 3, 5),
    leaves="params.up.bias params.up.weight x",
    cause="wrong point",
)
def tanh_of_tanh(residuals, g):
    x, h, up, down = residuals
    d_a = (g @ down.T) * (1.0 - np.tanh(h) ** 2)
    d_up = {"weight": rows(x).T @ rows(d_a), "bias": rows(d_a).sum(axis=0)}
    d_down = {"weight": rows(h).T @ rows(g), "bias": rows(g).sum(axis=0)}
    return {"up": d_up, "down": d_down}, d_a @ up.T


@plant(
    "tied_autoencoder: the weight's use in the decoder is not counted",
    tied_autoencoder,
    {"weight": draw(23, 7, 3)},
    draw(24, 2, 5, 7),
    leaves="params.weight",
    cause="missing term",
)
def decoder_not_counted(residuals, g):
    x, h, weight = residuals
    _, d_x = tied_autoencoder.vjp(residuals, g)
    return {"weight": rows(x).T @ rows((g @ weight) * (1.0 - h * h))}, d_x


NORMED = {"direction": draw(1004, 5, 7), "gain": draw(1005, 7)}
INPUT = draw(1006, 2, 3, 5)
WEIGHT_NORM = (weight_norm, NORMED, INPUT)


@plant(
    "weight_norm: the norm of the direction is taken for a constant",
    *WEIGHT_NORM,
    leaves="params.direction",
    cause="missing term",
)
def norm_is_a_constant(residuals, g):
    x, _, norm, gain = residuals
    d_params, d_x = weight_norm.vjp(residuals, g)
    return d_params | {"direction": rows(x).T @ rows(g) * gain / norm}, d_x


@plant(
    "weight_norm: the projection is not summed over the column",
    *WEIGHT_NORM,
    leaves="params.direction",
    cause="missing sum",
)
def projection_not_summed(residuals, g):
    x, unit, norm, gain = residuals
    d_params, d_x = weight_norm.vjp(residuals, g)
    d_unit = rows(x).T @ rows(g) * gain
    return d_params | {"direction": (d_unit - unit * (d_unit * unit)) / norm}, d_x


@plant(
    "weight_norm: the gain's gradient comes from what is multiplied with the gain already",
    *WEIGHT_NORM,
    leaves="params.gain",
    cause="extra factor",
    says=("gain",),
)
def gain_twice(residuals, g):
    x, unit, _, gain = residuals
    d_params, d_x = weight_norm.vjp(residuals, g)
    d_unit = (rows(x).T @ rows(g)) * gain
    return d_params | {"gain": (d_unit * unit).sum(axis=0)}, d_x


MLP = {"up": draw(1007, 5, 7), "up_bias": draw(1008, 7), "down": draw(1009, 7, 3)}


def with_slope(residuals, g, slope):
    """Return the gradients of the network, given the slope of its gelu."""
    x, _, _, h, up, down = residuals
    d_a = (g @ down.T) * slope
    d_params = {
        "up": rows(x).T @ rows(d_a),
        "up_bias": rows(d_a).sum(axis=0),
        "down": rows(h).T @ rows(g),
    }
    return d_params, d_a @ up.T


GELU_MLP = (gelu_mlp, MLP, INPUT)


@plant(
    "gelu_mlp: the three of the cube's derivative is forgotten",
    *GELU_MLP,
    leaves="params.up params.up_bias x",
    cause="wrong term",
)
def three_forgotten(residuals, g):
    _, a, t, *_ = residuals
    d_inner = GELU_INNER * (1.0 + GELU_CUBE * a * a)
    return with_slope(residuals, g, 0.5 * (1.0 + t) + 0.5 * a * (1.0 - t * t) * d_inner)


@plant(
    "gelu_mlp: the slope is taken at the activation",
    *GELU_MLP,
    leaves="params.up params.up_bias x",
    cause="wrong point",
)
def slope_at_the_activation(residuals, g):
    h = residuals[3]
    t = np.tanh(GELU_INNER * (h + GELU_CUBE * h * h * h))
    d_inner = GELU_INNER * (1.0 + 3.0 * GELU_CUBE * h * h)
    return with_slope(residuals, g, 0.5 * (1.0 + t) + 0.5 * h * (1.0 - t * t) * d_inner)


BRANCH = {"weight": draw(1010, 5, 5), "gamma": draw(1011, 5)}
LAYER_SCALE = (layer_scale, BRANCH, INPUT)


@plant(
    "layer_scale: the skip's cotangent is added twice", *LAYER_SCALE, leaves="x", cause="wrong term"
)
def skip_twice(residuals, g):
    x, t, weight, gamma = residuals
    d_a = g * gamma * (1.0 - t * t)
    d_x = g.copy()
    d_x += g + d_a @ weight.T
    return {"weight": rows(x).T @ rows(d_a), "gamma": rows(g * t).sum(axis=0)}, d_x


@plant(
    "layer_scale: gamma is left out on the way to the weight",
    *LAYER_SCALE,
    leaves="params.weight",
    cause="missing factor",
    says=("gamma",),
)
def weight_without_gamma(residuals, g):
    x, t, weight, gamma = residuals
    slope = 1.0 - t * t
    d_weight = rows(x).T @ rows(g * slope)
    d_x = g + (g * gamma * slope) @ weight.T
    return {"weight": d_weight, "gamma": rows(g * t).sum(axis=0)}, d_x


FORM = {"weight": draw(1104, 5, 5, 3)}
PAIR = Pair(draw(1105, 2, 7, 5), draw(1106, 2, 7, 5))
BILINEAR = (bilinear, FORM, PAIR)


@plant(
    "bilinear: the cotangents of a and b are exchanged",
    *BILINEAR,
    leaves="x.a x.b",
    cause="swapped",
)
def exchanged(residuals, g):
    d_params, d_x = bilinear.vjp(residuals, g)
    return d_params, Pair(d_x.b, d_x.a)


@plant(
    "bilinear: the outer product of b and a", *BILINEAR, leaves="params.weight", cause="transposed"
)
def outer_product_of_b_and_a(residuals, g):
    a, b, _ = residuals
    _, d_x = bilinear.vjp(residuals, g)
    return {"weight": np.einsum("ni,nj,nk->ijk", rows(b), rows(a), rows(g))}, d_x


@plant(
    "bilinear: b sees the matrix from the same side as a",
    *BILINEAR,
    leaves="x.b",
    cause="jacobian not transposed",
)
def same_side(residuals, g):
    a, _, weight = residuals
    d_params, d_x = bilinear.vjp(residuals, g)
    return d_params, d_x._replace(b=np.einsum("...k,ijk,...j->...i", g, weight, a))


KERNEL = {"weight": draw(1402, 4, 7)}
IMAGES = draw(1403, 3, 6, 10)
PATCH_EMBEDDING = (patch_embedding, KERNEL, IMAGES)


@plant(
    "patch_embedding: the tiles are laid out without exchanging rows and tiles back",
    *PATCH_EMBEDDING,
    size=2,
    leaves="x",
    cause="misplaced",
)
def tiles_not_exchanged_back(residuals, g):
    _, weight, _, shape = residuals
    d_params, _ = patch_embedding.vjp(residuals, g)
    return d_params, (g @ weight.T).reshape(shape)


@plant(
    "patch_embedding: the weight's gradient is (out, in), as PyTorch stores it",
    *PATCH_EMBEDDING,
    size=2,
    leaves="params.weight",
    cause="transposed",
)
def out_in(residuals, g):
    _, d_x = patch_embedding.vjp(residuals, g)
    return {"weight": rows(g).T @ rows(residuals[0])}, d_x


OUTER = {"weight": draw(1404, 15, 11)}
ROWS = Pair(draw(1405, 2, 7, 3), draw(1406, 2, 7, 5))
OUTER_PRODUCT_MEAN = (outer_product_mean, OUTER, ROWS)


@plant(
    "outer_product_mean: only b gets the one over the number of rows",
    *OUTER_PRODUCT_MEAN,
    leaves="x.a",
    cause="constant factor",
)
def only_b_gets_the_mean(residuals, g):
    a, b, flat, weight = residuals
    S = a.shape[1]
    d_outer = (g @ weight.T).reshape(len(a), a.shape[2], b.shape[2])
    d_a = np.einsum("bce,bse->bsc", d_outer, b)
    d_b = np.einsum("bce,bsc->bse", d_outer, a) / S
    return {"weight": flat.T @ g}, Pair(d_a, d_b)


@plant(
    "outer_product_mean: the flat weight gradient has the channels of b first",
    *OUTER_PRODUCT_MEAN,
    leaves="params.weight",
    cause="misplaced",
)
def channels_of_b_first(residuals, g):
    a, b, _, weight = residuals
    _, d_x = outer_product_mean.vjp(residuals, g)
    flat = (np.einsum("bse,bsc->bec", b, a) / a.shape[1]).reshape(len(a), len(weight))
    return {"weight": flat.T @ g}, d_x
