"""Tables of tokens, patches of images, outer products."""

import numpy as np

from functional_lm.numerics import rows

from ..bug import Bug, draw, plant
from ..research_layers import Pair
from ..research_losses import embedding_bag, outer_product_mean, patch_embedding

BUGS: list[Bug] = []

WEIGHT = {"weight": draw(1401, 7, 5)}
TOKENS = np.array([[3, 1, 0, 0], [6, 2, 3, 0], [5, 5, 4, 1]])


@plant(
    BUGS,
    "embedding_bag: the padding's row learns",
    embedding_bag,
    WEIGHT,
    TOKENS,
    padding=0,
    leaves=("params.weight",),
    cause="mask leak",
)
def padding_learns(residuals, g):
    x, _, count, weight = residuals
    d_weight = np.zeros_like(weight)
    np.add.at(d_weight, x, (g / count)[:, None])
    return {"weight": d_weight}, None


@plant(
    BUGS,
    "embedding_bag: the tokens get zeros in the dtype of g",
    embedding_bag,
    WEIGHT,
    TOKENS,
    padding=0,
    leaves=("x",),
    cause="integer cotangent",
)
def zeros_like_g(residuals, g):
    x, kept, count, weight = residuals
    d_weight = np.zeros_like(weight)
    np.add.at(d_weight, x, kept * (g / count)[:, None])
    return {"weight": d_weight}, np.zeros(x.shape, g.dtype)


KERNEL = {"weight": draw(1402, 4, 7)}
IMAGES = draw(1403, 3, 6, 10)


@plant(
    BUGS,
    "patch_embedding: the tiles are laid out without exchanging rows and tiles back",
    patch_embedding,
    KERNEL,
    IMAGES,
    size=2,
    leaves=("x",),
    cause="misplaced",
)
def tiles_not_exchanged_back(residuals, g):
    patches, weight, _, shape = residuals
    d_x = (g @ weight.T).reshape(shape)
    return {"weight": rows(patches).T @ rows(g)}, d_x


@plant(
    BUGS,
    "patch_embedding: the weight's gradient is (out, in), as PyTorch stores it",
    patch_embedding,
    KERNEL,
    IMAGES,
    size=2,
    leaves=("params.weight",),
    cause="transposed",
)
def out_in(residuals, g):
    patches, weight, tiles, shape = residuals
    d_x = (g @ weight.T).reshape(tiles).swapaxes(2, 3).reshape(shape)
    return {"weight": rows(g).T @ rows(patches)}, d_x


OUTER = {"weight": draw(1404, 15, 11)}
ROWS = Pair(draw(1405, 2, 7, 3), draw(1406, 2, 7, 5))


@plant(
    BUGS,
    "outer_product_mean: only b gets the one over the number of rows",
    outer_product_mean,
    OUTER,
    ROWS,
    leaves=("x.a",),
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
    BUGS,
    "outer_product_mean: the flat weight gradient has the channels of b first",
    outer_product_mean,
    OUTER,
    ROWS,
    leaves=("params.weight",),
    cause="misplaced",
)
def channels_of_b_first(residuals, g):
    a, b, _, weight = residuals
    S = a.shape[1]
    d_outer = (g @ weight.T).reshape(len(a), a.shape[2], b.shape[2]) / S
    flat = (np.einsum("bse,bsc->bec", b, a) / S).reshape(len(a), len(weight))
    d_a = np.einsum("bce,bse->bsc", d_outer, b)
    d_b = np.einsum("bce,bsc->bse", d_outer, a)
    return {"weight": flat.T @ g}, Pair(d_a, d_b)
