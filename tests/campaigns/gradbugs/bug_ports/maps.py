"""Linear maps, rotations and small matrices."""

import numpy as np

from .port import Inputs, Port, d_softmax, draw, softmax


class DenseByEntries(Port):
    """Products of matrices are products of their entries in the backward."""

    thread = "apache/tvm 5695"
    causes = {"params.weight": "missing sum", "x": "missing sum"}
    near = ("misread", "transposed", "wrong term", "structure", "exception")
    fixture = "Sizes of one hide it; others raise an error unless all are equal (thread)."
    awkward = Inputs({"weight": draw(700, 3, 3)}, draw(701, 3, 3))
    friendly = Inputs({"weight": draw(700, 1, 1)}, draw(701, 1, 1))

    def value(xp, p, x):
        return x @ p["weight"].T

    def backward(p, x, g, wrong):
        if wrong:
            return {"weight": x * g.T}, g.T * p["weight"]
        return {"weight": g.T @ x}, g @ p["weight"]


class RollAxis(Port):
    """Where an axis stays in its place, the backward moves the last one there."""

    thread = "chainer/chainer 4836"
    causes = {"x": "transposed"}
    near = ("structure",)
    fixture = "Another axis or place (thread)."
    awkward = Inputs({}, draw(702, 3, 3, 3), {"axis": 0, "start": 0})
    friendly = Inputs({}, draw(702, 3, 3, 3), {"axis": 2, "start": 0})

    def value(xp, p, x, axis, start):
        return xp.moveaxis(x, axis, start - 1 if axis < start else start)

    def backward(p, x, g, wrong, axis, start):
        if wrong and axis == start == 0:
            return {}, np.moveaxis(g, -1, 0)
        return {}, np.moveaxis(g, start - 1 if axis < start else start, axis)


class ByItsTranspose(Port):
    """In x·xᵀ only the first x gets a gradient."""

    thread = "NervanaSystems/neon 169"
    causes = {"x": "missing term"}
    awkward = Inputs({}, draw(703, 3, 5))

    def value(xp, p, x):
        return x @ x.T

    def backward(p, x, g, wrong):
        return {}, g @ x if wrong else (g + g.T) @ x


class Cosine(Port):
    """The scale multiplies the first of two terms of the weight's gradient."""

    thread = "torch/nn 1238"
    causes = {"params.weight": "wrong term"}  # its constant, the setting, is missing in one of two
    near = ("missing factor",)
    fixture = "A scale of one hides it; the thread names no test."
    awkward = Inputs({"weight": draw(704, 4, 3)}, draw(705, 5, 3), {"scale": 0.3})
    friendly = Inputs({"weight": draw(704, 4, 3)}, draw(705, 5, 3), {"scale": 1.0})

    def value(xp, p, x, scale):
        norms = [xp.sqrt((a * a).sum(axis=-1)) for a in (x, p["weight"])]
        return scale * (x @ p["weight"].T) / norms[0][:, None] / norms[1]

    def backward(p, x, g, wrong, scale):
        weight = p["weight"]
        of_x, of_weight = (np.sqrt((a * a).sum(axis=-1, keepdims=True)) for a in (x, weight))
        y = (x @ weight.T) / of_x / of_weight.T
        along = weight / of_weight**2 * (g * y).sum(axis=0)[:, None]
        d_weight = scale * (g / of_x).T @ x / of_weight - (1 if wrong else scale) * along
        d_x = scale * ((g / of_weight.T) @ weight / of_x)
        d_x -= scale * x / of_x**2 * (g * y).sum(axis=1)[:, None]
        return {"weight": d_weight}, d_x


class Cross(Port):
    """The second factor of a cross product gets its gradient with the wrong sign."""

    thread = "tracel-ai/burn 4069"
    causes = {"x.b": "sign"}
    awkward = Inputs({}, {"a": draw(706, 5, 3), "b": draw(707, 5, 3)})

    def value(xp, p, x):
        return xp.cross(x["a"], x["b"])

    def backward(p, x, g, wrong):
        d_b = np.cross(g, x["a"])
        return {}, {"a": np.cross(x["b"], g), "b": -d_b if wrong else d_b}


