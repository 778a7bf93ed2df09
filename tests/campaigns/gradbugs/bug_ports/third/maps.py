"""Matrices, sums, and tensors that several readers share."""

import numpy as np

from ..port import Inputs, Port, draw

ROWS = draw(900, 5, 3)


class UnsummedProduct(Port):
    """The cotangent of a factor that was broadcast keeps the shape of the product."""

    thread = "tenstorrent/tt-metal 40008"
    causes = {"x.mask": "missing sum"}
    near = ("structure",)
    fixture = "Factors of one shape hide it; the tests came with the fix (thread 40728)."
    awkward = Inputs({}, {"h": draw(901, 2, 5, 3), "mask": draw(902, 2, 5, 1)})
    friendly = Inputs({}, {"h": draw(901, 2, 5, 1), "mask": draw(902, 2, 5, 1)})

    def value(xp, p, x):
        return x["h"] * x["mask"]

    def backward(p, x, g, wrong):
        d_mask = g * x["h"]
        return {}, {
            "h": g * x["mask"],
            "mask": d_mask if wrong else d_mask.sum(axis=-1, keepdims=True),
        }


class EinsumOfOne(Port):
    """Against a factor of length one, the gradient of the longer one has length one, too."""

    thread = "HIPS/autograd 376"
    causes = {"x.a": "structure"}
    fixture = "Factors of one length hide it; the thread names no test."
    awkward = Inputs({}, {"a": draw(903, 5), "b": draw(904, 1)})
    friendly = Inputs({}, {"a": draw(903, 5), "b": draw(904, 5)})

    def value(xp, p, x):
        return (x["a"] * x["b"]).sum()

    def backward(p, x, g, wrong):
        d_a, d_b = g * x["b"], g * x["a"]
        if len(x["b"]) == 1:
            d_b = d_b.sum(keepdims=True)
        return {}, {"a": d_a if wrong else np.broadcast_to(d_a, x["a"].shape), "b": d_b}


class LogDensity(Port):
    """The log-determinant sends nothing back: it reads the factors, which count as constants."""

    thread = "timweiland/GaussianMarkovRandomFields.jl 193"
    causes = {"params.precision": "missing term"}
    root = draw(905, 3, 3)
    awkward = Inputs({"precision": root @ root.T + np.eye(3)}, draw(906, 3))

    def value(xp, p, x):
        return (xp.linalg.slogdet(p["precision"])[1] - x @ p["precision"] @ x) / 2

    def backward(p, x, g, wrong):
        d_precision = -np.outer(x, x)
        if not wrong:
            d_precision = d_precision + np.linalg.inv(p["precision"]).T
        d_x = -(p["precision"] + p["precision"].T) @ x
        return {"precision": g * d_precision / 2}, g * d_x / 2


class AdapterDropout(Port):
    """What the adapter sends back to the input passes where its dropout let nothing through."""

    thread = "foundation-model-stack/fms-acceleration 97"
    causes = {"x": "mask leak"}
    near = ("missing factor", "wrong term")
    fixture = "The tests looked at the adapters' gradients alone (thread 102); here, no dropout."
    weights = {"weight": draw(907, 3, 4), "a": draw(908, 3, 2), "b": draw(909, 2, 4)}
    kept = (np.random.default_rng(910).random((5, 3)) < 0.7) / 0.7
    awkward = Inputs(weights, ROWS, {"kept": kept})
    friendly = Inputs(weights, ROWS, {"kept": np.ones((5, 3))})

    def value(xp, p, x, kept):
        return x @ p["weight"] + 2 * ((x * kept) @ p["a"] @ p["b"])

    def backward(p, x, g, wrong, kept):
        d_low = 2 * g @ p["b"].T
        d_p = {
            "weight": x.T @ g,
            "a": (x * kept).T @ d_low,
            "b": 2 * ((x * kept) @ p["a"]).T @ g,
        }
        d_adapted = d_low @ p["a"].T
        return d_p, g @ p["weight"].T + (d_adapted if wrong else d_adapted * kept)


class ReducedTwice(Port):
    """The latent's part of the gradient is summed over the ranks already, and is again."""

    thread = "inclusionAI/AReno 496"
    causes = {"params.down": "extra factor"}
    near = ("constant factor", "wrong term")
    fixture = "One rank (thread)."
    weights = {"down": draw(911, 3, 5), "up": draw(912, 2, 4)}
    awkward = Inputs(weights, ROWS, {"ranks": 2})
    friendly = Inputs(weights, ROWS, {"ranks": 1})

    def value(xp, p, x, ranks):
        low = x @ p["down"]
        return xp.concatenate([xp.tanh(low[:, :2]) @ p["up"], low[:, 2:]], 1)

    def backward(p, x, g, wrong, ranks):
        latent = np.tanh(x @ p["down"][:, :2])
        d_latent = (g[:, :4] @ p["up"].T) * (1 - latent**2)
        d_low = np.concatenate([d_latent, g[:, 4:]], 1)
        d_down = x.T @ d_low
        if wrong:
            d_down[:, :2] *= ranks
        return {"down": d_down, "up": latent.T @ g[:, :4]}, d_low @ p["down"].T


class PreActivations(Port):
    """A weight's gradient pairs g with the layer's input before its activation."""

    thread = "maziarraissi/backprop 1"
    causes = {"params.second": "misread"}
    near = ("wrong point",)
    awkward = Inputs({"first": draw(913, 3, 4), "second": draw(914, 4, 2)}, ROWS)

    def value(xp, p, x):
        return xp.tanh(x @ p["first"]) @ p["second"]

    def backward(p, x, g, wrong):
        before = x @ p["first"]
        hidden = np.tanh(before)
        d_before = (g @ p["second"].T) * (1 - hidden**2)
        d_second = (before if wrong else hidden).T @ g
        return {"first": x.T @ d_before, "second": d_second}, d_before @ p["first"].T


