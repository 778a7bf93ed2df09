"""Statistics of a model while it trains: its gradients, its updates, what goes on inside.

What `diagnose` reads and what a picture of a run shows. They cost a forward of some windows and
three norms of each leaf, so that a run can afford them every hundred steps. In a notebook::

    def inspect(step, params, grads, updates):
        tokens, _ = experiment.batch_at(step - 1)
        return statistics_of(experiment.objective, params, grads, updates, tokens)

All are plain floats of six digits; one that is not finite is None, as in a file of metrics.
"""

import dataclasses
import math
from collections.abc import Iterator
from typing import Any, TypeAlias

import numpy as np

from .. import pytree
from ..contract import Array, Tree
from ..layers import rms_norm, rotary_attention
from ..models import backbone, transformer
from ..speed.entrywise import global_norm
from ..speed.threads import one_thread
from .objective import Objective

Statistics: TypeAlias = dict[str, dict[str, float | None]]
"""``{"grad_norm": {leaf: figure}, ...}``; see `leaf_statistics` and `activation_statistics`."""

ENOUGH, LONGEST = 512, 1024
"""As many windows are looked at as hold so many tokens, and the second so many tokens of each."""

DEAD = 1e-4
"""A unit is dead whose largest entry is at most this much of the layer's root mean square: what
it adds is lost among the others, and so is the gradient of its weights."""


def statistics_of(
    objective: Objective, params: Tree, grads: Tree, updates: Tree, tokens: Array
) -> Statistics:
    """Return all statistics of an update; see `leaf_statistics` and `activation_statistics`.

    Args:
        objective: the model.
        params: before the update.
        grads: the gradient, before clipping.
        updates: what was added to the params.
        tokens: (B, T), such as those of the batch.
    """
    leaves = leaf_statistics(params, grads, updates)
    return leaves | activation_statistics(objective, params, tokens)


def leaf_statistics(params: Tree, grads: Tree, updates: Tree) -> Statistics:
    """Return two figures of each leaf, by its name.

    ``grad_norm`` is the Euclidean norm of the gradient. ``update_ratio`` is the norm of the update
    over that of the leaf before it: about the angle, in radians, that a step turns the weights
    by. For a leaf of zeros it is 0.0 if the update is zero too, else None.

    Raises:
        ValueError: naming the path at which the trees differ in structure.
    """
    norms, ratios = {}, {}
    triples = zip(pytree.zip_with_path(params, grads), pytree.leaves(updates), strict=True)
    for (path, leaf, gradient), update in triples:
        norms[path] = _figure(global_norm(gradient))
        size, moved = global_norm(leaf), global_norm(update)
        ratios[path] = _figure(moved / size if size else math.inf if moved else 0.0)
    return {"grad_norm": norms, "update_ratio": ratios}


