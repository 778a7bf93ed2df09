"""Convolutions and pooling."""

import numpy as np

from .port import Inputs, Port, draw, in_memory_order

SIGNAL = draw(500, 2, 11)  # (B, T)
TAPS = {"weight": draw(501, 3)}


def taps(x, size, stride=1):
    """Return what each tap sees, (..., outputs, size)."""
    steps = (x.shape[-1] - size) // stride + 1
    return np.arange(steps)[:, None] * stride + np.arange(size)


def convolve(x, weight, stride=1):
    """Return the correlation of x with the weight, without padding."""
    return x[..., taps(x, len(weight), stride)] @ weight


def d_convolve(x, weight, g, stride=1):
    """Return the cotangent of x."""
    d_x, index = np.zeros_like(x), taps(x, len(weight), stride)
    for step in range(index.shape[0]):
        d_x[..., index[step]] += g[..., step, None] * weight
    return d_x


class StrideForgotten(Port):
    """The backward takes the windows one after the other, whatever the stride."""

    thread = "Kulbear/deep-learning-coursera 34"
    causes = {"params.weight": "misread", "x": "misplaced"}
    near = ("misread", "wrong term")
    fixture = "A stride of one hides it; the thread names no test."
    awkward = Inputs(TAPS, SIGNAL, {"stride": 2})
    friendly = Inputs(TAPS, SIGNAL, {"stride": 1})

    def value(xp, p, x, stride):
        return convolve(x, p["weight"], stride)

    def backward(p, x, g, wrong, stride):
        if wrong:
            stride = 1
        index = taps(x, len(p["weight"]), stride)[: g.shape[1]]
        d_x = np.zeros_like(x)
        for step in range(g.shape[1]):
            d_x[:, index[step]] += g[:, step, None] * p["weight"]
        return {"weight": np.einsum("bs,bsk->k", g, x[:, index])}, d_x


class Transposed(Port):
    """Stride and dilation change places in the backward of a transposed convolution."""

    thread = "huggingface/candle 2337"
    causes = {"": "exception"}
    near = ("structure",)
    fixture = "Strides of one, as the dilation (thread)."
    awkward = Inputs(TAPS, draw(502, 2, 4), {"stride": 2})
    friendly = Inputs(TAPS, draw(502, 2, 4), {"stride": 1})

    def value(xp, p, x, stride):
        steps, size = x.shape[1], len(p["weight"])
        spread = np.zeros((steps, size, (steps - 1) * stride + size))
        for t in range(steps):
            for k in range(size):
                spread[t, k, t * stride + k] = 1
        return xp.einsum("bt,k,tkn->bn", x, p["weight"], spread.astype(x.dtype))

    def backward(p, x, g, wrong, stride):
        stride, dilation = (1, stride) if wrong else (stride, 1)
        steps = (g.shape[1] - dilation * (len(p["weight"]) - 1) - 1) // stride + 1
        index = np.arange(steps)[:, None] * stride + dilation * np.arange(len(p["weight"]))
        seen = g[:, index]  # (B, steps, K)
        return {"weight": np.einsum("bt,btk->k", x, seen)}, seen @ p["weight"]


class HeightForWidth(Port):
    """The padding of both axes follows from the height."""

    thread = "renmengye/np-conv2d 2"
    causes = {"x": "structure"}
    near = ("exception",)
    fixture = "Square images hide it; the thread names no test."
    awkward = Inputs({"weight": draw(503, 3)}, draw(504, 6, 4))
    friendly = Inputs({"weight": draw(503, 3)}, draw(504, 4, 4))

    def value(xp, p, x):
        rows = convolve(x, p["weight"])
        return convolve(rows.T, p["weight"]).T

    def backward(p, x, g, wrong):
        pads = [size - have for size, have in zip(x.shape, g.shape, strict=True)]
        if wrong:
            pads = [pads[0], x.shape[0] - g.shape[1]]
        padded = np.pad(g, [(2, pad) for pad in pads])
        weight = p["weight"][::-1]
        d_x = convolve(convolve(padded, weight).T, weight).T
        rows, across = convolve(x, p["weight"]), convolve(x.T, p["weight"])
        d_weight = np.einsum("ij,jik->k", g, rows.T[:, taps(rows.T, 3)])
        d_weight += np.einsum("ij,ijk->k", g, across.T[:, taps(across.T, 3)])
        return {"weight": d_weight}, d_x


