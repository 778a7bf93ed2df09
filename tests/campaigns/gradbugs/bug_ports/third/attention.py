"""Attention and routing."""

import numpy as np

from ..attention import attend, d_scores_to_qk, qkv, swap
from ..port import Inputs, Port, d_softmax, draw, log_sum_exp, softmax


def added(a, heads, groups):
    """Return the sum over the query heads of each group."""
    total = np.zeros((len(a), groups, *a.shape[2:]), a.dtype)
    np.add.at(total.swapaxes(0, 1), heads, a.swapaxes(0, 1))
    return total


class Interleaved(Port):
    """Which keys a query head reads follows from the number of heads that share them."""

    thread = "XunhaoLai/native-sparse-attention-triton 27"
    causes = {"x.k": "misread", "x.v": "misread"}
    near = ("misplaced", "slice kept", "written in part", "scatter")
    fixture = "As many key heads as query heads for each (thread)."
    awkward = Inputs({}, qkv(heads=6, groups=3))
    friendly = Inputs({}, qkv(heads=4, groups=2))

    def value(xp, p, x):
        heads = np.arange(x["q"].shape[1]) % x["k"].shape[1]
        return attend(xp, x | {name: x[name][:, heads] for name in "kv"})[0]

    def backward(p, x, g, wrong):
        count, groups = x["q"].shape[1], x["k"].shape[1]
        heads = np.arange(count) % groups
        spread = x | {name: x[name][:, heads] for name in "kv"}
        y, probs = attend(np, spread)
        delta = (g * y).sum(axis=-1, keepdims=True)
        d_q = (probs * (g @ swap(spread["v"]) - delta)) @ spread["k"]
        total = log_sum_exp(np, x["q"] @ swap(spread["k"]))[..., None]
        if wrong:
            heads = np.arange(count) % (count // groups)
            spread = x | {name: x[name][:, heads] for name in "kv"}
        probs = np.exp(x["q"] @ swap(spread["k"]) - total)
        d_scores = probs * (g @ swap(spread["v"]) - delta)
        d_k = added(swap(d_scores) @ x["q"], heads, groups)
        return {}, {"q": d_q, "k": d_k, "v": added(swap(probs) @ g, heads, groups)}


class ValueChannels(Port):
    """For the queries' gradient, values have as many channels as keys: others are cut off."""

    thread = "XunhaoLai/native-sparse-attention-triton 27"
    causes = {"x.q": "slice kept"}
    near = ("missing term",)
    fixture = "Values of the size of keys (thread)."
    awkward = Inputs({}, qkv() | {"v": draw(930, 2, 2, 5, 4)})
    friendly = Inputs({}, qkv())

    def value(xp, p, x):
        return attend(xp, x)[0]

    def backward(p, x, g, wrong):
        y, probs = attend(np, x)
        delta = (g * y).sum(axis=-1, keepdims=True)
        d_x = {"v": swap(probs) @ g}
        d_x |= d_scores_to_qk(x, probs * (g @ swap(x["v"]) - delta))
        if wrong:
            size = x["q"].shape[-1]
            d_probs = g[..., :size] @ swap(x["v"][..., :size])
            d_x["q"] = (probs * (d_probs - delta)) @ x["k"]
        return {}, d_x


class StaleChunk(Port):
    """Each round of the ring's backward reads the keys and values of the first round."""

    thread = "huggingface/diffusers 14265"
    causes = {"x.q": "misread", "x.k": "misread", "x.v": "misread"}
    near = ("wrong point", "slice kept")
    fixture = "A ring of one (thread)."
    awkward = Inputs({}, qkv(queries=5, keys=6), {"chunks": 2})
    friendly = Inputs({}, qkv(queries=5, keys=6), {"chunks": 1})

    def value(xp, p, x, chunks):
        return attend(xp, x)[0]

    def backward(p, x, g, wrong, chunks):
        y, _ = attend(np, x)
        delta = (g * y).sum(axis=-1, keepdims=True)
        total = log_sum_exp(np, x["q"] @ swap(x["k"]))[..., None]
        parts = list(zip(*(np.array_split(x[name], chunks, 2) for name in "kv"), strict=True))
        d_q, d_k, d_v = np.zeros_like(x["q"]), [], []
        for part in parts:
            k, v = parts[0] if wrong else part
            probs = np.exp(x["q"] @ swap(k) - total)
            d_scores = probs * (g @ swap(v) - delta)
            d_q += d_scores @ k
            d_k.append(swap(d_scores) @ x["q"])
            d_v.append(swap(probs) @ g)
        return {}, {"q": d_q, "k": np.concatenate(d_k, 2), "v": np.concatenate(d_v, 2)}


class Slopes(Port):
    """The slopes of a bias that falls with distance get no gradient."""

    thread = "Dao-AILab/flash-attention 1977"
    causes = {"params.slopes": "never written"}
    awkward = Inputs({"slopes": np.abs(draw(931, 2))}, qkv())
    distance = np.abs(np.arange(5)[:, None] - np.arange(5))

    def value(xp, p, x):
        bias = p["slopes"][:, None, None] * Slopes.distance.astype(x["q"].dtype)
        return attend(xp, x, lambda xp, scores: scores - bias)[0]

    def backward(p, x, g, wrong):
        bias = p["slopes"][:, None, None] * Slopes.distance
        _, probs = attend(np, x, lambda xp, scores: scores - bias)
        d_scores = d_softmax(probs, g @ swap(x["v"]))
        d_slopes = -(d_scores * Slopes.distance).sum(axis=(0, 2, 3))
        d_x = {"v": swap(probs) @ g} | d_scores_to_qk(x, d_scores)
        return {"slopes": np.zeros_like(d_slopes) if wrong else d_slopes}, d_x


class SoftmaxIntoG(Port):
    """The fused softmax writes its result into the memory of g."""

    thread = "NVIDIA/apex 1430"
    causes = {"": "overwritten"}
    awkward = Inputs({}, draw(932, 2, 5, 5), {"scale": 0.5})

    def value(xp, p, x, scale):
        return softmax(xp, scale * x)

    def backward(p, x, g, wrong, scale):
        d_x = scale * d_softmax(softmax(np, scale * x), g)
        if wrong:
            g[...] = d_x
        return {}, d_x


class BalanceLoss(Port):
    """The balance loss is added to an array that nothing reads, so it has no gradient."""

    thread = "NVIDIA-NeMo/Automodel 1408"
    causes = {"params.gate": "missing term", "x": "missing term"}
    near = ("g ignored",)
    fixture = "A loss that does not use the balance hides it; the thread names no test."
    awkward = Inputs({"gate": draw(933, 3, 4)}, draw(934, 5, 3))
    friendly = awkward._replace(cotangent=(draw(935, 5, 4), np.zeros(())))

    def value(xp, p, x):
        probs = softmax(xp, x @ p["gate"])
        return probs, 4 * (probs.mean(axis=0) ** 2).sum()

    def backward(p, x, g, wrong):
        probs = softmax(np, x @ p["gate"])
        d_probs = g[0]
        if not wrong:
            d_probs = d_probs + 8 * g[1] * probs.mean(axis=0) / len(x)
        d_scores = d_softmax(probs, d_probs)
        return {"gate": x.T @ d_scores}, d_scores @ p["gate"].T
