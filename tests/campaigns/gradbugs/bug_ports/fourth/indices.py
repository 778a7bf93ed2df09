"""Indices, and what several readers of one tensor send back."""

import numpy as np

from ..port import Inputs, Port, draw


def cross(xp, a, b):
    """Return the cross product over the last axis."""
    (a0, a1, a2), (b0, b1, b2) = (xp.moveaxis(v, -1, 0) for v in (a, b))
    return xp.stack([a1 * b2 - a2 * b1, a2 * b0 - a0 * b2, a0 * b1 - a1 * b0], -1)


def inner(a, b):
    """Return the inner product over the last axis, which stays."""
    return (a * b).sum(axis=-1, keepdims=True)


def turn(xp, q, v):
    """Return q·v·q̄ of quaternions q (..., 4), the real part first, and vectors v (..., 3)."""
    w, u = q[..., :1], q[..., 1:]
    return (w**2 - inner(u, u)) * v + 2 * inner(u, v) * u + 2 * w * cross(xp, u, v)


def d_turn(q, v, g):
    """Return the cotangents of q and v."""
    w, u = q[..., :1], q[..., 1:]
    d_w = 2 * inner(g, w * v + cross(np, u, v))
    d_u = 2 * (inner(u, v) * g + inner(u, g) * v - inner(v, g) * u + w * cross(np, v, g))
    return np.concatenate([d_w, d_u], -1), turn(np, np.concatenate([w, -u], -1), g)


class SumForMean(Port):
    """The rows of a bag get its whole g, though the bag is their mean."""

    thread = "tensorflow/addons 2505"
    causes = {"x": "constant factor"}
    near = ("missing factor",)
    fixture = "Sums were right (thread); here, bags of one."
    awkward = Inputs({}, draw(1160, 5, 3), {"ids": np.array([[4, 0, 4], [1, 2, 0]])})
    friendly = Inputs({}, draw(1160, 5, 3), {"ids": np.array([[4], [1], [4]])})

    def value(xp, p, x, ids):
        return x[ids].mean(axis=1)

    def backward(p, x, g, wrong, ids):
        d_x = np.zeros_like(x)
        np.add.at(d_x, ids, g[:, None] / (1 if wrong else ids.shape[1]))
        return {}, d_x


class PointsTwice(Port):
    """The gradient of a gather is a plain scatter: of equal indices, the last one counts."""

    thread = "apache/mxnet 9172"
    causes = {"x": "scatter"}
    near = ("slice kept",)
    fixture = "Indices that differ (thread)."
    awkward = Inputs({}, draw(1161, 3, 4), {"places": np.array([[1, 0, 1, 2, 1], [3, 0, 3, 1, 2]])})
    friendly = Inputs(
        {}, draw(1161, 3, 4), {"places": np.array([[1, 0, 2, 2, 1], [3, 0, 3, 1, 2]])}
    )

    def value(xp, p, x, places):
        return x[places[0], places[1]]

    def backward(p, x, g, wrong, places):
        d_x = np.zeros_like(x)
        if wrong:
            d_x[tuple(places)] = g
        else:
            np.add.at(d_x, tuple(places), g)
        return {}, d_x


class FirstCamera(Port):
    """The orientations' gradient is not summed over the cameras: the first one's is kept."""

    thread = "openvdb/fvdb-core 435"
    causes = {"x.turns": "slice kept"}
    fixture = "One camera hides it; the thread names no test."
    points = {"points": draw(1162, 4, 3), "turns": draw(1163, 4, 4)}
    awkward = Inputs({}, points, {"cameras": draw(1164, 3, 2, 3)})
    friendly = Inputs({}, points, {"cameras": draw(1164, 1, 2, 3)})

    def value(xp, p, x, cameras):
        turned = turn(xp, x["turns"], x["points"])
        return xp.einsum("cij,nj->cni", cameras.astype(turned.dtype), turned)

    def backward(p, x, g, wrong, cameras):
        each = np.einsum("cij,cni->cnj", cameras, g)
        d_turns, d_points = d_turn(x["turns"], x["points"], each.sum(axis=0))
        if wrong:
            d_turns = d_turn(x["turns"], x["points"], each[0])[0]
        return {}, {"points": d_points, "turns": d_turns}


class ScaleForItsLog(Port):
    """The gradient of the scale is returned as the gradient of its logarithm."""

    thread = "openvdb/fvdb-core 432"
    causes = {"x.log_scale": "missing factor"}
    fixture = "Scales of one hide it; the thread names no test."
    awkward = Inputs({}, {"log_scale": draw(1165, 5, 3), "axis": draw(1166, 5, 3)})
    friendly = Inputs({}, {"log_scale": np.zeros((5, 3)), "axis": draw(1166, 5, 3)})

    def value(xp, p, x):
        return ((xp.exp(x["log_scale"]) * x["axis"]) ** 2).sum(axis=-1)

    def backward(p, x, g, wrong):
        scale = np.exp(x["log_scale"])
        along = 2 * g[:, None] * scale * x["axis"]
        d_scale = along * x["axis"]
        return {}, {"log_scale": d_scale if wrong else d_scale * scale, "axis": along * scale}


class ShapeOfTheIndex(Port):
    """The source's gradient is as long as the index, which reads the front of it alone."""

    thread = "pytorch/pytorch 188843"
    causes = {"x.source": "structure"}
    fixture = "As many indices as source numbers (thread)."
    ids = {"ids": np.array([3, 0, 3])}
    awkward = Inputs({}, {"base": draw(1167, 5), "source": draw(1168, 7)}, ids)
    friendly = Inputs({}, {"base": draw(1167, 5), "source": draw(1168, 3)}, ids)

    def value(xp, p, x, ids):
        places = np.eye(len(x["base"]))[ids].astype(x["base"].dtype)
        return x["base"] + x["source"][: len(ids)] @ places

    def backward(p, x, g, wrong, ids):
        d_source = g[ids]
        if not wrong:
            d_source = np.concatenate([d_source, np.zeros(len(x["source"]) - len(ids))])
        return {}, {"base": g, "source": d_source}