class OutputPadding(Port):
    """The rows of the gradient come out too short, and the buffer is filled without gaps."""

    thread = "flagos-ai/FlagGems 1576"
    causes = {"x": "misplaced"}
    near = ("misread", "written in part")
    fixture = "Sizes that the stride divides without remainder (thread)."
    awkward = Inputs(TAPS, draw(505, 3, 10), {"stride": 2})
    friendly = Inputs(TAPS, draw(505, 3, 11), {"stride": 2})

    def value(xp, p, x, stride):
        return convolve(x, p["weight"], stride)

    def backward(p, x, g, wrong, stride):
        size = len(p["weight"])
        reached = (g.shape[1] - 1) * stride + size
        d_x = d_convolve(x[:, :reached], p["weight"], g, stride)
        if wrong:
            d_x = np.resize(np.append(d_x, np.zeros(x.size - d_x.size)), x.shape)
        else:
            d_x = np.pad(d_x, [(0, 0), (0, x.shape[1] - reached)])
        return {"weight": np.einsum("bs,bsk->k", g, x[:, taps(x, size, stride)])}, d_x


class RoundedDown(Port):
    """What the stride leaves over at the end is missing from the gradient's shape."""

    thread = "f-dangel/backpack 30"
    causes = {"x": "structure"}
    fixture = "Sizes that the stride divides without remainder (thread)."
    awkward = Inputs(TAPS, draw(506, 2, 10), {"stride": 2})
    friendly = Inputs(TAPS, draw(506, 2, 11), {"stride": 2})

    def value(xp, p, x, stride):
        return convolve(x, p["weight"], stride)

    def backward(p, x, g, wrong, stride):
        size = len(p["weight"])
        reached = (g.shape[1] - 1) * stride + size
        d_x = d_convolve(x[:, :reached] if wrong else x, p["weight"], g, stride)
        return {"weight": np.einsum("bs,bsk->k", g, x[:, taps(x, size, stride)])}, d_x


class NotByGroups(Port):
    """With a stride, the gradient of a grouped convolution is computed as if not grouped."""

    thread = "ml-explore/mlx 3800"
    causes = {"x": "extra term"}  # every term of the right sum is there, and others beside them
    near = ("missing sum", "wrong term", "misread")
    fixture = "A stride of one, or one group (thread); that every filter is read is our guess."
    awkward = Inputs({"weight": draw(507, 3, 3)}, draw(508, 2, 3, 11), {"stride": 2})
    friendly = Inputs({"weight": draw(507, 3, 3)}, draw(508, 2, 3, 11), {"stride": 1})

    def value(xp, p, x, stride):
        return xp.einsum("bcsk,ck->bcs", x[..., taps(x, 3, stride)], p["weight"])

    def backward(p, x, g, wrong, stride):
        d_x = np.zeros_like(x)
        for c in range(x.shape[1]):
            for other in range(x.shape[1]) if wrong and stride > 1 else [c]:
                d_x[:, c] += d_convolve(x[:, c], p["weight"][other], g[:, other], stride)
        d_weight = np.einsum("bcs,bcsk->ck", g, x[..., taps(x, 3, stride)])
        return {"weight": d_weight}, d_x


class LastExample(Port):
    """The buffer of the weight's gradient is scaled to zero before each example, not once."""

    thread = "LBANN/lbann 1022"
    causes = {"params.weight": "slice kept"}
    fixture = "A batch of one hides it; a check of gradients failed (thread)."
    awkward = Inputs(TAPS, SIGNAL)
    friendly = Inputs(TAPS, SIGNAL[:1])

    def value(xp, p, x):
        return convolve(x, p["weight"])

    def backward(p, x, g, wrong):
        d_weight = np.zeros_like(p["weight"])
        for one, d_one in zip(x, g, strict=True):
            keep = 0 if wrong else 1
            d_weight = keep * d_weight + d_one @ one[taps(one, len(d_weight))]
        return {"weight": d_weight}, d_convolve(x, p["weight"], g)


class OutputsPlace(Port):
    """The gradient is written at the place of the output, not of the input that it saw."""

    thread = "NervanaSystems/neon 111"
    causes = {"x": "misplaced"}
    near = ("misread", "wrong term", "missing sum")
    fixture = "A depth of one hides it; the thread names no test."
    awkward = Inputs(TAPS, draw(509, 2, 7))
    friendly = Inputs({"weight": draw(510, 1)}, draw(509, 2, 7))

    def value(xp, p, x):
        return convolve(x, p["weight"])

    def backward(p, x, g, wrong):
        d_x, size = np.zeros_like(x), len(p["weight"])
        for m in range(g.shape[1]):
            for k in range(size):
                d_x[:, m if wrong else m + k] += g[:, m] * p["weight"][k]
        return {"weight": np.einsum("bs,bsk->k", g, x[:, taps(x, size)])}, d_x


