"""Gathers, scatters and who writes where."""

import numpy as np

from .port import Inputs, Port, draw, softmax

TABLE = draw(400, 7, 3)
REPEATED, DISTINCT = np.array([2, 5, 2, 0, 5]), np.array([2, 5, 1, 0, 6])


class Gather(Port):
    """Entries gathered more than once get the cotangent of one place only."""

    thread = "pytorch/pytorch 1631"
    causes = {"x": "scatter"}
    fixture = "Indices that do not repeat hide it; the thread names no test."
    awkward = Inputs({}, draw(401, 7), {"ids": REPEATED})
    friendly = Inputs({}, draw(401, 7), {"ids": DISTINCT})

    def value(xp, p, x, ids):
        return x[ids]

    def backward(p, x, g, wrong, ids):
        d_x = np.zeros_like(x)
        if wrong:
            d_x[ids] = g
        else:
            np.add.at(d_x, ids, g)
        return {}, d_x


class Rows(Port):
    """Of a row that is taken several times, only the last copy sends something back."""

    thread = "pytorch/pytorch 1528"
    causes = {"x": "scatter"}
    fixture = "Rows taken once hide it; index_select was right (thread)."
    awkward = Inputs({"scale": draw(402, 3)}, TABLE, {"ids": REPEATED})
    friendly = Inputs({"scale": draw(402, 3)}, TABLE, {"ids": DISTINCT})

    def value(xp, p, x, ids):
        return x[ids] * p["scale"]

    def backward(p, x, g, wrong, ids):
        d_x, d_rows = np.zeros_like(x), g * p["scale"]
        for i, row in enumerate(ids):
            d_x[row] = d_rows[i] + (0 if wrong else d_x[row])
        return {"scale": (g * x[ids]).sum(axis=0)}, d_x


class GatherOfRows(Port):
    """The table's gradient is overwritten where an index repeats."""

    thread = "PaddlePaddle/Paddle 17952"
    causes = {"params.table": "scatter"}
    fixture = "Indices that do not repeat hide it; the thread names no test."
    awkward = Inputs({"table": TABLE}, draw(403, 2, 5), {"ids": REPEATED})
    friendly = Inputs({"table": TABLE}, draw(403, 2, 5), {"ids": DISTINCT})

    def value(xp, p, x, ids):
        return x @ p["table"][ids]

    def backward(p, x, g, wrong, ids):
        d_rows, d_table = x.T @ g, np.zeros_like(p["table"])
        if wrong:
            d_table[ids] = d_rows
        else:
            np.add.at(d_table, ids, d_rows)
        return {"table": d_table}, g @ p["table"][ids].T


class GatherForScatter(Port):
    """The backward of a gather is another gather, at the wrapped index."""

    thread = "ooples/AiDotNet.Tensors 894"
    causes = {"x": "jacobian not transposed"}
    near = ("misread", "scatter", "misplaced")
    awkward = Inputs({}, draw(404, 7), {"ids": np.array([2, 5, 2, 0, 3, 1, 5])})

    def value(xp, p, x, ids):
        return x[ids]

    def backward(p, x, g, wrong, ids):
        if wrong:
            return {}, g[ids[np.arange(len(x)) % len(ids)]]
        d_x = np.zeros_like(x)
        np.add.at(d_x, ids, g)
        return {}, d_x


class SplitTokens(Port):
    """The router's gradient of one part of the tokens is taken for that of all."""

    thread = "pytorch/torchtitan 2416"
    causes = {"params.gate": "slice kept"}
    fixture = "One process hides it; the weights drifted apart in training (thread)."
    awkward = Inputs({"gate": draw(405, 3, 4)}, draw(406, 6, 3), {"ranks": 2})
    friendly = Inputs({"gate": draw(405, 3, 4)}, draw(406, 6, 3), {"ranks": 1})

    def value(xp, p, x, ranks):
        return softmax(xp, x @ p["gate"])

    def backward(p, x, g, wrong, ranks):
        probs = softmax(np, x @ p["gate"])
        d_scores = probs * (g - (g * probs).sum(axis=-1, keepdims=True))
        mine = len(x) // (ranks if wrong else 1)
        return {"gate": x[:mine].T @ d_scores[:mine]}, d_scores @ p["gate"].T


class Cameras(Port):
    """The cameras write to the same coefficients, and the last one's gradient is left."""

    thread = "openvdb/fvdb-core 434"
    causes = {"params.coefficients": "slice kept"}
    near = ("scatter",)
    fixture = "One camera (thread)."
    awkward = Inputs({"coefficients": draw(407, 5, 4)}, draw(408, 3, 5, 3))
    friendly = Inputs({"coefficients": draw(407, 5, 4)}, draw(408, 1, 5, 3))

    def value(xp, p, x):
        basis = xp.concatenate([0 * x[..., :1] + 1, x], -1)  # (C, N, 4)
        return (basis * p["coefficients"]).sum(axis=-1)

    def backward(p, x, g, wrong):
        basis = np.concatenate([np.ones_like(x[..., :1]), x], -1)
        d_cameras = g[..., None] * basis
        d_coefficients = d_cameras[-1] if wrong else d_cameras.sum(axis=0)
        return {"coefficients": d_coefficients}, g[..., None] * p["coefficients"][:, 1:]


class EveryRowToTheFirst(Port):
    """Each row's gradient is written to row 0."""

    thread = "ByteDance-Seed/Triton-distributed 185"
    causes = {"x": "misplaced"}
    near = ("written in part", "slice kept")
    fixture = "The gradient beside it, one number a row, was right (thread)."
    awkward = Inputs({}, draw(409, 5, 6))

    def value(xp, p, x):
        gate, up = x[:, :3], x[:, 3:]
        return gate / (1 + xp.exp(-gate)) * up

    def backward(p, x, g, wrong):
        gate, up = x[:, :3], x[:, 3:]
        sigmoid = 1 / (1 + np.exp(-gate))
        slope = sigmoid * (1 + gate * (1 - sigmoid))
        d_x = np.zeros_like(x)
        for row in range(len(x)):
            place = 0 if wrong else row
            d_x[place, :3], d_x[place, 3:] = (
                (g * up * slope)[row],
                (g * gate * sigmoid)[row],
            )
        return {}, d_x
