"""Linear maps, reductions and turns."""

import numpy as np

from ..port import Inputs, Port, draw

ROWS = draw(1330, 5, 3)


def affine(p, x):
    """Return x·weight + bias."""
    return x @ p["weight"] + p["bias"]


AFFINE = {"weight": draw(1331, 3, 5), "bias": draw(1332, 5)}


class OverAllEntries(Port):
    """The mean over some axes sends g back divided by the number of all entries."""

    thread = "swiftlang/swift 23033"
    causes = {"x": "constant factor"}
    near = ("extra factor",)
    fixture = "The mean over all axes hides it; the thread names no test."
    awkward = Inputs({}, draw(1333, 2, 3, 5), {"kept": 2})
    friendly = Inputs({}, draw(1333, 2, 3, 5), {"kept": 0})

    def value(xp, p, x, kept):
        return x.mean(axis=tuple(range(kept, x.ndim)))

    def backward(p, x, g, wrong, kept):
        count = x.size if wrong else x[(0,) * kept].size
        g = g.reshape(g.shape + (1,) * (x.ndim - kept))
        return {}, np.broadcast_to(g, x.shape) / count


class AxisFromTheEnd(Port):
    """The product's axis is moved to the front by a permutation that a negative axis spoils."""

    thread = "tensorflow/tensorflow 10835"
    causes = {"": "exception"}
    fixture = "Axes that count from the front (thread)."
    awkward = Inputs({}, ROWS, {"axis": -1})
    friendly = Inputs({}, ROWS, {"axis": 1})

    def value(xp, p, x, axis):
        return x.prod(axis=axis)

    def backward(p, x, g, wrong, axis):
        if not wrong:
            axis %= x.ndim
        order = [axis, *(i for i in range(x.ndim) if i != axis)]
        front = x.transpose(order)
        others = [np.delete(front, i, 0).prod(axis=0) for i in range(len(front))]
        return {}, (g * np.stack(others)).transpose(np.argsort(order))


class TraceReversed(Port):
    """The trace's backward is the sum of its indices read backwards, which is no such sum."""

    thread = "tensor4all/tenferro-rs 557"
    causes = {"": "exception"}
    awkward = Inputs({}, draw(1334, 2, 3, 3))

    def value(xp, p, x):
        return xp.trace(x, axis1=1, axis2=2)

    def backward(p, x, g, wrong):
        if wrong:
            return {}, np.einsum("b->bii", g)
        return {}, g[:, None, None] * np.eye(*x.shape[1:])


class EntryNotConjugated(Port):
    """The other factor of an entrywise complex product is not conjugated; pairs are numbers."""

    thread = "PaddlePaddle/Paddle 29757"
    causes = {"x.a": "wrong term", "x.b": "wrong term"}
    near = ("jacobian not transposed", "sign", "misread")
    fixture = "Real numbers (thread)."
    pairs = {"a": draw(1335, 5, 2), "b": draw(1336, 5, 2)}
    awkward = Inputs({}, pairs)
    friendly = Inputs({}, {name: a * np.array([1, 0]) for name, a in pairs.items()})

    def product(xp, a, b):
        (a, a_i), (b, b_i) = a.T, b.T
        return xp.stack([a * b - a_i * b_i, a * b_i + a_i * b], -1)

    def value(xp, p, x):
        return EntryNotConjugated.product(xp, x["a"], x["b"])

    def backward(p, x, g, wrong):
        a, b = (np.array([1, 1 if wrong else -1]) * x[name] for name in "ab")
        product = EntryNotConjugated.product
        return {}, {"a": product(np, g, b), "b": product(np, g, a)}


class BiasAveraged(Port):
    """The bias gets the mean over the batch where the sum belongs."""

    thread = "kvfrans/notes 5"
    causes = {"params.bias": "constant factor"}
    near = ("extra factor",)
    fixture = "A batch of one hides it; the page has no test (thread)."
    awkward = Inputs(AFFINE, ROWS)
    friendly = Inputs(AFFINE, ROWS[:1])

    def value(xp, p, x):
        return affine(p, x)

    def backward(p, x, g, wrong):
        d_bias = g.sum(axis=0) / (max(len(x), 1) if wrong else 1)
        return {"weight": x.T @ g, "bias": d_bias}, g @ p["weight"].T


class ActivatedInPlace(Port):
    """The sigmoid is applied in place, so that its slope is taken at the output."""

    thread = "deeplearning4j/deeplearning4j 364"
    causes = {"params.weight": "wrong point", "params.bias": "wrong point", "x": "wrong point"}
    near = ("misread",)
    awkward = Inputs(AFFINE, ROWS)

    def sigmoid(xp, z):
        return xp.exp(-xp.logaddexp(0 * z, -z))

    def value(xp, p, x):
        return ActivatedInPlace.sigmoid(xp, affine(p, x))

    def backward(p, x, g, wrong):
        sigmoid, z = ActivatedInPlace.sigmoid, affine(p, x)
        if wrong:
            z = sigmoid(np, z)
        d_z = g * sigmoid(np, z) * sigmoid(np, -z)
        return {"weight": x.T @ d_z, "bias": d_z.sum(axis=0)}, d_z @ p["weight"].T


class BiasOfOneExample(Port):
    """The bias is passed over if its gradient has no more than one row."""

    thread = "deeplearning4j/deeplearning4j 364"
    causes = {"params.bias": "never written"}
    near = ("edge shape",)
    fixture = "Batches of more than one (thread)."
    awkward = Inputs(AFFINE, ROWS[:1])
    friendly = Inputs(AFFINE, ROWS)

    def value(xp, p, x):
        return affine(p, x)

    def backward(p, x, g, wrong):
        d_bias = g.sum(axis=0) * (len(g) > 1 if wrong else 1)
        return {"weight": x.T @ g, "bias": d_bias}, g @ p["weight"].T


class IdentityOfAnotherLength(Port):
    """Where a quaternion (w, 0) turns nothing, the slope is 2, as for w = 1, and not 2/w."""

    thread = "kornia/kornia 4246"
    causes = {"x": "missing factor"}
    near = ("constant factor", "wrong term", "sign", "wrong point")
    fixture = "A w of one (thread)."
    still = np.array([[1], [0], [0], [1], [0]])  # whether a row turns
    turns = np.concatenate([np.array([[0.8], [-1], [2], [1.3], [-0.6]]), still * ROWS], 1)
    awkward = Inputs({}, turns)
    friendly = Inputs({}, np.concatenate([np.ones((5, 1)), still * ROWS], 1))

    def value(xp, p, x):
        real, axis = x[:, :1], x[:, 1:]
        square = (axis * axis).sum(axis=-1, keepdims=True)
        length = xp.sqrt(xp.where(square > 0, square, 1 + 0 * square))
        return axis * xp.where(square > 0, 2 * xp.arctan(length / real) / length, 2 / real)

    def backward(p, x, g, wrong):
        real, axis = x[:, :1], x[:, 1:]
        square = (axis * axis).sum(axis=-1, keepdims=True)
        length = np.sqrt(np.where(square > 0, square, 1))
        half, both = np.arctan(length / real) / length, real**2 + square
        ratio = np.where(square > 0, 2 * half, 2 if wrong else 2 / real)
        along = (g * axis).sum(axis=-1, keepdims=True)
        d_axis = g * ratio + axis * along * 2 * (real / both - half) / length**2
        return {}, np.concatenate([-2 * along / both, d_axis], 1)
