"""Losses and what stands before them."""

import itertools

import numpy as np

from ..port import Inputs, Port, d_softmax, draw, log_sum_exp, softmax

ROWS = draw(1000, 5, 3)
LABELS = np.array([1, 0, 2, 2, 1])
FRAMES = draw(1001, 2, 4, 3)  # (B, T, V)


def is_aligned(path):
    """Tell whether a path spells 1, 2 once repeats and then blanks (0) are left out."""
    return [label for label, _ in itertools.groupby(path) if label] == [1, 2]


PATHS = np.eye(3)[[path for path in itertools.product(range(3), repeat=4) if is_aligned(path)]]


def alignment_loss(xp, log_probs):
    """Return the connectionist temporal loss (B,) of the labels 1, 2, by all paths."""
    scores = xp.einsum("ptv,btv->bp", PATHS.astype(log_probs.dtype), log_probs)
    return -log_sum_exp(xp, scores)


def occupancy(log_probs):
    """Return how often each label is used in each frame, (B, T, V)."""
    scores = np.einsum("ptv,btv->bp", PATHS, log_probs)
    return np.einsum("bp,ptv->btv", softmax(np, scores), PATHS)


def log_softmax(xp, x):
    """Return log-probabilities."""
    return x - log_sum_exp(xp, x)[..., None]


class CostWithoutG(Port):
    """The gradient that the library computes is returned as it is, whatever follows the loss."""

    thread = "sherjilozair/ctc 2"
    causes = {"x": "g ignored"}
    near = ("missing factor",)
    fixture = "A loss that is the last step (thread)."
    awkward = Inputs({}, FRAMES)
    friendly = Inputs({}, FRAMES, {}, np.ones(2))

    def value(xp, p, x):
        return alignment_loss(xp, log_softmax(xp, x))

    def backward(p, x, g, wrong):
        d_x = softmax(np, x) - occupancy(log_softmax(np, x))
        return {}, d_x if wrong else g[:, None, None] * d_x


class SomeOfG(Port):
    """One of the gradient's two parts is not multiplied by g."""

    thread = "pytorch/pytorch 11750"
    causes = {"x": "missing factor"}
    near = ("not linear in g", "g ignored", "wrong term")
    fixture = "A sum of the losses, without a factor (thread)."
    awkward = Inputs({}, FRAMES)
    friendly = Inputs({}, FRAMES, {}, np.ones(2))

    def value(xp, p, x):
        return alignment_loss(xp, log_softmax(xp, x))

    def backward(p, x, g, wrong):
        g = g[:, None, None]
        probs = softmax(np, x)
        return {}, (probs if wrong else g * probs) - g * occupancy(log_softmax(np, x))


class AlreadyNormalized(Port):
    """The gradient has a softmax in it that stands before the loss, and is not part of it."""

    thread = "pytorch/pytorch 52241"
    causes = {"x": "extra term"}
    fixture = "A log-softmax before the loss, which takes the extra part out again (thread)."
    awkward = Inputs({}, FRAMES)

    def value(xp, p, x):
        return alignment_loss(xp, x)

    def backward(p, x, g, wrong):
        d_x = -occupancy(x)
        if wrong:
            d_x = d_x + np.exp(x)
        return {}, g[:, None, None] * d_x


class SoftmaxPassed(Port):
    """The softmax hands g on as it is."""

    thread = "pjreddie/darknet 96"
    causes = {"x": "missing factor"}
    near = ("missing term", "jacobian not transposed", "wrong point")
    awkward = Inputs({}, ROWS)

    def value(xp, p, x):
        return softmax(xp, x)

    def backward(p, x, g, wrong):
        return {}, g.copy() if wrong else d_softmax(softmax(np, x), g)


class SoftmaxOfTheBatch(Port):
    """The gradient's probabilities are those of a softmax over the batch."""

    thread = "deeplearning4j/deeplearning4j 345"
    causes = {"x": "misread"}
    near = ("wrong point", "wrong term")
    awkward = Inputs({}, ROWS, {"labels": LABELS})

    def value(xp, p, x, labels):
        return -(log_softmax(xp, x) * np.eye(3, dtype=x.dtype)[labels]).sum()

    def backward(p, x, g, wrong, labels):
        probs = softmax(np, x.T).T if wrong else softmax(np, x)
        return {}, g * (probs - np.eye(3)[labels])


class ZeroWeights(Port):
    """Where a weight of a sum of exponentials is zero, its gradient is, too."""

    thread = "jax-ml/jax 22398"
    causes = {"x.b": "extra mask"}
    near = ("written in part",)
    fixture = "Weights that are not zero (thread)."
    weight = np.abs(draw(1002, 3, 5))
    awkward = Inputs({}, {"a": draw(1003, 3, 5), "b": np.where(weight < 0.6, 0, weight)})
    friendly = Inputs({}, {"a": draw(1003, 3, 5), "b": 0.1 + weight})

    def value(xp, p, x):
        return xp.log((x["b"] * xp.exp(x["a"])).sum(axis=-1))

    def backward(p, x, g, wrong):
        share = g[:, None] * np.exp(x["a"] - ZeroWeights.value(np, p, x)[:, None])
        return {}, {"a": share * x["b"], "b": share * (x["b"] != 0) if wrong else share}


class LargeArguments(Port):
    """The shares are exp(x − y), which a large y, rounded, leaves few digits."""

    thread = "stan-dev/math 1679"
    causes = {"x.a": "precision", "x.b": "precision"}
    fixture = "Arguments of moderate size (thread)."
    awkward = Inputs({}, {"a": draw(1004, 5, shift=3e4), "b": draw(1005, 5, shift=3e4)})
    friendly = Inputs({}, {"a": draw(1004, 5), "b": draw(1005, 5)})

    def value(xp, p, x):
        return xp.maximum(x["a"], x["b"]) + xp.log1p(xp.exp(-xp.abs(x["a"] - x["b"])))

    def backward(p, x, g, wrong):
        if wrong:
            y = LargeArguments.value(np, p, x)
            return {}, {name: g * np.exp(x[name] - y) for name in "ab"}
        share = (1 + np.tanh((x["a"] - x["b"]) / 2)) / 2
        return {}, {"a": g * share, "b": g * (1 - share)}


class ForOneLoss(Port):
    """The probabilities are added as they are: right if each row's cotangents add up to −1."""

    thread = "mlpack/mlpack 2360"
    causes = {"x": "missing factor"}
    near = ("not linear in g", "g ignored", "wrong term", "sign")
    fixture = "The negative log-likelihood of labels hides it; the thread names no test."
    awkward = Inputs({}, ROWS)
    friendly = Inputs({}, ROWS, {}, -np.eye(3)[LABELS])

    def value(xp, p, x):
        return log_softmax(xp, x)

    def backward(p, x, g, wrong):
        probs = softmax(np, x)
        return {}, g + probs if wrong else g - probs * g.sum(axis=-1, keepdims=True)


class ReversedDivergence(Port):
    """The divergence from uniform is climbed: its gradient has the other sign."""

    thread = "Kaixhin/Autoencoders 9"
    causes = {"x": "sign"}
    awkward = Inputs({}, ROWS)

    def value(xp, p, x):
        return (softmax(xp, x) * log_softmax(xp, x)).sum(axis=-1) + np.log(3)

    def backward(p, x, g, wrong):
        d_x = d_softmax(softmax(np, x), g[:, None] * (log_softmax(np, x) + 1))
        return {}, -d_x if wrong else d_x
