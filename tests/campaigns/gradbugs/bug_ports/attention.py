"""Attention."""

import numpy as np

from .port import Inputs, Port, d_softmax, draw, in_memory_order, log_sum_exp, softmax


def qkv(queries=5, keys=5, heads=2, groups=None):
    """Return q (B, H, T, K), k and v (B, G, S, K)."""
    shapes = {"q": (heads, queries), "k": (groups or heads, keys), "v": (groups or heads, keys)}
    return {name: draw(100 + i, 2, *shapes[name], 3) for i, name in enumerate(shapes)}


def swap(a):
    """Exchange the last two axes."""
    return a.swapaxes(-1, -2)


def visible(xp, scores, offset=0):
    """Hide the keys that lie more than ``offset`` behind the query."""
    queries, keys = scores.shape[-2:]
    return xp.where(np.tri(queries, keys, offset, dtype=bool), scores, -1e30)


def attend(xp, x, mask=lambda xp, scores: scores):
    """Return softmax(mask(q·kᵀ))·v and the probabilities."""
    probs = softmax(xp, mask(xp, x["q"] @ swap(x["k"])))
    return probs @ x["v"], probs


def d_scores_to_qk(x, d_scores):
    """Return the cotangents of q and k."""
    return {"q": d_scores @ x["k"], "k": swap(d_scores) @ x["q"]}


class AlwaysCausal(Port):
    """The backward masks the future whether the forward did or not."""

    thread = "triton-lang/triton 4541"
    causes = {"x.q": "extra mask", "x.k": "extra mask", "x.v": "extra mask"}
    near = ("mask leak", "slice kept")
    fixture = "Causal attention (thread)."
    awkward = Inputs({}, qkv(), {"causal": False})
    friendly = Inputs({}, qkv(), {"causal": True})

    def value(xp, p, x, causal):
        return attend(xp, x, visible if causal else lambda xp, scores: scores)[0]

    def backward(p, x, g, wrong, causal):
        _, probs = attend(np, x, visible if causal else lambda xp, scores: scores)
        delta = (g * (probs @ x["v"])).sum(axis=-1, keepdims=True)
        if wrong:  # the sums of the forward are kept
            probs = np.tril(probs)
        d_scores = probs * (g @ swap(x["v"]) - delta)
        return {}, {"v": swap(probs) @ g} | d_scores_to_qk(x, d_scores)


class NeverCausal(Port):
    """The backward computes the probabilities again without the causal mask."""

    thread = "triton-lang/triton 7216"
    causes = {"x.q": "mask leak", "x.k": "mask leak", "x.v": "mask leak"}
    fixture = "Attention without a mask hides it; the mask is missing according to a reply."
    awkward = Inputs({}, qkv(), {"causal": True})
    friendly = Inputs({}, qkv(), {"causal": False})

    def value(xp, p, x, causal):
        return attend(xp, x, visible if causal else lambda xp, scores: scores)[0]

    def backward(p, x, g, wrong, causal):
        scores = x["q"] @ swap(x["k"])
        seen = visible(np, scores) if causal else scores
        total = log_sum_exp(np, seen)[..., None]
        probs = np.exp((scores if wrong else seen) - total)
        delta = (g * (np.exp(seen - total) @ x["v"])).sum(axis=-1, keepdims=True)
        d_scores = probs * (g @ swap(x["v"]) - delta)
        return {}, {"v": swap(probs) @ g} | d_scores_to_qk(x, d_scores)


class OtherCorner(Port):
    """The causal mask ends at the lower right corner, in the backward at the upper left."""

    thread = "xlite-dev/ffpa-attn 300"
    causes = {"x.q": "extra mask", "x.k": "extra mask", "x.v": "extra mask"}
    near = ("mask leak",)
    fixture = "As many queries as keys (thread)."
    awkward = Inputs({}, qkv(queries=3, keys=5))
    friendly = Inputs({}, qkv())

    def value(xp, p, x):
        offset = x["k"].shape[-2] - x["q"].shape[-2]
        return attend(xp, x, lambda xp, scores: visible(xp, scores, offset))[0]

    def backward(p, x, g, wrong):
        offset = x["k"].shape[-2] - x["q"].shape[-2]
        y, probs = attend(np, x, lambda xp, scores: visible(xp, scores, offset))
        delta = (g * y).sum(axis=-1, keepdims=True)
        if wrong:
            probs = np.tril(probs)
        d_scores = probs * (g @ swap(x["v"]) - delta)
        return {}, {"v": swap(probs) @ g} | d_scores_to_qk(x, d_scores)


