"""Attention."""

import numpy as np

from ..port import Inputs, Port, d_softmax, draw, softmax


class SeveredWeights(Port):
    """The fused softmax of the attention weights has no backward, and nothing goes back there."""

    thread = "huggingface/candle 3569"
    causes = {"x.q": "never written", "x.k": "never written"}
    near = ("g ignored", "missing term")
    fixture = "A sum of the weights, which is constant (thread); here, values of zero."
    q, k = draw(1360, 3, 5, 3, scale=0.3), draw(1361, 3, 7, 3, scale=0.3)
    arrays = {"q": q, "k": k, "v": draw(1362, 3, 7, 5)}
    awkward = Inputs({}, arrays)
    friendly = Inputs({}, arrays | {"v": np.zeros((3, 7, 5))})

    def weights(xp, x):
        return softmax(xp, x["q"] @ x["k"].swapaxes(-1, -2) / x["q"].shape[-1] ** 0.5)

    def value(xp, p, x):
        return SeveredWeights.weights(xp, x) @ x["v"]

    def backward(p, x, g, wrong):
        weights = SeveredWeights.weights(np, x)
        d_scores = d_softmax(weights, g @ x["v"].swapaxes(-1, -2)) / x["q"].shape[-1] ** 0.5
        if wrong:
            d_scores = 0 * d_scores
        d_k = d_scores.swapaxes(-1, -2) @ x["q"]
        return {}, {"q": d_scores @ x["k"], "k": d_k, "v": weights.swapaxes(-1, -2) @ g}


class TransposedTwice(Port):
    """Keys and values, kept heads first, are transposed again: heads count as steps.

    There are as many heads as steps, since nothing would come back otherwise.
    """

    thread = "NVIDIA-NeMo/Automodel 3157"
    causes = {"x.q": "misread", "x.k": "misread", "x.v": "misread"}
    near = ("transposed", "wrong point", "misplaced")
    fixture = "One head and one step hide it; the forward alone was in use (thread)."
    arrays = {name: draw(1363 + i, 5, 3, 3, 5, scale=0.3) for i, name in enumerate("qkv")}
    awkward = Inputs({}, arrays)  # (B, S, H, D)
    friendly = Inputs({}, {name: a[:, :1, :1] for name, a in arrays.items()})

    def weights(xp, q, k):
        return softmax(xp, xp.einsum("bhsd,bhtd->bhst", q, k) / q.shape[-1] ** 0.5)

    def value(xp, p, x):
        q, k, v = (x[name].swapaxes(1, 2) for name in "qkv")
        return xp.einsum("bhst,bhtd->bshd", TransposedTwice.weights(xp, q, k), v)

    def backward(p, x, g, wrong):
        q, k, v = (x[name].swapaxes(1, 2) for name in "qkv")
        g = g.swapaxes(1, 2)
        if wrong:
            k, v = k.swapaxes(1, 2), v.swapaxes(1, 2)
        weights = TransposedTwice.weights(np, q, k)
        d_scores = d_softmax(weights, np.einsum("bhsd,bhtd->bhst", g, v)) / q.shape[-1] ** 0.5
        d_q = np.einsum("bhst,bhtd->bshd", d_scores, k)
        d_k, d_v = (np.einsum("bhst,bhsd->bthd", *pair) for pair in ((d_scores, q), (weights, g)))
        return {}, {"q": d_q, "k": d_k, "v": d_v}