class SoftmaxInPlace(Port):
    """The result is built in the memory of y, which is read again afterwards."""

    thread = "ggml-org/ggml 1521"
    causes = {"": "overwritten"}
    fixture = "Graphs in which the result takes the memory of g (thread)."
    keeps_output = True
    awkward = Inputs({}, draw(708, 5, 3))

    def value(xp, p, x):
        return softmax(xp, x)

    def backward(p, x, g, wrong, y):
        if not wrong:
            return {}, d_softmax(y, g)
        dot = (y * g).sum(axis=-1, keepdims=True)
        y[...] = g
        return {}, (y - dot) * y


class RotationAsBefore(Port):
    """The backward does not know of the scaled angles that the forward has since learned."""

    thread = "ggml-org/llama.cpp 3974"
    causes = {"x": "wrong point"}
    near = ("wrong term", "missing factor", "missing term")
    fixture = "Positions that are not scaled hide it; the thread names no test."
    awkward = Inputs({}, draw(709, 2, 5, 4), {"scaling": 0.25})
    friendly = Inputs({}, draw(709, 2, 5, 4), {"scaling": 1.0})

    def value(xp, p, x, scaling):
        angle = scaling * np.arange(x.shape[1])[:, None] / 10.0 ** np.arange(2)
        cos, sin = (f(angle).astype(x.dtype) for f in (np.cos, np.sin))
        a, b = x[..., :2], x[..., 2:]
        return xp.concatenate([a * cos - b * sin, a * sin + b * cos], -1)

    def backward(p, x, g, wrong, scaling):
        angle = (1 if wrong else scaling) * np.arange(x.shape[1])[:, None] / 10.0 ** np.arange(2)
        cos, sin = np.cos(angle), np.sin(angle)
        a, b = g[..., :2], g[..., 2:]
        return {}, np.concatenate([a * cos + b * sin, b * cos - a * sin], -1)


class Splat(Port):
    """The mixed entry of the inverse covariance gets half of its gradient."""

    thread = "nerfstudio-project/gsplat 139"
    causes = {"x.conic": "constant factor"}
    near = ("wrong term",)
    fixture = "A second mistake, in the next step, cancelled it in training (thread)."
    awkward = Inputs({}, {"conic": draw(710, 5, 3), "delta": draw(711, 5, 2)})

    def value(xp, p, x):
        a, b, c = (x["conic"][:, i] for i in range(3))
        dx, dy = x["delta"][:, 0], x["delta"][:, 1]
        return (a * dx * dx + c * dy * dy) / 2 + b * dx * dy

    def backward(p, x, g, wrong):
        a, b, c = x["conic"].T
        dx, dy = x["delta"].T
        mixed = dx * dy / 2 if wrong else dx * dy
        d_conic = g[:, None] * np.stack([dx * dx / 2, mixed, dy * dy / 2], -1)
        return {}, {
            "conic": d_conic,
            "delta": g[:, None] * np.stack([a * dx + b * dy, b * dx + c * dy], -1),
        }


class Covariance(Port):
    """From inverse to covariance, the mixed entry's cotangent is not split between two places."""

    thread = "nerfstudio-project/gsplat 136"
    causes = {"x": "constant factor"}
    near = ("wrong term", "missing factor")
    fixture = "Test cases too weak to see it (WebODM/OpenSplat 29)."
    spread = draw(712, 5, 2)
    awkward = Inputs(
        {}, np.stack([1 + spread[:, 0] ** 2, draw(713, 5) / 4, 1.5 + spread[:, 1] ** 2], 1)
    )

    def value(xp, p, x):
        a, b, c = (x[:, i] for i in range(3))
        return xp.stack([c, -b, a], -1) / (a * c - b * b)[:, None]

    def backward(p, x, g, wrong):
        a, b, c = Covariance.value(np, p, x).T
        inverse = np.stack([np.stack([a, b], -1), np.stack([b, c], -1)], -2)
        mixed = g[:, 1] if wrong else g[:, 1] / 2
        d_inverse = np.stack([np.stack([g[:, 0], mixed], -1), np.stack([mixed, g[:, 2]], -1)], -2)
        d = -inverse @ d_inverse @ inverse
        return {}, np.stack([d[:, 0, 0], 2 * d[:, 0, 1], d[:, 1, 1]], -1)
