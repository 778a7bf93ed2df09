"""Convolutions, sampling and encodings of directions."""

import numpy as np

from ..convolutions import taps
from ..port import Inputs, Port, draw


class ChannelsOfTheGroup(Port):
    """The filter's gradient pairs an output with every n-th input channel, not its group's."""

    thread = "pytorch/pytorch 51430"
    causes = {"params.weight": "misread"}
    near = ("misplaced", "transposed")
    fixture = "One group (thread)."
    awkward = Inputs({"weight": draw(1130, 4, 3, 2)}, draw(1131, 2, 6, 5), {"groups": 2})
    friendly = Inputs({"weight": draw(1130, 4, 3, 2)}, draw(1132, 2, 3, 5), {"groups": 1})

    def channels(weight, groups):
        """Return the input channel of each output and each of its filter's channels, (O, I)."""
        group = np.arange(len(weight))[:, None] * groups // len(weight)
        return group * weight.shape[1] + np.arange(weight.shape[1])

    def value(xp, p, x, groups):
        seen = x[:, ChannelsOfTheGroup.channels(p["weight"], groups)]
        seen = seen[..., taps(x, p["weight"].shape[-1])]  # (B, O, I, S, K)
        return xp.einsum("boisk,oik->bos", seen, p["weight"])

    def backward(p, x, g, wrong, groups):
        weight, index = p["weight"], taps(x, p["weight"].shape[-1])
        channels = ChannelsOfTheGroup.channels(weight, groups)
        d_x, d_seen = np.zeros_like(x), np.einsum("bos,oik->boisk", g, weight)
        places = channels[:, :, None, None], index[None, None]
        np.add.at(d_x, (slice(None), *places), d_seen)
        if wrong:
            group = np.arange(len(weight))[:, None] * groups // len(weight)
            channels = np.arange(weight.shape[1]) * groups + group
        return {"weight": np.einsum("bos,boisk->oik", g, x[:, channels][..., index])}, d_x


class StrideOfOne(Port):
    """For filters of one tap, a shortcut reads g as it lies, whatever the stride."""

    thread = "pytorch/pytorch 63314"
    causes = {"x": "misread"}
    near = ("misplaced",)
    fixture = "The other processor was right (thread); a stride of one hides it."
    awkward = Inputs({"weight": draw(1133, 1)}, draw(1134, 2, 5), {"stride": 2})
    friendly = Inputs({"weight": draw(1133, 1)}, draw(1134, 2, 5), {"stride": 1})

    def value(xp, p, x, stride):
        steps, size = x.shape[1], len(p["weight"])
        at = np.arange(steps)[:, None] * stride + np.arange(size)  # (T, K)
        spread = np.eye((steps - 1) * stride + size)[at].astype(x.dtype)
        return xp.einsum("bt,k,tkn->bn", x, p["weight"], spread)

    def backward(p, x, g, wrong, stride):
        at = np.arange(x.shape[1])[:, None] * stride + np.arange(len(p["weight"]))
        d_weight = np.einsum("bt,btk->k", x, g[:, at])
        if wrong and len(p["weight"]) == 1:
            at = at // stride
        return {"weight": d_weight}, g[:, at] @ p["weight"]


class LastOfTheBlock(Port):
    """Where the first of several numbers is kept, the gradient goes to the last of them."""

    thread = "pytorch/pytorch 38985"
    causes = {"x": "misplaced"}
    near = ("misread",)
    fixture = "The processor, and bilinear filters, were right (thread); here, one size."
    awkward = Inputs({}, draw(1135, 2, 7), {"size": 3})
    friendly = Inputs({}, draw(1135, 2, 7), {"size": 7})

    def value(xp, p, x, size):
        return x[:, np.arange(size) * x.shape[1] // size]

    def backward(p, x, g, wrong, size):
        places = np.arange(size) * x.shape[1] // size
        if wrong:
            places = np.arange(1, size + 1) * x.shape[1] // size - 1
        d_x = np.zeros_like(x)
        np.add.at(d_x.T, places, g.T)
        return {}, d_x


class SmallRegions(Port):
    """In the backward alone, regions are at least one pixel wide: the test for it is reversed."""

    thread = "pytorch/vision 2438"
    causes = {"x": "misplaced"}
    near = ("misread", "wrong term", "wrong point")
    fixture = "Regions wider than a pixel hide it; a test of small ones was to come (thread)."
    small = np.array([[1.2, 1.7], [2.1, 4.8], [4.3, 4.9]])
    awkward = Inputs({}, draw(1136, 2, 7), {"regions": small})
    friendly = Inputs({}, draw(1136, 2, 7), {"regions": small + np.array([0, 1])})

    def shares(steps, regions, least):
        """Return what two samples of each region take from each number, (2R, T)."""
        start, end = regions.T[..., None]
        at = start + np.maximum(end - start, least) * [0.25, 0.75]
        at = np.clip(at.reshape(-1, 1), 0, steps - 1)
        return np.maximum(0, 1 - np.abs(at - np.arange(steps)))

    def value(xp, p, x, regions):
        return x @ SmallRegions.shares(x.shape[1], regions, 0).T.astype(x.dtype)

    def backward(p, x, g, wrong, regions):
        return {}, g @ SmallRegions.shares(x.shape[1], regions, 1 if wrong else 0)


class StrideOfTheDegree(Port):
    """The rows of g are taken to be as long as the degree, and not its square."""

    thread = "NVlabs/tiny-cuda-nn 25"
    causes = {"x": "misread"}
    near = ("misplaced", "layout")
    fixture = "One direction hides it; the thread names no test."
    awkward = Inputs({}, draw(1137, 5, 3))
    friendly = Inputs({}, draw(1138, 1, 3))

    def value(xp, p, x):
        a, b, c = x.T
        parts = [0 * a + 0.28, -0.49 * b, 0.49 * c, -0.49 * a, 1.09 * a * b, -1.09 * b * c]
        parts += [0.95 * c**2 - 0.32, -1.09 * a * c, 0.55 * (a**2 - b**2)]
        return xp.stack(parts, -1)

    def backward(p, x, g, wrong):
        if wrong:
            g = g.ravel()[np.arange(len(g))[:, None] * 3 + np.arange(9)]
        (a, b, c), (_, g1, g2, g3, g4, g5, g6, g7, g8) = x.T, g.T
        d_a = -0.49 * g3 + 1.09 * (b * g4 - c * g7) + 1.1 * a * g8
        d_b = -0.49 * g1 + 1.09 * (a * g4 - c * g5) - 1.1 * b * g8
        d_c = 0.49 * g2 - 1.09 * (b * g5 + a * g7) + 1.9 * c * g6
        return {}, np.stack([d_a, d_b, d_c], -1)


class Overwritten(Port):
    """Numbers that another one has overwritten in the output get its gradient, too."""

    thread = "pytorch/pytorch 80204"
    causes = {"x": "mask leak"}
    near = ("extra term", "misread")
    fixture = "Places that differ (thread)."
    awkward = Inputs({}, draw(1139, 2, 5), {"places": np.array([4, 0, 2, 0, 6])})
    friendly = Inputs({}, draw(1139, 2, 5), {"places": np.array([4, 0, 2, 5, 6])})

    def stays(places):
        return np.array([place not in places[i + 1 :] for i, place in enumerate(places)])

    def value(xp, p, x, places):
        kept = np.eye(7)[places] * Overwritten.stays(places)[:, None]
        return x @ kept.astype(x.dtype)

    def backward(p, x, g, wrong, places):
        return {}, g[:, places] * (1 if wrong else Overwritten.stays(places))
