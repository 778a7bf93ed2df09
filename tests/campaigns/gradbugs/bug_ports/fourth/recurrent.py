"""Recurrences and loops."""

import numpy as np

from ..port import Inputs, Port, draw
from ..recurrent import before, d_scan, scan

STEPS = draw(1170, 2, 5, 3)  # (B, T, D)


class BiasAddedToItself(Port):
    """In each step, the gradient of the bias is added to itself: it stays zero."""

    thread = "javaidnabi31/RNN-from-scratch 2"
    causes = {"params.bias": "never written"}
    awkward = Inputs(
        {"back": draw(1171, 3, 3), "out": draw(1172, 3, 2), "bias": draw(1173, 2)}, STEPS
    )

    def states(xp, p, x):
        h, states = 0 * x[:, 0], []
        for t in range(x.shape[1]):
            h = xp.tanh(h @ p["back"] + x[:, t])
            states.append(h)
        return xp.stack(states, 1)

    def value(xp, p, x):
        return BiasAddedToItself.states(xp, p, x) @ p["out"] + p["bias"]

    def backward(p, x, g, wrong):
        h = BiasAddedToItself.states(np, p, x)
        last, d_h, d_x = before(h), 0 * x[:, 0], np.empty_like(x)
        for t in reversed(range(x.shape[1])):
            d_x[:, t] = (d_h + g[:, t] @ p["out"].T) * (1 - h[:, t] ** 2)
            d_h = d_x[:, t] @ p["back"].T
        d_p = {"back": np.einsum("btd,bte->de", last, d_x), "out": np.einsum("btd,bte->de", h, g)}
        d_bias = g.sum(axis=(0, 1))
        return d_p | {"bias": 0 * d_bias if wrong else d_bias}, d_x


class GateForItsSlope(Port):
    """Where the forget gate's slope belongs stands the gate: σ for σ·(1 − σ)."""

    thread = "CaptainE/RNN-LSTM-in-numpy 2"
    causes = {"x.forget": "missing factor"}
    near = ("wrong point", "wrong term", "misread")
    awkward = Inputs({}, {"forget": draw(1174, 2, 5, 3), "value": STEPS})

    def value(xp, p, x):
        return scan(xp, (1 + xp.tanh(x["forget"] / 2)) / 2, x["value"])

    def backward(p, x, g, wrong):
        gate = (1 + np.tanh(x["forget"] / 2)) / 2
        d_value = d_scan(gate, g)
        d_gate = d_value * before(scan(np, gate, x["value"]))
        return {}, {"forget": d_gate * gate * (1 if wrong else 1 - gate), "value": d_value}


class ReversedWhole(Port):
    """Sequences longer than the loop are reversed whole: the backward reads them at their end."""

    thread = "Theano/Theano 166"
    causes = {"x.decay": "misread", "x.value": "misread"}
    near = ("misplaced", "wrong point")
    fixture = "Sequences as long as the loop (thread)."
    awkward = Inputs({}, {"decay": draw(1175, 2, 5, 3), "value": STEPS}, {"steps": 3})
    friendly = Inputs({}, awkward.x, {"steps": 5})

    def value(xp, p, x, steps):
        return scan(xp, x["decay"][:, :steps], x["value"][:, :steps])

    def backward(p, x, g, wrong, steps):
        decay = x["decay"][:, -steps:] if wrong else x["decay"][:, :steps]
        h = scan(np, x["decay"][:, :steps], x["value"][:, :steps])
        d_value = d_scan(decay, g)
        rest = np.zeros_like(x["value"][:, steps:])
        parts = {"decay": d_value * before(h), "value": d_value}
        return {}, {name: np.concatenate([part, rest], 1) for name, part in parts.items()}


class DivisorOfTheLastRound(Port):
    """Each round of the loop saved its divisor, and the backward reads that of the last."""

    thread = "vgvassilev/clad 1865"
    causes = {"x": "misread"}
    near = ("wrong point",)
    fixture = "One round (thread)."
    awkward = Inputs({}, draw(1176, 5), {"rounds": 3})
    friendly = Inputs({}, draw(1176, 5), {"rounds": 1})

    def value(xp, p, x, rounds):
        return sum(1 / (i + 1.0 + x**2) for i in range(rounds))

    def backward(p, x, g, wrong, rounds):
        d_x = np.zeros_like(x)
        for i in range(rounds):
            divisor = (rounds if wrong else i + 1) + x**2
            d_x -= 2 * g * x / divisor**2
        return {}, d_x