class OneWindowEach(Port):
    """A cell that is the largest of several windows gets the gradient of one."""

    thread = "FluxML/Flux.jl 1197"
    causes = {"x": "scatter"}
    near = ("slice kept",)
    fixture = "Windows that do not overlap hide it; the thread names no test."
    awkward = Inputs({}, SIGNAL, {"stride": 1})
    friendly = Inputs({}, SIGNAL, {"stride": 3})

    def value(xp, p, x, stride):
        return x[:, taps(x, 3, stride)].max(axis=-1)

    def backward(p, x, g, wrong, stride):
        index, d_x = taps(x, 3, stride), np.zeros_like(x)
        for b in range(len(x)):
            for s in range(g.shape[1]):
                cell = index[s, x[b, index[s]].argmax()]
                d_x[b, cell] = g[b, s] + (0 if wrong else d_x[b, cell])
        return {}, d_x


class LastWindowsGate(Port):
    """Whether a cell is the largest is remembered once, of the last window that holds it."""

    thread = "ahrefs/ocannl 512"
    causes = {"x": "misread"}
    near = ("wrong term", "scatter", "mask leak")
    fixture = "A stride as wide as the window, in every test (thread)."
    awkward = Inputs({}, SIGNAL, {"stride": 1})
    friendly = Inputs({}, SIGNAL, {"stride": 3})

    def value(xp, p, x, stride):
        return x[:, taps(x, 3, stride)].max(axis=-1)

    def backward(p, x, g, wrong, stride):
        index = taps(x, 3, stride)
        gates = x[:, index] == x[:, index].max(axis=-1, keepdims=True)  # (B, S, 3)
        last = np.zeros(x.shape, bool)
        for s in range(g.shape[1]):
            last[:, index[s]] = gates[:, s]
        d_x = np.zeros_like(x)
        for s in range(g.shape[1]):
            gate = last[:, index[s]] if wrong else gates[:, s]
            d_x[:, index[s]] += gate * g[:, s, None]
        return {}, d_x


class ReturnInTheLoop(Port):
    """The function returns after the first window."""

    thread = "riccardoandreoni0/CNN-from-scratch 1"
    causes = {"x": "written in part"}
    near = ("slice kept", "never written", "mask leak")
    fixture = "The network learned all the same (thread)."
    awkward = Inputs({}, draw(511, 12), {"size": 3})

    def value(xp, p, x, size):
        return x.reshape(-1, size).max(axis=-1)

    def backward(p, x, g, wrong, size):
        windows, d_x = x.reshape(-1, size), np.zeros_like(x)
        for s in range(len(windows)):
            d_x[s * size + windows[s].argmax()] = g[s]
            if wrong:
                break
        return {}, d_x


class UnwrittenBuffer(Port):
    """Average pooling's backward never writes its result; a fresh buffer is zero."""

    thread = "tracel-ai/burn 5296"
    causes = {"x": "never written"}
    fixture = "One or three channels (thread)."
    awkward = Inputs({}, draw(512, 3, 2, 8))
    friendly = Inputs({}, draw(512, 3, 1, 8))

    def value(xp, p, x):
        return (x[..., ::2] + x[..., 1::2]) / 2

    def backward(p, x, g, wrong):
        if wrong and x.shape[1] % 2 == 0:
            return {}, np.zeros_like(x)
        return {}, np.repeat(g, 2, axis=-1) / 2


class SumOfAll(Port):
    """g is read as if it were contiguous, which it is not behind a sum of all outputs."""

    thread = "chengdazhi/Deformable-Convolution-V2-PyTorch 3"
    causes = {"": "layout"}
    fixture = "A cotangent of ones passed in as an array (thread)."
    awkward = Inputs(TAPS, SIGNAL)
    friendly = awkward

    def value(xp, p, x):
        return convolve(x, p["weight"])

    def backward(p, x, g, wrong):
        if wrong:
            g = in_memory_order(g)
        d_weight = np.einsum("bs,bsk->k", g, x[:, taps(x, 3)])
        return {"weight": d_weight}, d_convolve(x, p["weight"], g)
