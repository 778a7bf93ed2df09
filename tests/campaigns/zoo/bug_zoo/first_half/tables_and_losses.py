"""What is looked up or chosen, and what ends in one number."""

import numpy as np
from functional_lm.reference.layers import embedding as embedding_twin
from functional_lm.reference.losses import cross_entropy as cross_entropy_twin

from functional_lm.layers import embedding
from functional_lm.losses import cross_entropy
from functional_lm.numerics import rows, segment_sum, softmax

from ..bug import Bug, draw, plant
from ..research_sequences import mse, position_embedding, top1_gate

BUGS: list[Bug] = []

TABLES = {"tokens": draw(501, 5, 3), "positions": draw(502, 13, 3)}
TOKENS = np.random.default_rng(503).integers(0, 5, (2, 7))


@plant(
    BUGS,
    "position_embedding: += with an index array counts a repeated token once",
    position_embedding,
    TABLES,
    TOKENS,
    leaves=("params.tokens",),
    cause="scatter",
)
def repeated_token_counts_once(residuals, g):
    x, tokens, positions = residuals
    d_tokens = np.zeros_like(tokens)
    d_tokens[x] += g
    d_positions = np.zeros_like(positions)
    d_positions[: x.shape[1]] = g.sum(axis=0)
    return {"tokens": d_tokens, "positions": d_positions}, None


@plant(
    BUGS,
    "position_embedding: the gradient of the positions is allocated and not filled",
    position_embedding,
    TABLES,
    TOKENS,
    leaves=("params.positions",),
    cause="never written",
)
def positions_not_filled(residuals, g):
    x, tokens, positions = residuals
    d_tokens = np.zeros_like(tokens)
    d_positions = np.zeros_like(positions)
    np.add.at(d_tokens, x, g)
    return {"tokens": d_tokens, "positions": d_positions}, None


@plant(
    BUGS,
    "embedding: tokens get a gradient of zeros",
    embedding,
    {"weight": draw(504, 11, 5)},
    np.random.default_rng(505).integers(0, 11, (2, 3)),
    reference=embedding_twin,
    leaves=("x",),
    cause="integer cotangent",
)
def zeros_for_tokens(residuals, g):
    tokens, weight = residuals
    d_weight = segment_sum(rows(g), tokens.reshape(-1), len(weight))
    return {"weight": d_weight}, np.zeros_like(tokens)


EXPERTS = {"router": draw(506, 5, 3), "experts": draw(507, 3, 5, 7)}
ROWS = draw(508, 2, 13, 5)


def through_the_router(residuals, g):
    """Return the gradients of the logits and of the chosen experts' output."""
    _, probs, chosen, gate, out, _, _ = residuals
    d_gate = (g * out).sum(axis=1, keepdims=True)
    one_hot = (chosen[:, None] == np.arange(probs.shape[1])).astype(probs.dtype)
    return d_gate * gate * (one_hot - probs), g * gate


@plant(
    BUGS,
    "top1_gate: an expert keeps the last row that chose it",
    top1_gate,
    EXPERTS,
    ROWS,
    leaves=("params.experts",),
    cause="scatter",
)
def last_row_of_an_expert(residuals, g):
    x, _, chosen, _, _, router, experts = residuals
    flat = rows(x)
    d_logits, d_out = through_the_router(residuals, rows(g))
    d_experts = np.zeros_like(experts)
    for n, expert in enumerate(chosen):
        d_experts[expert] = np.outer(flat[n], d_out[n])
    d_x = np.einsum("nf,ndf->nd", d_out, experts[chosen]) + d_logits @ router.T
    return {"router": flat.T @ d_logits, "experts": d_experts}, d_x.reshape(x.shape)


@plant(
    BUGS,
    "top1_gate: the router gets no gradient",
    top1_gate,
    EXPERTS,
    ROWS,
    leaves=("params.router",),
    cause="never written",
)
def router_gets_nothing(residuals, g):
    x, _, chosen, _, _, router, experts = residuals
    flat = rows(x)
    d_logits, d_out = through_the_router(residuals, rows(g))
    d_params = {"router": np.zeros_like(router), "experts": np.zeros_like(experts)}
    np.add.at(d_params["experts"], chosen, flat[:, :, None] * d_out[:, None, :])
    d_x = np.einsum("nf,ndf->nd", d_out, experts[chosen]) + d_logits @ router.T
    return d_params, d_x.reshape(x.shape)


def keep_probs(params, x, *, targets, ignore_index=-100):
    loss, _ = cross_entropy.forward(params, x, targets=targets, ignore_index=ignore_index)
    return loss, (softmax(x), targets, ignore_index)


@plant(
    BUGS,
    "cross_entropy: ignored targets get the gradient of the normaliser",
    cross_entropy,
    {},
    draw(509, 7, 11),
    targets=np.array([3, -100, 10, 0, -100, 7, 3]),
    forward=keep_probs,
    reference=cross_entropy_twin,
    leaves=("x",),
    cause="mask leak",
)
def ignored_targets_get_a_gradient(residuals, g):
    probs, targets, ignore_index = residuals
    kept = np.flatnonzero(targets != ignore_index)
    d_x = probs.copy()
    d_x[kept, targets[kept]] -= 1.0
    return {}, g * d_x / max(len(kept), 1)


PREDICTIONS = draw(510, 3, 5)
TARGETS = draw(511, 3, 5)


@plant(
    BUGS,
    "mse: the loss is taken to be the last, so that g would be one",
    mse,
    {},
    PREDICTIONS,
    targets=TARGETS,
    leaves=("x",),
    cause="g ignored",
)
def g_would_be_one(difference, g):
    return {}, 2.0 * difference / difference.size


@plant(
    BUGS,
    "mse: the two of the square is forgotten",
    mse,
    {},
    PREDICTIONS,
    targets=TARGETS,
    leaves=("x",),
    cause="constant factor",
)
def two_forgotten(difference, g):
    return {}, g * difference / difference.size


@plant(
    BUGS,
    "mse: targets less predictions",
    mse,
    {},
    PREDICTIONS,
    targets=TARGETS,
    forward=lambda params, x, *, targets: (
        mse.forward({}, x, targets=targets)[0],
        targets.astype(x.dtype) - x,
    ),
    leaves=("x",),
    cause="sign",
)
def targets_less_predictions(error, g):
    return {}, g * (2.0 / error.size) * error
