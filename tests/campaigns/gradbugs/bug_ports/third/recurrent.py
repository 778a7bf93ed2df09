"""Recurrences."""

import numpy as np

from ..port import Inputs, Port, draw, in_memory_order
from ..recurrent import before, d_scan, scan

GATES = ("input", "forget", "output", "cell")
STEPS = draw(940, 2, 5, 3)  # (B, T, D)
CELL = {"from_x": draw(941, 3, 8), "from_h": draw(942, 2, 8)}
CELL |= {name: draw(943 + i, 2) for i, name in enumerate(GATES)}


def gates_of(xp, p, x, h):
    """Return the four gates of one step, (B, H) each."""
    total, size = x @ p["from_x"] + h @ p["from_h"], len(p["cell"])
    parts = [total[:, i * size : (i + 1) * size] + p[name] for i, name in enumerate(GATES)]
    return [1 / (1 + xp.exp(-a)) for a in parts[:3]] + [xp.tanh(parts[3])]


def lstm(xp, p, x):
    """Return the states h and the cells c of all steps, a zero cell and state before them."""
    h = c = 0 * x[:, 0] @ p["from_x"][:, : len(p["cell"])]
    states, cells = [h], [c]
    for t in range(x.shape[1]):
        i, f, o, z = gates_of(xp, p, x[:, t], h)
        c = f * c + i * z
        h = o * xp.tanh(c)
        states.append(h)
        cells.append(c)
    return states, cells


def d_lstm(p, x, g, carried=True):
    """Return the cotangents of the parameters and of x; ``carried``: from step to step."""
    states, cells = lstm(np, p, x)
    d_p, d_x = {name: np.zeros_like(leaf) for name, leaf in p.items()}, np.empty_like(x)
    d_h = d_c = np.zeros_like(states[0])
    for t in reversed(range(x.shape[1])):
        i, f, o, z = gates_of(np, p, x[:, t], states[t])
        d_h, out = d_h + g[:, t], np.tanh(cells[t + 1])
        d_c = d_c + d_h * o * (1 - out**2)
        slopes = (z * i * (1 - i), cells[t] * f * (1 - f), out * o * (1 - o), i * (1 - z**2))
        cotangents = (d_c, d_c, d_h, d_c)
        parts = [a * slope for a, slope in zip(cotangents, slopes, strict=True)]
        for name, part in zip(GATES, parts, strict=True):
            d_p[name] += part.sum(axis=0)
        d_total = np.concatenate(parts, 1)
        d_p["from_x"] += x[:, t].T @ d_total
        d_p["from_h"] += states[t].T @ d_total
        d_x[:, t] = d_total @ p["from_x"].T
        d_h, d_c = d_total @ p["from_h"].T, d_c * f
        if not carried:
            d_h, d_c = 0 * d_h, 0 * d_c
    return d_p, d_x


class BiasesOfTheForgetGate(Port):
    """The biases of the input and output gates get the gradient of the forget gate's."""

    thread = "hanbt/learn_dl 53"
    causes = {"params.input": "misread", "params.output": "misread"}
    near = ("swapped", "wrong term")
    awkward = Inputs(CELL, STEPS)

    def value(xp, p, x):
        return xp.stack(lstm(xp, p, x)[0][1:], 1)

    def backward(p, x, g, wrong):
        d_p, d_x = d_lstm(p, x, g)
        if wrong:
            d_p |= {"input": d_p["forget"], "output": d_p["forget"]}
        return d_p, d_x


class NothingCarried(Port):
    """What comes back to the state and the cell of the step before is not handed on to it."""

    thread = "CaptainE/RNN-LSTM-in-numpy 1"
    causes = {f"params.{name}": "missing term" for name in CELL} | {"x": "missing term"}
    near = ("slice kept",)
    fixture = "Sequences of one step hide it; the thread names no test."
    awkward = Inputs(CELL, STEPS)
    friendly = Inputs(CELL, STEPS[:, :1])

    def value(xp, p, x):
        return xp.stack(lstm(xp, p, x)[0][1:], 1)

    def backward(p, x, g, wrong):
        return d_lstm(p, x, g, carried=not wrong)


