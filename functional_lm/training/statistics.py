"""Statistics of a model while it trains: its gradients, its updates, its activations.

What `diagnose` reads and what a picture of a run shows. They cost a forward of some windows and
three norms of each leaf, so that a run can afford them every hundred steps. In a notebook::

    def inspect(step, params, grads, updates, tokens):
        return statistics_of(experiment.model, params, grads, updates, tokens)

All are plain floats of six digits; one that is not finite is None, as in a file of metrics.
"""

import math
from collections.abc import Iterable
from typing import Any, TypeAlias

import numpy as np

from .. import pytree
from ..contract import Array, Tree
from ..models import LanguageModel
from ..speed.entrywise import global_norm
from ..speed.threads import one_thread

Statistics: TypeAlias = dict[str, dict[str, float | None]]
"""``{"grad_norm": {leaf: figure}, ...}``; see `leaf_statistics` and `activation_statistics`."""

ENOUGH, LONGEST = 512, 1024
"""As many windows are looked at as hold so many tokens, and the second so many tokens of each."""

DEAD = 1e-4
"""A unit is dead whose largest entry is at most this much of the layer's root mean square: what
it adds is lost among the others, and so is the gradient of its weights."""


def statistics_of(
    model: LanguageModel, params: Tree, grads: Tree, updates: Tree, tokens: Array
) -> Statistics:
    """Return all statistics of an update; see `leaf_statistics` and `activation_statistics`.

    Args:
        model: the language model.
        params: before the update.
        grads: the gradient, before clipping.
        updates: what was added to the params.
        tokens: (B, T), such as those of the batch.
    """
    leaves = leaf_statistics(params, grads, updates)
    return leaves | activation_statistics(model, params, tokens)


def leaf_statistics(params: Tree, grads: Tree, updates: Tree) -> Statistics:
    """Return two figures of each leaf, by its name.

    ``grad_norm`` is the Euclidean norm of the gradient. ``update_ratio`` is the norm of the update
    over that of the leaf before it: about the angle, in radians, that a step turns the weights
    by. For a leaf of zeros it is 0.0 if the update is zero too, else None. Frozen leaves, with None
    for a gradient, are left out.

    Raises:
        ValueError: naming the path at which the trees differ in structure.
    """
    norms, ratios = {}, {}
    triples = pytree.zip_with_path(params, grads), pytree.zip_with_path(params, updates)
    for (path, leaf, gradient), (_, _, update) in zip(*triples, strict=True):
        if gradient is None:
            continue
        norms[path] = _figure(global_norm(gradient))
        size, moved = global_norm(leaf), global_norm(update)
        ratios[path] = _figure(moved / size if size else math.inf if moved else 0.0)
    return {"grad_norm": norms, "update_ratio": ratios}


def activation_statistics(model: LanguageModel, params: Tree, tokens: Array) -> Statistics:
    """Return figures of the activations in a forward pass without dropout.

    ``activation_mean`` and ``activation_std``
        over all entries at a site: ``embedding`` and ``blocks.0`` are the residual stream after
        it, ``blocks.0.mlp`` are the hidden units of a feed-forward layer.
    ``zero_share``
        the share of a layer's hidden units that are dead: near zero for every token, see `DEAD`.
    ``attention_entropy``
        of each block, in nats: the mean over heads and queries of −Σ p·ln p over the keys, so
        that its exponential is about the number of keys that a query attends to.
    ``expert_share``
        the share of the choices of a mixture of experts that fell on each, such as
        ``blocks.0.mlp.3``: 1/E where all are used alike.
    ``attention_uniform``
        what it would be if every query attended to all keys that it sees alike: ln(T!)/T, against
        which it can be judged whatever the length of a window.

    Of a custom model, the sites are the arrays in its residuals that have a row for each token, by
    their path; it has no entropy, and a unit is dead only if it is zero for every token.

    Args:
        model: the language model.
        params: its parameters.
        tokens: (B, T), of which the first are looked at; see `ENOUGH`.
    """
    tokens = tokens[:, :LONGEST]
    tokens = tokens[: -(-ENOUGH // tokens.shape[1])]
    # Diverged models overflow; their figures are None. The products are too small for the threads
    # of BLAS, which would wait.
    with one_thread(), np.errstate(over="ignore", divide="ignore", invalid="ignore"):
        activations = model.activations(params, tokens)
        if activations is None:
            return _of_residuals(model, params, tokens)
        return _of_activations(activations)


def _of_activations(activations: Iterable[tuple[str, str, Array]]) -> Statistics:
    found: Statistics = {"activation_mean": {}, "activation_std": {}, "zero_share": {}}
    entropies: dict[str, float | None] = {}
    uniform: dict[str, float | None] = {}
    experts: dict[str, float | None] = {}
    hidden: dict[str, tuple[Array, float]] = {}
    for kind, site, array in activations:
        if kind == "attention":
            entropies[site] = _figure(_entropy(array))
            T, S = array.shape[-2:]  # a prefix has S − T more keys, which all queries see
            uniform[site] = _figure((math.lgamma(S + 1) - math.lgamma(S - T + 1)) / T)
            continue
        if kind == "experts":
            experts |= {f"{site}.{e}": _figure(float(share)) for e, share in enumerate(array)}
            continue
        _describe(found, site, array)
        if kind == "hidden":
            largest = np.abs(array).reshape(-1, array.shape[-1]).max(axis=0)
            hidden[site] = largest, float(np.square(array, dtype=np.float64).mean())
    scale = math.sqrt(sum(square for _, square in hidden.values()) / max(len(hidden), 1))
    for site, (largest, _) in hidden.items():
        found["zero_share"][site] = _figure(_share(largest, DEAD * scale))
    if experts:
        found["expert_share"] = experts
    if entropies:
        found |= {"attention_entropy": entropies, "attention_uniform": uniform}
    return found


def _of_residuals(model: LanguageModel, params: Tree, tokens: Array) -> Statistics:
    found: Statistics = {"activation_mean": {}, "activation_std": {}, "zero_share": {}}
    _, residuals = model.logits(params, tokens)
    for path, leaf in _token_rows(residuals, params, tokens.shape):
        _describe(found, path, leaf)
        largest = np.abs(leaf).reshape(-1, leaf.shape[-1]).max(axis=0)
        found["zero_share"][path] = _figure(_share(largest, 0.0))
    return found


def _figure(value: float) -> float | None:
    return float(f"{value:.6g}") if math.isfinite(value) else None


def _describe(found: Statistics, site: str, x: Array) -> None:
    found["activation_mean"][site] = _figure(float(x.mean(dtype=np.float64)))
    found["activation_std"][site] = _figure(float(x.std(dtype=np.float64)))


def _share(largest: Array, limit: float) -> float:
    """Return the share of units whose largest entry is at most the limit; NaN if any is."""
    return float(np.where(np.isnan(largest), math.nan, largest <= limit).mean())


def _entropy(probs: Array) -> float:
    """Return the mean entropy of the rows of attention weights (B, H, T, S), in nats."""
    logs = np.log(np.where(probs == 0, 1.0, probs))  # p·ln p is zero at p = 0
    return -float(np.vdot(probs, logs)) / math.prod(probs.shape[:3])


def _token_rows(residuals: Any, params: Tree, shape: tuple[int, ...]) -> list[tuple[str, Array]]:
    """Return the arrays of a custom model's residuals that have a row of numbers for each token."""
    try:
        leaves = pytree.leaves_with_path(residuals)
    except TypeError:  # a custom model may keep anything
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