def activation_statistics(objective: Objective, params: Tree, tokens: Array) -> Statistics:
    """Return figures of the activations in a forward pass without dropout.

    ``activation_mean`` and ``activation_std``
        over all entries at a site. Of the transformer: ``embedding`` and ``blocks.0`` are the
        residual stream after it, ``blocks.0.mlp`` are the hidden units.
    ``zero_share``
        the share of a layer's hidden units that are dead: near zero for every token, see `DEAD`.
        SwiGLU's units are hardly ever zero, so that it is 0.0 in a healthy transformer.
    ``attention_entropy``
        of each block, in nats: the mean over heads and queries of −Σ p·ln p over the keys, so
        that its exponential is about the number of keys that a query attends to.
    ``attention_uniform``
        what it would be if every query attended to all keys that it sees alike: ln(T!)/T, against
        which it can be judged whatever the length of a window.

    Of a model of somebody's own, the sites are the arrays in its residuals that have a row for
    each token, by their path; there is no entropy, and no dead unit is told from a rare one unless
    it is zero for every token.

    Args:
        objective: the model.
        params: its parameters.
        tokens: (B, T), of which the first are looked at; see `ENOUGH`.
    """
    tokens = tokens[:, :LONGEST]
    tokens = tokens[: -(-ENOUGH // tokens.shape[1])]
    with one_thread():  # the products are too small for the threads of BLAS, which would wait
        return _activations(objective, params, tokens)


def _activations(objective: Objective, params: Tree, tokens: Array) -> Statistics:
    found: Statistics = {"activation_mean": {}, "activation_std": {}, "zero_share": {}}
    # A model that has come to grief overflows; its figures are None.
    with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
        if objective.model is not transformer:
            _, residuals = objective.logits(params, tokens)
            for path, leaf in _token_rows(residuals, params, tokens.shape):
                _describe(found, path, leaf)
                found["zero_share"][path] = _figure(_zero_units(leaf))
            return found
        residuals = _residuals(objective, params, tokens)
        for name, stream in _streams(residuals):
            _describe(found, name, stream)
        hidden = {f"blocks.{i}.mlp": block.mlp.hidden for i, block in enumerate(residuals.blocks)}
        scale = math.sqrt(sum(map(_mean_square, hidden.values())) / len(hidden))
        for name, units in hidden.items():
            _describe(found, name, units)
            found["zero_share"][name] = _figure(_zero_units(units, DEAD * scale))
        entropies = [_entropy(block.attention.attention) for block in residuals.blocks]
    blocks = [f"blocks.{i}" for i in range(len(entropies))]
    found["attention_entropy"] = dict(zip(blocks, map(_figure, entropies), strict=True))
    uniform = math.lgamma(tokens.shape[1] + 1) / tokens.shape[1]
    found["attention_uniform"] = dict.fromkeys(blocks, _figure(uniform))
    return found


def _figure(value: float) -> float | None:
    return float(f"{value:.6g}") if math.isfinite(value) else None


def _describe(found: Statistics, site: str, x: Array) -> None:
    found["activation_mean"][site] = _figure(float(x.mean(dtype=np.float64)))
    found["activation_std"][site] = _figure(float(x.std(dtype=np.float64)))


def _mean_square(x: Array) -> float:
    return float(np.square(x, dtype=np.float64).mean())


def _zero_units(x: Array, limit: float = 0.0) -> float:
    """Return the share of the last axis that is at most that large in every row; NaN if any is."""
    largest = np.abs(x).reshape(-1, x.shape[-1]).max(axis=0)
    return float(np.where(np.isnan(largest), math.nan, largest <= limit).mean())


def _residuals(objective: Objective, params: Tree, tokens: Array) -> backbone.Residuals:
    """Run the backbone so that it keeps everything: no block forgets, no attention is tiled."""
    config = dataclasses.replace(objective.config, remat=False, attention="materialised")
    body, _ = transformer.split_head(params, config)
    _, residuals = backbone.forward(body, tokens, config=config)
    return residuals


def _streams(residuals: backbone.Residuals) -> Iterator[tuple[str, Array]]:
    """Yield the residual stream after the embedding and after each block: what a norm was given."""
    norms: list[rms_norm.Residuals] = [block.norm1 for block in residuals.blocks]
    norms.append(residuals.norm)
    for i, norm in enumerate(norms):
        yield f"blocks.{i - 1}" if i else "embedding", norm.x_hat / norm.rstd


def _entropy(residuals: rotary_attention.Residuals) -> float:
    """Return the mean entropy of the rows of P = E/Z, in nats."""
    B, T, H, _ = residuals.y.shape
    G = residuals.v.shape[2]
    reciprocal = residuals.reciprocal.reshape(B, T, G, H // G, 1).transpose(0, 2, 3, 1, 4)
    total, start = 0.0, 0
    for exponentials in residuals.weights:  # (B, G, R, rows, keys), for some rows after others
        stop = start + exponentials.shape[-2]
        probs = exponentials * reciprocal[..., start:stop, :]
        logs = np.log(np.where(probs == 0, 1.0, probs))  # p·ln p is zero at p = 0
        total -= float(np.vdot(probs, logs))
        start = stop
    return total / (B * H * T)


def _token_rows(residuals: Any, params: Tree, shape: tuple[int, ...]) -> list[tuple[str, Array]]:
    """Return the arrays of a stranger's residuals that have a row of numbers for each token."""
    try:
        leaves = pytree.leaves_with_path(residuals)
    except TypeError:  # whatever a model keeps between forward and vjp is its own affair
        return []
    weights, seen, found = pytree.leaves(params), set(), []
    for path, leaf in leaves:
        rows = leaf.shape[:2] == shape or (leaf.ndim == 2 and len(leaf) == math.prod(shape))
        if not rows or leaf.ndim < 2 or leaf.shape[-1] < 2 or leaf.dtype.kind != "f":
            continue
        place = (leaf.ctypes.data, leaf.shape, leaf.strides)  # two layers may keep one array
        if place not in seen and not any(np.may_share_memory(leaf, one) for one in weights):
            seen.add(place)
            found.append((path, leaf))
    return found
