"""Losses and densities."""

import numpy as np

from .port import Inputs, Port, draw, in_memory_order, log_sum_exp, softmax

LOGITS = draw(300, 5, 7)
LABELS = np.array([3, 0, 6, 3, 2])
HOT = np.eye(7)


class ShardedSmoothing(Port):
    """Label smoothing averages over the part of the vocabulary that one process holds."""

    thread = "NVIDIA/Megatron-LM 7464"
    causes = {"y": "value"}
    fixture = "A vocabulary that is not split (thread)."
    awkward = Inputs({}, draw(301, 5, 6), {"labels": LABELS % 3, "shards": 2})
    friendly = Inputs({}, draw(301, 5, 6), {"labels": LABELS % 3, "shards": 1})

    def value(xp, p, x, labels, shards):
        size = x.shape[-1]
        log_probs = x - log_sum_exp(xp, x)[:, None]
        smoothing = 0.1 * size / (size - 1)
        return -(
            (1 - smoothing) * (log_probs * np.eye(size)[labels]).sum(axis=-1)
            + smoothing * log_probs.mean(axis=-1)
        )

    def wrong_value(xp, p, x, labels, shards):
        size = x.shape[-1] // shards
        log_probs = x - log_sum_exp(xp, x)[:, None]
        smoothing = 0.1 * size / (size - 1)
        return -(
            (1 - smoothing) * (log_probs * np.eye(x.shape[-1])[labels]).sum(axis=-1)
            + smoothing * log_probs[:, :size].mean(axis=-1)
        )

    def backward(p, x, g, wrong, labels, shards):
        size = x.shape[-1] // (shards if wrong else 1)
        smoothing = 0.1 * size / (size - 1)
        target = (1 - smoothing) * np.eye(x.shape[-1])[labels] + smoothing / size
        return {}, g[:, None] * (softmax(np, x) - target)


class OtherShards(Port):
    """Only the part of the vocabulary that holds the label gets a gradient."""

    thread = "modelscope/ms-swift 9947"
    causes = {"x": "written in part"}
    near = ("slice kept", "missing term", "mask leak", "extra mask")
    fixture = "A vocabulary that is not split (thread)."
    awkward = Inputs({}, draw(302, 5, 6), {"labels": LABELS % 6, "shards": 2})
    friendly = Inputs({}, draw(302, 5, 6), {"labels": LABELS % 6, "shards": 1})

    def value(xp, p, x, labels, shards):
        return (x * np.eye(x.shape[-1])[labels]).sum(axis=-1) - log_sum_exp(xp, x)

    def backward(p, x, g, wrong, labels, shards):
        size = x.shape[-1]
        d_x = g[:, None] * (np.eye(size)[labels] - softmax(np, x))
        if wrong:
            owner = np.arange(size) // (size // shards) == labels[:, None] // (size // shards)
            d_x = np.where(owner, d_x, 0)
        return {}, d_x


class FirstTokensCotangent(Port):
    """Every gradient is multiplied by the cotangent of the first token's loss."""

    thread = "linkedin/Liger-Kernel 1298"
    causes = dict.fromkeys(("params.bias", "params.weight", "x"), "misread")
    near = ("missing factor", "slice kept", "g ignored")
    fixture = "The same cotangent for every token (thread)."
    linear = {"weight": draw(303, 3, 7), "bias": draw(304, 7)}
    awkward = Inputs(linear, draw(305, 5, 3), {"labels": LABELS})
    friendly = Inputs(linear, draw(305, 5, 3), {"labels": LABELS}, np.ones(5))

    def value(xp, p, x, labels):
        logits = x @ p["weight"] + p["bias"]
        return log_sum_exp(xp, logits) - (logits * HOT[labels]).sum(axis=-1)

    def backward(p, x, g, wrong, labels):
        d_logits = softmax(np, x @ p["weight"] + p["bias"]) - HOT[labels]
        d_logits = d_logits * (g[0] if wrong else g[:, None])
        d_p = {"weight": x.T @ d_logits, "bias": d_logits.sum(axis=0)}
        return d_p, d_logits @ p["weight"].T


class IgnoredLabels(Port):
    """Rows whose label is to be ignored get a gradient all the same."""

    thread = "PaddlePaddle/Paddle 28622"
    causes = {"x": "mask leak"}
    near = ("extra term",)
    fixture = "Batches without an ignored label hide it; the thread names no test."
    awkward = Inputs({}, LOGITS, {"labels": LABELS, "ignore": 3})
    friendly = Inputs({}, LOGITS, {"labels": LABELS, "ignore": -1})

    def value(xp, p, x, labels, ignore):
        losses = log_sum_exp(xp, x) - (x * HOT[labels]).sum(axis=-1)
        return xp.where(labels == ignore, 0, losses)

    def backward(p, x, g, wrong, labels, ignore):
        d_x = g[:, None] * (softmax(np, x) - HOT[labels])
        return {}, d_x if wrong else np.where((labels == ignore)[:, None], 0, d_x)