class WriteGate(Port):
    """The gate's gradient is found by a division of its multiple by the gate plus 1e-10."""

    thread = "meta-pytorch/attention-gym 475"
    causes = {"x.gate": "written in part"}
    near = ("extra factor", "extra mask", "missing term")
    fixture = "Gates far from zero, as of a sigmoid (thread); double precision sees them, too."
    gate = np.random.default_rng(950).random((2, 5, 3))
    awkward = Inputs({}, {"gate": np.where(gate < 0.3, 0, gate), "value": STEPS})

    def value(xp, p, x):
        return scan(xp, 1 - x["gate"], x["gate"] * x["value"])

    def backward(p, x, g, wrong):
        gate, value = x["gate"], x["value"]
        h = WriteGate.value(np, p, x)
        d_h = d_scan(1 - gate, g)
        d_gate = d_h * (value - before(h))
        if wrong:
            d_gate = gate * d_gate / (gate + 1e-10)
        return {}, {"gate": d_gate, "value": gate * d_h}


class BlockCarry(Port):
    """Between blocks, the block's own scan is decayed, and not what is carried into it."""

    thread = "proger/accelerated-scan 15"
    causes = {"x.decay": "wrong term", "x.value": "wrong term"}
    near = ("misread", "misplaced", "extra factor", "missing factor")
    fixture = "Small decays, after which little is carried (thread); here, one block."
    steps = {"decay": draw(951, 2, 6, 3), "value": draw(952, 2, 6, 3)}
    awkward = Inputs({}, steps, {"block": 2})
    friendly = Inputs({}, steps, {"block": 6})

    def value(xp, p, x, block):
        return scan(xp, x["decay"], x["value"])

    def backward(p, x, g, wrong, block):
        decay = x["decay"]
        after = np.concatenate([decay[:, 1:], np.ones_like(decay[:, :1])], 1)
        d_value, carry, factor = np.empty_like(g), np.zeros_like(g[:, :1]), 1.0
        for first in reversed(range(0, g.shape[1], block)):
            here = slice(first, first + block)
            own = d_scan(decay[:, here], g[:, here])
            down = np.cumprod(after[:, here][:, ::-1], axis=1)[:, ::-1]  # from the carry to t
            d_value[:, here] = own * factor + carry if wrong else own + down * carry
            carry, factor = d_value[:, first : first + 1], down[:, :1]
        d_decay = d_value * before(scan(np, decay, x["value"]))
        return {}, {"decay": d_decay, "value": d_value}


class UntilShifted(Port):
    """The number of steps counts the initial state: each gradient lies one step further on."""

    thread = "pymc-devs/pytensor 2217"
    causes = {"x": "misplaced"}
    near = ("misread",)
    fixture = "Loops without a state, which the tests had (thread)."
    awkward = Inputs({"decay": draw(953, 3, scale=0.5)}, STEPS, {"steps": 3})

    def value(xp, p, x, steps):
        kept = x[:, :steps]
        return scan(xp, xp.broadcast_to(p["decay"], kept.shape), kept)

    def backward(p, x, g, wrong, steps):
        kept = x[:, :steps]
        decay = np.broadcast_to(p["decay"], kept.shape)
        d_kept, d_x, first = d_scan(decay, g), np.zeros_like(x), 1 if wrong else 0
        d_x[:, first : first + steps] = d_kept
        return {"decay": (d_kept * before(scan(np, decay, kept))).sum(axis=(0, 1))}, d_x


class StateByOtherStrides(Port):
    """For the initial state's gradient alone, g is read as if it were contiguous."""

    thread = "fla-org/flash-linear-attention 1138"
    causes = {"": "layout"}
    fixture = "Contiguous cotangents (thread)."
    awkward = Inputs({"weight": draw(954, 3)}, {"new": draw(955, 2, 5), "state": draw(956, 2, 2)})
    friendly = awkward

    def value(xp, p, x):
        whole = xp.concatenate([x["state"], x["new"]], 1)
        steps = x["new"].shape[1]
        return sum(p["weight"][i] * whole[:, i : i + steps] for i in range(3))

    def backward(p, x, g, wrong):
        whole, steps = np.concatenate([x["state"], x["new"]], 1), g.shape[1]
        d_weight = np.array([(g * whole[:, i : i + steps]).sum() for i in range(3)])

        def d_whole(g):
            total = np.zeros_like(whole)
            for i in range(3):
                total[:, i : i + steps] += p["weight"][i] * g
            return total

        d_state = d_whole(in_memory_order(g) if wrong else g)[:, :2]
        return {"weight": d_weight}, {"state": d_state, "new": d_whole(g)[:, 2:]}
