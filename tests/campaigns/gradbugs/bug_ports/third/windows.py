"""Pooling, filters and interpolation."""

import numpy as np

from ..convolutions import convolve, d_convolve, taps
from ..port import Inputs, Port, draw


def pooling(steps, size, stride):
    """Return what each window takes from each input, the windows at the end cut off."""
    windows = -(-(steps - size) // stride) + 1
    first = np.arange(windows)[:, None] * stride
    inside = (first <= np.arange(steps)) & (np.arange(steps) < first + size)
    return inside.astype(float)  # (W, T)


class CutOffWindow(Port):
    """The window at the end is divided by the size of a whole one."""

    thread = "tracel-ai/burn 5604"
    causes = {"x": "wrong term"}
    near = ("constant factor", "missing factor", "extra factor", "wrong point")
    fixture = "Sizes that the windows cover without remainder (thread)."
    awkward = Inputs({}, draw(960, 2, 8), {"size": 3})
    friendly = Inputs({}, draw(960, 2, 7), {"size": 3})

    def value(xp, p, x, size):
        taken = pooling(x.shape[1], size, 2)
        return x @ (taken / taken.sum(axis=1, keepdims=True)).T.astype(x.dtype)

    def backward(p, x, g, wrong, size):
        taken = pooling(x.shape[1], size, 2)
        return {}, g @ (taken / (size if wrong else taken.sum(axis=1, keepdims=True)))


class ReachOfTheOther(Port):
    """What lies farther than a reach, computed for other corners, is left out of the sum."""

    thread = "flagos-ai/FlagGems 5218"
    causes = {"x": "missing term"}
    near = ("slice kept", "written in part")
    fixture = "Ratios of at most four (thread 5219)."
    awkward = Inputs({}, draw(961, 2, 3), {"size": 24})
    friendly = Inputs({}, draw(961, 2, 3), {"size": 11})

    def shares(steps, size):
        at = np.arange(size)[:, None] * (steps - 1) / (size - 1)
        return np.maximum(0, 1 - np.abs(at - np.arange(steps)))  # (outputs, T)

    def value(xp, p, x, size):
        return x @ ReachOfTheOther.shares(x.shape[1], size).T.astype(x.dtype)

    def backward(p, x, g, wrong, size):
        steps = x.shape[1]
        shares = ReachOfTheOther.shares(steps, size)
        if wrong:
            centre = np.arange(steps) * (size - 1) / (steps - 1)
            shares = shares * (np.abs(np.arange(size)[:, None] - centre) <= size / steps + 2)
        return {}, g @ shares


class Portrait(Port):
    """The column of an output is computed with the height where the width belongs."""

    thread = "intel/torch-xpu-ops 4380"
    causes = {"x": "misread"}
    near = ("misplaced",)
    fixture = "Images at least as wide as high (thread)."
    awkward = Inputs({}, draw(962, 7, 3))
    friendly = Inputs({}, draw(962, 3, 7))

    def doubled(size):
        at = np.clip((np.arange(2 * size)[:, None] + 0.5) / 2 - 0.5, 0, size - 1)
        return np.maximum(0, 1 - np.abs(at - np.arange(size)))  # (2N, N)

    def value(xp, p, x):
        rows, columns = (Portrait.doubled(size).astype(x.dtype) for size in x.shape)
        return rows @ x @ columns.T

    def backward(p, x, g, wrong):
        height, width = x.shape
        if wrong:
            shift = min(0, (width - height) // (2 * width))
            g = g[:, np.maximum(0, np.arange(2 * width) + shift)]
        return {}, Portrait.doubled(height).T @ g @ Portrait.doubled(width)


class FirstCoordinate(Port):
    """The slopes of the position start as a one and zeros: the first coordinate's is kept."""

    thread = "ashawkey/torch-ngp 149"
    causes = {"x": "written in part"}
    near = ("never written", "missing factor", "missing term")
    places = 1 + 4 * np.random.default_rng(963).random((6, 2))
    awkward = Inputs({"table": draw(964, 7, 8)}, places)

    def value(xp, p, x):
        low = xp.floor(x).astype(int)
        (s, t), (i, j) = (x - low).T, low.T
        table = p["table"]
        upper = (1 - t) * table[i, j] + t * table[i, j + 1]
        return (1 - s) * upper + s * ((1 - t) * table[i + 1, j] + t * table[i + 1, j + 1])

    def backward(p, x, g, wrong):
        low = np.floor(x).astype(int)
        (s, t), (i, j), d_table = (x - low).T, low.T, np.zeros_like(p["table"])
        d_x = np.zeros_like(x)
        for down in (0, 1):
            for right in (0, 1):
                row, column = s if down else 1 - s, t if right else 1 - t
                corner = p["table"][i + down, j + right]
                np.add.at(d_table, (i + down, j + right), g * row * column)
                d_x[:, 0] += g * corner * column * (1 if down else -1)
                d_x[:, 1] += g * corner * row * ((1 if right else -1) * (0 if wrong else 1))
        return {"table": d_table}, d_x


class FilterAverage(Port):
    """The filter's gradient is divided by the number of examples and outputs."""

    thread = "sebgao/cTensor 3"
    causes = {"params.weight": "constant factor"}
    fixture = "One output of one example hides it; the thread names no test."
    awkward = Inputs({"weight": draw(965, 3)}, draw(966, 2, 11))
    friendly = Inputs({"weight": draw(965, 3)}, draw(966, 1, 3))

    def value(xp, p, x):
        return convolve(x, p["weight"])

    def backward(p, x, g, wrong):
        d_weight = np.einsum("bs,bsk->k", g, x[:, taps(x, 3)])
        return {"weight": d_weight / (g.size if wrong else 1)}, d_convolve(x, p["weight"], g)