class GroupedQueries(Port):
    """The keys' and values' gradients keep the axis of the query heads that share them."""

    thread = "marin-community/levanter 449"
    causes = {"x.k": "missing sum", "x.v": "missing sum"}
    near = ("structure",)
    fixture = "One query head for each key head hides it; the backward was not tested (thread)."
    awkward = Inputs({}, qkv(heads=6, groups=2))
    friendly = Inputs({}, qkv(heads=2, groups=2))

    def value(xp, p, x):
        repeat = x["q"].shape[1] // x["k"].shape[1]
        return attend(xp, x | {name: xp.repeat(x[name], repeat, 1) for name in "kv"})[0]

    def backward(p, x, g, wrong):
        groups = x["k"].shape[1]
        repeat = x["q"].shape[1] // groups
        spread = x | {name: np.repeat(x[name], repeat, 1) for name in "kv"}
        _, probs = attend(np, spread)
        d_scores = d_softmax(probs, g @ swap(spread["v"]))
        d_x = {"v": swap(probs) @ g} | d_scores_to_qk(spread, d_scores)
        for name in () if wrong else "kv":
            batch, _, keys, size = d_x[name].shape
            d_x[name] = d_x[name].reshape(batch, groups, repeat, keys, size).sum(axis=2)
        return {}, d_x


class StridesOfTheOutput(Port):
    """g is read with the strides of the output."""

    thread = "Dao-AILab/flash-attention 355"
    causes = {"": "layout"}
    fixture = "Contiguous cotangents (thread)."
    awkward = Inputs({}, qkv())
    friendly = awkward

    def value(xp, p, x):
        return attend(xp, x)[0]

    def backward(p, x, g, wrong):
        if wrong:
            g = in_memory_order(g)
        _, probs = attend(np, x)
        d_scores = d_softmax(probs, g @ swap(x["v"]))
        return {}, {"v": swap(probs) @ g} | d_scores_to_qk(x, d_scores)


class LogSumExp(Port):
    """The second output, log Σ exp of the scores, sends nothing back."""

    thread = "Dao-AILab/flash-attention 1817"
    causes = {"x.q": "missing term", "x.k": "missing term"}
    near = ("g ignored",)
    fixture = "A loss of the first output alone (thread)."
    awkward = Inputs({}, qkv())
    friendly = Inputs({}, qkv(), {}, (draw(110, 2, 2, 5, 3), np.zeros((2, 2, 5))))

    def value(xp, p, x):
        return attend(xp, x)[0], log_sum_exp(xp, x["q"] @ swap(x["k"]))

    def backward(p, x, g, wrong):
        _, probs = attend(np, x)
        d_scores = d_softmax(probs, g[0] @ swap(x["v"]))
        if not wrong:
            d_scores = d_scores + probs * g[1][..., None]
        return {}, {"v": swap(probs) @ g[0]} | d_scores_to_qk(x, d_scores)


class Sink(Port):
    """A learnable sink, one more score for each head, gets no gradient."""

    thread = "Dao-AILab/flash-attention 1973"
    causes = {"params.sink": "never written"}
    awkward = Inputs({"sink": draw(111, 2)}, qkv())

    def value(xp, p, x):
        scores = x["q"] @ swap(x["k"])
        sink = p["sink"][:, None, None] + 0 * scores[..., :1]
        return softmax(xp, xp.concatenate([scores, sink], -1))[..., :-1] @ x["v"]

    def backward(p, x, g, wrong):
        scores = x["q"] @ swap(x["k"])
        sink = np.broadcast_to(p["sink"][:, None, None], (*scores.shape[:-1], 1))
        probs = softmax(np, np.concatenate([scores, sink], -1))
        d_probs = np.concatenate([g @ swap(x["v"]), np.zeros_like(sink)], -1)
        d_scores = d_softmax(probs, d_probs)
        d_sink = np.zeros_like(p["sink"]) if wrong else d_scores[..., -1].sum(axis=(0, 2))
        d_x = {"v": swap(probs[..., :-1]) @ g} | d_scores_to_qk(x, d_scores[..., :-1])
        return {"sink": d_sink}, d_x


class Dropout(Port):
    """The softmax's backward takes the probabilities after dropout, and g before it."""

    thread = "aws-neuron/nki-samples 81"
    # p∘k∘(d − Σ p∘k∘d) for p∘(k∘d − Σ p∘k∘d): the sum's term has the mask k once too often.
    causes = {"x.q": "extra factor", "x.k": "extra factor"}
    near = ("wrong term", "misread", "missing factor")
    fixture = "Attention without dropout hides it; the thread names no test."
    keep = np.random.default_rng(112).random((2, 2, 5, 5)) < 0.7
    awkward = Inputs({}, qkv(), {"kept": keep / 0.7})
    friendly = Inputs({}, qkv(), {"kept": np.ones(keep.shape)})

    def value(xp, p, x, kept):
        return (attend(xp, x)[1] * kept) @ x["v"]

    def backward(p, x, g, wrong, kept):
        _, probs = attend(np, x)
        dropped = probs * kept
        d_probs = g @ swap(x["v"])
        d_scores = d_softmax(dropped, d_probs) if wrong else d_softmax(probs, d_probs * kept)
        return {}, {"v": swap(dropped) @ g} | d_scores_to_qk(x, d_scores)
