"""Products, geometry, and tensors that several readers share."""

from typing import Any

import numpy as np

from ..port import Inputs, Port, d_softmax, draw, in_memory_order, softmax
from .indices import d_turn, turn

ROWS = draw(1180, 5, 3)


def projected(xp, place):
    """Return where a camera at the origin sees places (N, 3)."""
    a, b, depth = place.T
    return xp.stack([a / depth, b / depth], -1)


def d_projected(place, g):
    """Return the cotangent of the places."""
    (a, b, depth), (d_a, d_b) = place.T, g.T / place.T[2]
    return np.stack([d_a, d_b, -(d_a * a + d_b * b) / depth], -1)


class NotConjugated(Port):
    """The other factor of a complex product is not conjugated; pairs stand for the numbers."""

    thread = "tensorflow/tensorflow 4859"
    causes = {"x.a": "wrong term", "x.b": "wrong term"}
    near = ("jacobian not transposed", "sign", "misread")
    fixture = "Real numbers; complex ones had no test (thread)."
    factors = {"a": draw(1181, 3, 5, 2), "b": draw(1182, 5, 4, 2)}
    awkward = Inputs({}, factors)
    friendly = Inputs({}, {name: a * np.array([1, 0]) for name, a in factors.items()})

    def product(xp, a, b):
        (a, a_i), (b, b_i) = xp.moveaxis(a, -1, 0), xp.moveaxis(b, -1, 0)
        return xp.stack([a @ b - a_i @ b_i, a @ b_i + a_i @ b], -1)

    def value(xp, p, x):
        return NotConjugated.product(xp, x["a"], x["b"])

    def backward(p, x, g, wrong):
        sign = np.array([1, 1 if wrong else -1])
        a, b = ((sign * x[name]).swapaxes(0, 1) for name in "ab")
        product = NotConjugated.product
        return {}, {"a": product(np, g, b), "b": product(np, a, g)}


class SpreadBeforeTheSum(Port):
    """Of two readers, one spreads x over a row: both cotangents are added first, then summed."""

    thread = "pytorch/pytorch 13669"
    causes = {"x": "wrong term"}
    near = ("extra factor", "missing sum", "extra term", "constant factor")
    fixture = "Rows of one hide it; without compilation it was right (thread)."
    awkward = Inputs({}, draw(1183, 3), {"width": 4})
    friendly = Inputs({}, draw(1183, 3), {"width": 1})

    def value(xp, p, x, width):
        power = xp.exp(x)
        return 2 * power, power[:, None] * np.ones(width, x.dtype)

    def backward(p, x, g, wrong, width):
        if wrong:
            return {}, np.exp(x) * (2 * g[0][:, None] + g[1]).sum(axis=1)
        return {}, np.exp(x) * (2 * g[0] + g[1].sum(axis=1))


class AssignedByOne(Port):
    """Among the readers of x, the upsampling assigns its gradient where the others add theirs."""

    thread = "huggingface/candle 3507"
    causes = {"x": "missing term"}
    fixture = "One reader hides it; the test came with the fix (thread)."
    awkward = Inputs({}, ROWS)
    friendly = Inputs({}, ROWS, {}, (draw(1185, 5, 6), np.zeros((5, 3))))

    def value(xp, p, x):
        return xp.repeat(x, 2, 1), xp.tanh(x)

    def backward(p, x, g, wrong):
        d_x = g[0].reshape(*x.shape, 2).sum(axis=-1)
        return {}, d_x if wrong else d_x + g[1] * (1 - np.tanh(x) ** 2)


class SetNotIncremented(Port):
    """The softmax sets the adjoint of its input, to which a second reader has added already."""

    thread = "stan-dev/math 2048"
    causes = {"x": "missing term"}
    near = ("missing factor",)
    fixture = "Tests whose adjoints are zero before (thread)."
    awkward = Inputs({}, ROWS)

    def value(xp, p, x):
        return softmax(xp, x) * x

    def backward(p, x, g, wrong):
        probs = softmax(np, x)
        d_x = d_softmax(probs, g * x)
        return {}, d_x if wrong else d_x + g * probs


