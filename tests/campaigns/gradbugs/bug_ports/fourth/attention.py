"""Attention, rotations and gated feed-forward layers."""

import numpy as np

from ..attention import attend, d_scores_to_qk, qkv, swap
from ..port import Inputs, Port, d_softmax, draw


def seen(queries, keys, window):
    """Return the keys that each query sees: itself and what lies less than ``window`` behind."""
    causal = np.tri(queries, keys, dtype=bool)
    return causal if window is None else causal & ~np.tri(queries, keys, -window, dtype=bool)


class PlainForWindowed(Port):
    """With a window, the backward is that of attention without a mask: its causal flag is off."""

    thread = "meta-pytorch/MSLK 263"
    causes = {"x.q": "mask leak", "x.k": "mask leak", "x.v": "mask leak"}
    fixture = "No window hides it; the tests came with the fix (thread)."
    awkward = Inputs({}, qkv(), {"window": 2})
    friendly = Inputs({}, qkv(), {"window": None})

    def value(xp, p, x, window):
        mask = seen(x["q"].shape[-2], x["k"].shape[-2], window)
        return attend(xp, x, lambda xp, scores: xp.where(mask, scores, -1e30))[0]

    def backward(p, x, g, wrong, window):
        mask = seen(x["q"].shape[-2], x["k"].shape[-2], window)
        if wrong and window is not None:
            mask = np.ones_like(mask)
        _, probs = attend(np, x, lambda xp, scores: xp.where(mask, scores, -1e30))
        d_scores = mask * d_softmax(probs, g @ swap(x["v"]))
        return {}, {"v": swap(probs) @ g} | d_scores_to_qk(x, d_scores)


class SinOfTheOtherHalf(Port):
    """The halves are exchanged before they are multiplied by the sine, not after."""

    thread = "PaddlePaddle/Paddle 74716"
    causes = {"x": "misread"}
    near = ("wrong point", "misplaced", "wrong term")
    fixture = "Tables with two halves alike (thread)."
    angles = {"cos": draw(1100, 5, 4), "sin": draw(1101, 5, 4)}
    awkward = Inputs({}, draw(1102, 2, 5, 4), angles)
    friendly = Inputs({}, awkward.x, {name: np.tile(a[:, :2], 2) for name, a in angles.items()})

    def tables(x, cos, sin):
        """Return as much of the tables as x needs."""
        return [a[: x.shape[-2], : x.shape[-1]].astype(x.dtype) for a in (cos, sin)]

    def value(xp, p, x, cos, sin):
        half = x.shape[-1] // 2
        cos, sin = SinOfTheOtherHalf.tables(x, cos, sin)
        return x * cos + xp.concatenate([-x[..., half:], x[..., :half]], -1) * sin

    def backward(p, x, g, wrong, cos, sin):
        def turned_back(a):
            first = a.shape[-1] - a.shape[-1] // 2
            return np.concatenate([a[..., first:], -a[..., :first]], -1)

        cos, sin = SinOfTheOtherHalf.tables(x, cos, sin)
        return {}, g * cos + (turned_back(g) * sin if wrong else turned_back(g * sin))


class OneOfTwoProducts(Port):
    """Two products share an accumulator, which keeps one of them: the gate's part of x is lost."""

    thread = "linkedin/Liger-Kernel 1413"
    causes = {"x": "missing term"}
    near = ("slice kept",)
    fixture = "The processors of the tests (thread), which a port has not."
    weights = {"gate": draw(1103, 3, 4), "up": draw(1104, 3, 4), "down": draw(1105, 4, 2)}
    awkward = Inputs(weights, draw(1106, 5, 3))

    def value(xp, p, x):
        gate = x @ p["gate"]
        return (gate * (1 + xp.tanh(gate / 2)) / 2 * (x @ p["up"])) @ p["down"]

    def backward(p, x, g, wrong):
        gate, up = x @ p["gate"], x @ p["up"]
        sigmoid = (1 + np.tanh(gate / 2)) / 2
        d_hidden = g @ p["down"].T
        d_up = d_hidden * gate * sigmoid
        d_gate = d_hidden * up * sigmoid * (1 + gate * (1 - sigmoid))
        d_p = {"gate": x.T @ d_gate, "up": x.T @ d_up, "down": (gate * sigmoid * up).T @ g}
        d_x = d_up @ p["up"].T
        return d_p, d_x if wrong else d_x + d_gate @ p["gate"].T


class KeysWithoutGate(Port):
    """Without a gate, the branch for the keys is missing: theirs is not set, and beta lacks it."""

    thread = "fla-org/flash-linear-attention 863"
    causes = {"x.k": "never written", "x.beta": "missing term"}
    fixture = "A gate (thread)."
    steps = {"k": draw(1107, 2, 5, 3), "v": draw(1108, 2, 5, 4), "beta": draw(1109, 2, 5)}
    solved = np.tril(draw(1110, 5, 5))  # a constant here, in the original a function of k and beta
    awkward = Inputs({}, steps, {"solved": solved, "gate": None})
    friendly = Inputs({}, steps, {"solved": solved, "gate": draw(1111, 5)})

    def value(xp, p, x, solved, gate):
        beta = x["beta"][..., None]
        decay = 1.0 if gate is None else np.exp(gate)[:, None].astype(beta.dtype)
        solved = solved.astype(beta.dtype)
        return solved @ (beta * decay * x["k"]), solved @ (beta * x["v"])

    def backward(p, x, g, wrong, solved, gate):
        beta = x["beta"][..., None]
        decay = 1.0 if gate is None else np.exp(gate)[:, None]
        d_keys, d_values = decay * (solved.T @ g[0]), solved.T @ g[1]
        if wrong and gate is None:
            d_keys = np.zeros_like(d_keys)
        d_beta = (d_keys * x["k"]).sum(axis=-1) + (d_values * x["v"]).sum(axis=-1)
        return {}, {"k": beta * d_keys, "v": beta * d_values, "beta": d_beta}