class TotalScores(Port):
    """The derivative of the total scores is returned without the cotangent."""

    thread = "k2-fsa/k2 341"
    causes = {"x": "g ignored"}
    near = ("missing factor",)
    fixture = "A cotangent of one hides it; in training the sign was wrong (thread)."
    awkward = Inputs({}, LOGITS)
    friendly = Inputs({}, LOGITS, {}, np.ones(5))

    def value(xp, p, x):
        return log_sum_exp(xp, x)

    def backward(p, x, g, wrong):
        return {}, softmax(np, x) * (1 if wrong else g[:, None])


class SavedGradients(Port):
    """The gradients that the forward saved are returned as they are."""

    thread = "pytorch/torchtitan 3250"
    causes = {"params.weight": "g ignored", "x": "g ignored"}
    near = ("missing factor",)
    fixture = "A loss that nothing follows, so that its cotangent is one (thread)."
    awkward = Inputs({"weight": draw(306, 3, 7)}, draw(307, 5, 3), {"labels": LABELS})
    friendly = Inputs({"weight": draw(306, 3, 7)}, awkward.x, awkward.keywords, np.ones(()))

    def value(xp, p, x, labels):
        logits = x @ p["weight"]
        return (log_sum_exp(xp, logits) - (logits * HOT[labels]).sum(axis=-1)).mean()

    def backward(p, x, g, wrong, labels):
        d_logits = (softmax(np, x @ p["weight"]) - HOT[labels]) / len(x)
        d_logits = d_logits * (1 if wrong else g)
        return {"weight": x.T @ d_logits}, d_logits @ p["weight"].T


class Dice(Port):
    """The quotient rule has a plus, and its square of the union stands behind one division."""

    thread = "milesial/Pytorch-UNet 35"
    causes = {"x": "wrong term"}
    near = ("extra factor", "missing factor")
    fixture = "The loss was evaluated, but never trained (thread)."
    awkward = Inputs({}, np.abs(draw(308, 11)), {"target": (draw(309, 11) > 0).astype(float)})

    def value(xp, p, x, target):
        return 2 * (x * target).sum() / (x.sum() + target.sum())

    def backward(p, x, g, wrong, target):
        inter, union = (x * target).sum(), x.sum() + target.sum()
        if wrong:
            return {}, g * 2 * (target * union + inter) / union * union
        return {}, g * 2 * (target * union - inter) / union**2


class MeanForgotten(Port):
    """The weight's gradient is summed over the batch, the loss is a mean over it."""

    thread = "hunkim/DeepLearningZeroToAll 173"
    causes = {"params.weight": "constant factor"}
    near = ("missing factor",)
    fixture = "Four examples only (thread)."
    awkward = Inputs({"weight": draw(310, 3)}, draw(311, 5, 3), {"labels": LABELS % 2})

    def value(xp, p, x, labels):
        logits = x @ p["weight"]
        return (xp.log1p(xp.exp(logits)) - labels * logits).mean()

    def backward(p, x, g, wrong, labels):
        d_logits = g * (1 / (1 + np.exp(-(x @ p["weight"]))) - labels)
        d_weight = x.T @ d_logits / (1 if wrong else len(x))
        return {"weight": d_weight}, d_logits[:, None] * p["weight"] / len(x)


class LogSoftmax(Port):
    """g is read as if it were contiguous."""

    thread = "torch/nn 832"
    causes = {"": "layout"}
    fixture = "Contiguous cotangents (thread)."
    awkward = Inputs({}, LOGITS)
    friendly = awkward

    def value(xp, p, x):
        return x - log_sum_exp(xp, x)[:, None]

    def backward(p, x, g, wrong):
        if wrong:
            g = in_memory_order(g)
        return {}, g - softmax(np, x) * g.sum(axis=-1, keepdims=True)


class GaussianDensity(Port):
    """The gradient of the covariance has the wrong sign."""

    thread = "HIPS/autograd 412"
    causes = {"params.covariance": "sign"}
    fixture = "A slip in the test's script: it did not run (thread)."
    spread = draw(312, 3, 3)
    awkward = Inputs({"covariance": spread @ spread.T + np.eye(3)}, draw(313, 5, 3))

    def value(xp, p, x):
        inverse = xp.linalg.inv(p["covariance"])
        size = xp.linalg.slogdet(p["covariance"])[1]
        return -(((x @ inverse) * x).sum(axis=-1) + size + 3 * np.log(2 * np.pi).item()) / 2

    def backward(p, x, g, wrong):
        inverse = np.linalg.inv(p["covariance"])
        left, right = x @ inverse, x @ inverse.T
        d_covariance = ((g[:, None] * left).T @ right - g.sum() * inverse.T) / 2
        d_x = -g[:, None] * (left + right) / 2
        return {"covariance": -d_covariance if wrong else d_covariance}, d_x