class BiasOfAllClasses(Port):
    """The bias's gradient is summed over the classes, too: each class gets the whole."""

    thread = "rasbt/stat453-deep-learning-ss21 5"
    causes = {"params.bias": "extra term"}
    near = ("missing sum", "misread", "wrong term")
    fixture = (
        "One class hides it; the model beside it, with automatic gradients, was right (thread)."
    )
    awkward = Inputs({"weight": draw(915, 3, 4), "bias": draw(916, 4)}, ROWS)
    friendly = Inputs({"weight": draw(915, 3, 1), "bias": draw(916, 1)}, ROWS)

    def value(xp, p, x):
        return x @ p["weight"] + p["bias"]

    def backward(p, x, g, wrong):
        d_bias = np.full_like(p["bias"], g.sum()) if wrong else g.sum(axis=0)
        return {"weight": x.T @ g, "bias": d_bias}, g @ p["weight"].T


class StackedColumns(Port):
    """Each rank has columns of the gradient; they are put together as if they were rows."""

    thread = "Oneflow-Inc/oneflow 8194"
    causes = {"x.a": "misplaced", "x.b": "misplaced"}
    near = ("transposed", "misread")
    fixture = "One rank hides it; the thread names no test."
    awkward = Inputs({}, {"a": draw(917, 3, 4), "b": draw(918, 3, 4)}, {"ranks": 2})
    friendly = Inputs({}, {"a": draw(917, 3, 4), "b": draw(918, 3, 4)}, {"ranks": 1})

    def value(xp, p, x, ranks):
        return xp.stack([x["a"], x["b"]])

    def backward(p, x, g, wrong, ranks):
        if wrong:
            pieces = [np.concatenate([a.ravel() for a in np.split(d, ranks, 1)]) for d in g]
            g = np.reshape(pieces, g.shape)
        return {}, {"a": g[0], "b": g[1]}


class FirstBranch(Port):
    """A tensor with two readers passes on what the first of them sends back."""

    thread = "TrenTorch/TrenTorch 182"
    causes = {"x": "missing term"}
    awkward = Inputs({}, ROWS)

    def value(xp, p, x):
        shared = xp.tanh(x)
        return 2 * shared + shared**3

    def backward(p, x, g, wrong):
        shared = np.tanh(x)
        d_shared = 2 * g
        if not wrong:
            d_shared = d_shared + 3 * shared**2 * g
        return {}, d_shared * (1 - shared**2)


class VisitedTwice(Port):
    """A product with two readers passes back what it has at each visit: the first part twice."""

    thread = "sebgao/cTensor 5"
    causes = {"x": "wrong term"}
    near = ("extra term", "constant factor")
    awkward = Inputs({}, ROWS, {"a": draw(919, 3)})

    def value(xp, p, x, a):
        product = x * a
        return x * product + x * product + x**3

    def backward(p, x, g, wrong, a):
        first, both = g * x, 2 * g * x
        d_product = first + both if wrong else both
        return {}, d_product * a + 2 * g * x * a + 3 * g * x**2


class TwiceAtTheLeaves(Port):
    """A leaf's gradient is added to it by the engine, and by the leaf itself once more."""

    thread = "Oneflow-Inc/oneflow 8955"
    causes = {"x.a": "constant factor", "x.b": "constant factor"}
    awkward = Inputs({}, {"a": 1 + np.abs(draw(920, 5)), "b": draw(921, 5)})

    def value(xp, p, x):
        return xp.log(x["a"]) + x["a"] * x["b"] - xp.sin(x["b"])

    def backward(p, x, g, wrong):
        times = 2 if wrong else 1
        d_a, d_b = 1 / x["a"] + x["b"], x["a"] - np.cos(x["b"])
        return {}, {"a": times * g * d_a, "b": times * g * d_b}


class Quaternion(Port):
    """The backward normalizes the quaternion as well, but not by the step's derivative."""

    thread = "nerfstudio-project/gsplat 153"
    causes = {"x": "missing term"}
    near = ("missing factor", "wrong point")
    fixture = "Quaternions of length one were asked for, not tested (thread)."
    awkward = Inputs({}, draw(922, 5, 4), {"v": draw(923, 3)})

    def value(xp, p, x, v):
        unit = x / xp.sqrt((x * x).sum(axis=-1, keepdims=True))
        w, r = unit[:, :1], unit[:, 1:]
        across = xp.cross(r, v * xp.ones_like(r))
        return v + 2 * w * across + 2 * xp.cross(r, across)

    def backward(p, x, g, wrong, v):
        length = np.sqrt((x * x).sum(axis=-1, keepdims=True))
        unit = x / length
        w, r, v = unit[:, :1], unit[:, 1:], np.broadcast_to(v, (len(x), 3))
        across = np.cross(r, v)
        d_across = 2 * w * g + 2 * np.cross(g, r)
        d_r = 2 * np.cross(across, g) + np.cross(v, d_across)
        d_unit = np.concatenate([2 * (g * across).sum(axis=-1, keepdims=True), d_r], 1)
        if wrong:
            return {}, d_unit
        along = (d_unit * unit).sum(axis=-1, keepdims=True)
        return {}, (d_unit - along * unit) / length