class WrittenByParts(Port):
    """The turn of an inverse pose is written part by part, and nothing comes back through that."""

    thread = "NVlabs/curobo 393"
    causes = {"x.turn": "missing term"}
    near = ("g ignored",)
    fixture = "A loss of the place alone hides it; the thread names no test."
    awkward = Inputs({}, {"place": draw(1186, 4, 3), "turn": draw(1187, 4, 4)})
    friendly = Inputs({}, awkward.x, {}, (draw(1188, 4, 3), np.zeros((4, 4))))
    back = np.array([1, -1, -1, -1])

    def value(xp, p, x):
        turned = x["turn"] * WrittenByParts.back[: x["turn"].shape[-1]].astype(x["turn"].dtype)
        return -turn(xp, turned, x["place"]), turned

    def backward(p, x, g, wrong):
        back = WrittenByParts.back
        d_turned, d_place = d_turn(x["turn"] * back, x["place"], -g[0])
        return {}, {"place": d_place, "turn": (d_turned if wrong else d_turned + g[1]) * back}


class OtherQuotient(Port):
    """A number over a vector gets the gradients of a vector over a number, and g as a divisor."""

    thread = "NVIDIA/warp 831"
    causes = {"x.number": "misread", "x.vector": "not linear in g"}
    near = ("wrong term", "swapped", "wrong point", "missing factor", "extra factor")
    awkward = Inputs({}, {"number": 1 + draw(1189, 5, 1) ** 2, "vector": 1 + ROWS**2})

    def value(xp, p, x):
        return x["number"] / x["vector"]

    def backward(p, x, g, wrong):
        number, vector = x["number"], x["vector"]
        if wrong:
            d_number = -(vector * g).sum(axis=-1, keepdims=True) / number**2
            with np.errstate(divide="ignore"):
                return {}, {"number": d_number, "vector": number / g}
        d_number = (g / vector).sum(axis=-1, keepdims=True)
        return {}, {"number": d_number, "vector": -number * g / vector**2}


class ColourOfTheDirection(Port):
    """The place moves the direction of view, too, from which the colour sends nothing back."""

    thread = "MooreThreads/LiteGS 1"
    causes = {"x": "missing term"}
    near = ("g ignored",)
    fixture = "A loss of the image's coordinates alone hides it; the thread names no test."
    awkward = Inputs({"colour": draw(1190, 3, 2)}, ROWS + np.array([0, 0, 4]))
    friendly = awkward._replace(cotangent=(draw(1191, 5, 2), np.zeros((5, 2))))

    def value(xp, p, x):
        length = xp.sqrt((x * x).sum(axis=-1, keepdims=True))
        return projected(xp, x), x / length @ p["colour"]

    def backward(p, x, g, wrong):
        length = np.sqrt((x * x).sum(axis=-1, keepdims=True))
        way, d_x = x / length, d_projected(x, g[0])
        if not wrong:
            d_way = g[1] @ p["colour"].T
            d_x = d_x + (d_way - way * (way * d_way).sum(axis=-1, keepdims=True)) / length
        return {"colour": way.T @ g[1]}, d_x


class PlaceAtTheStart(Port):
    """The projection's slope is taken at the mean, and not at the place of the moment."""

    thread = "fudan-zvg/4d-gaussian-splatting 48"
    causes = {"x.mean": "wrong point", "x.velocity": "wrong point"}
    near = ("misread",)
    fixture = "Places that hardly move (thread); here, the moment that the mean is for."
    moving = {"mean": ROWS + np.array([0, 0, 4]), "velocity": draw(1192, 5, 3)}
    awkward = Inputs({}, moving, {"time": 0.6})
    friendly = Inputs({}, moving, {"time": 0.0})

    def value(xp, p, x, time):
        return projected(xp, x["mean"] + time * x["velocity"])

    def backward(p, x, g, wrong, time):
        place = x["mean"] if wrong else x["mean"] + time * x["velocity"]
        d_place = d_projected(place, g)
        return {}, {"mean": d_place, "velocity": time * d_place}


