"""Convolutions along one axis."""

import numpy as np

from ..port import Inputs, Port, draw


def taps(steps, size, stride=1, dilation=1):
    """Return what each tap of each window sees, (windows, size)."""
    count = (steps - dilation * (size - 1) - 1) // stride + 1
    return np.arange(count)[:, None] * stride + np.arange(size) * dilation


def pulled_back(x, weight, g, at):
    """Return the cotangents of the weight and of x, for windows at these places."""
    d_x = np.zeros_like(x)
    np.add.at(d_x, (slice(None), at), g[..., None] * weight)
    return np.einsum("bn,bnk->k", g, x[:, at]), d_x


class TailBeyondOne(Port):
    """Of the inputs at the end that no window reaches, the gradient makes room for one alone."""

    thread = "tracel-ai/burn 4799"
    causes = {"x": "structure"}
    near = ("exception", "written in part")
    fixture = "Strides that leave one input over at most (thread)."
    awkward = Inputs({"weight": draw(1370, 2)}, draw(1371, 2, 9), {"stride": 5})
    friendly = Inputs({"weight": draw(1370, 2)}, draw(1371, 2, 8), {"stride": 5})

    def value(xp, p, x, stride):
        return x[:, taps(x.shape[1], len(p["weight"]), stride)] @ p["weight"]

    def backward(p, x, g, wrong, stride):
        at = taps(x.shape[1], len(p["weight"]), stride)
        d_weight, d_x = pulled_back(x, p["weight"], g, at)
        return {"weight": d_weight}, d_x[:, : at.max() + 2] if wrong else d_x


class SizeWithoutDilation(Port):
    """The sizes that g can come from are computed without the dilation, and x's is refused."""

    thread = "pytorch/pytorch 13008"
    causes = {"": "exception"}
    fixture = "Filters without dilation (thread)."
    awkward = Inputs({"weight": draw(1372, 2)}, draw(1373, 2, 7), {"dilation": 3})
    friendly = Inputs({"weight": draw(1372, 2)}, draw(1373, 2, 7), {"dilation": 1})

    def value(xp, p, x, dilation):
        return x[:, taps(x.shape[1], len(p["weight"]), dilation=dilation)] @ p["weight"]

    def backward(p, x, g, wrong, dilation):
        if wrong and x.shape[1] != g.shape[1] + len(p["weight"]) - 1:
            raise ValueError("x has a size that g cannot come from")
        at = taps(x.shape[1], len(p["weight"]), dilation=dilation)
        d_weight, d_x = pulled_back(x, p["weight"], g, at)
        return {"weight": d_weight}, d_x