class FactorsAsTheyLie(Port):
    """Both products of the backward take the other factor as it lies, where its transpose goes."""

    thread = "tile-ai/TileOPs 54"
    causes = {"x.a": "jacobian not transposed", "x.b": "jacobian not transposed"}
    near = ("transposed", "misread")
    awkward = Inputs({}, {"a": draw(1193, 3, 3), "b": draw(1194, 3, 3)})

    def value(xp, p, x):
        return x["a"] @ x["b"]

    def backward(p, x, g, wrong):
        a, b = (x[name] if wrong else x[name].T for name in "ab")
        return {}, {"a": g @ b, "b": a @ g}


class VectorWithoutTranspose(Port):
    """A vector is its own transpose to NumPy: g times it is no outer product."""

    thread = "harvard-edge/cs249r_book 1781"
    causes = {"": "exception"}
    near = ("structure",)
    fixture = "Two matrices (thread)."
    awkward = Inputs({}, {"a": draw(1195, 3, 2), "b": draw(1196, 2)})
    friendly = Inputs({}, {"a": draw(1195, 3, 2), "b": draw(1197, 2, 4)})

    def value(xp, p, x):
        return x["a"] @ x["b"]

    def backward(p, x, g, wrong):
        outer = x["b"].ndim == 1 and not wrong
        d_a = np.outer(g, x["b"]) if outer else g @ x["b"].T
        return {}, {"a": d_a, "b": x["a"].T @ g}


class SlicesOfARow(Port):
    """The size of a batch of one is taken to be the length of its row."""

    thread = "deeplearning4j/deeplearning4j 1452"
    causes = {"params.weight": "edge shape"}
    near = ("constant factor", "extra factor", "missing factor")
    fixture = "Batches of more than one (thread)."
    awkward = Inputs({"weight": draw(1198, 3, 2)}, ROWS[:1])
    friendly = Inputs({"weight": draw(1198, 3, 2)}, ROWS)

    def value(xp, p, x):
        return (x @ p["weight"]).sum(axis=0) / max(len(x), 1)

    def backward(p, x, g, wrong):
        size = x.shape[1] if wrong and len(x) == 1 else max(len(x), 1)
        d_weight = x.sum(axis=0)[:, None] * g / size
        return {"weight": d_weight}, np.broadcast_to(g @ p["weight"].T / max(len(x), 1), x.shape)


class MeanOfStrides(Port):
    """The mean spreads g as it lies in memory, as if it were contiguous."""

    thread = "torch/nn 345"
    causes = {"": "layout"}
    near = ("misread",)
    fixture = "Contiguous cotangents; two means in a row showed it (thread)."
    awkward = Inputs({}, draw(1199, 3, 2, 5))
    friendly = awkward

    def value(xp, p, x):
        return x.mean(axis=-1)

    def backward(p, x, g, wrong):
        g = in_memory_order(g) if wrong else g
        return {}, np.broadcast_to(g[..., None], x.shape) / x.shape[-1]


class AdjointsOfTheLastTime(Port):
    """A tensor with two readers keeps the sum of their adjoints, and adds to it the next time."""

    thread = "bshillingford/autobw.torch 7"
    causes = {"": "hidden state"}
    near = ("wrong term", "extra term")
    fixture = "The first evaluation (thread)."
    awkward = Inputs({}, ROWS)
    kept: dict[Any, Any] = {}

    def value(xp, p, x):
        shared = xp.tanh(x)
        return 2 * shared + shared**3

    def backward(p, x, g, wrong):
        shared = np.tanh(x)
        d_shared = 2 * g + 3 * shared**2 * g
        if wrong:
            kept = AdjointsOfTheLastTime.kept
            d_shared = kept[x.shape] = d_shared + kept.get(x.shape, 0)
        return {}, d_shared * (1 - shared**2)
