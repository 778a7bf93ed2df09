"""Recurrences and convolutions along time."""

import numpy as np

from .port import Inputs, Port, draw

STEPS = draw(200, 2, 5, 3)  # (B, T, D)


def scan(xp, decay, x, start=None):
    """Return hₜ = decayₜ·hₜ₋₁ + xₜ for all t, along axis 1."""
    h, states = 0 * x[:, 0] if start is None else start, []
    for t in range(x.shape[1]):
        h = decay[:, t] * h + x[:, t]
        states.append(h)
    return xp.stack(states, 1)


def d_scan(decay, g, end=0.0):
    """Return the cotangents of x, given those of all h."""
    d_h, d_x = end, np.empty_like(g)
    for t in reversed(range(g.shape[1])):
        d_h = g[:, t] + d_h
        d_x[:, t] = d_h
        d_h = decay[:, t] * d_h
    return d_x


def before(h):
    """Return the states of the step before, zeros at first."""
    return np.concatenate([np.zeros_like(h[:, :1]), h[:, :-1]], axis=1)


class GateOfTheFirstHead(Port):
    """Between chunks, the state's cotangent decays with the gates of the first head."""

    thread = "fla-org/flash-linear-attention 1115"
    causes = {"x.value": "misread", "x.gate": "misread"}
    near = ("wrong point", "wrong term")
    fixture = "One head hides it; what the thread's tests covered is not said."
    gates = {"gate": -np.exp(draw(201, 2, 6, 3, 4)), "value": draw(202, 2, 6, 3, 4)}
    awkward = Inputs({}, gates, {"chunk": 3})  # (B, T, H, K)
    friendly = Inputs({}, {name: a[:1, :, :1] for name, a in gates.items()}, {"chunk": 3})

    def value(xp, p, x, chunk):
        return scan(xp, xp.exp(x["gate"]), x["value"])

    def backward(p, x, g, wrong, chunk):
        decay = np.exp(x["gate"])
        d_h, d_value = np.zeros_like(g[:, 0]), np.empty_like(g)
        for t in reversed(range(g.shape[1])):
            d_h = g[:, t] + d_h
            d_value[:, t] = d_h
            first = wrong and t % chunk == 0
            d_h = (decay[:1, t, :1] if first else decay[:, t]) * d_h
        d_gate = d_value * before(scan(np, decay, x["value"])) * decay
        return {}, {"gate": d_gate, "value": d_value}


class ShortChunk(Port):
    """Shorter than the filter, a sequence gets the final state's cotangent at the wrong taps."""

    thread = "fla-org/flash-linear-attention 1140"
    causes = {"x.new": "misread", "x.state": "missing term"}
    near = ("misplaced", "wrong term")
    fixture = "Sequences at least as long as the filter less one (thread)."
    weight = draw(203, 4)  # four taps
    awkward = Inputs({"weight": weight}, {"new": draw(204, 2, 2), "state": draw(205, 2, 3)})
    friendly = Inputs({"weight": weight}, {"new": draw(206, 2, 5), "state": draw(205, 2, 3)})

    def value(xp, p, x):
        taps, steps = len(p["weight"]), x["new"].shape[1]
        whole = xp.concatenate([x["state"], x["new"]], 1)
        y = sum(p["weight"][i] * whole[:, i : i + steps] for i in range(taps))
        return y, whole[:, steps:]

    def backward(p, x, g, wrong):
        taps, steps = len(p["weight"]), x["new"].shape[1]
        whole = np.concatenate([x["state"], x["new"]], 1)
        d_weight = np.array([(g[0] * whole[:, i : i + steps]).sum() for i in range(taps)])
        d_whole = np.zeros_like(whole)
        for i in range(taps):
            d_whole[:, i : i + steps] += p["weight"][i] * g[0]
        if wrong:
            first = max(0, steps - (taps - 1))
            d_whole[:, taps - 1 + first :] += g[1][:, : steps - first]
        else:
            d_whole[:, steps:] += g[1]
        d_x = {"state": d_whole[:, : taps - 1], "new": d_whole[:, taps - 1 :]}
        return {"weight": d_weight}, d_x


class GateOfTheFinalState(Port):
    """The gates' gradient lacks what the cotangent of the final state adds to it."""

    thread = "fla-org/flash-linear-attention 459"
    causes = {"x.gate": "missing term"}
    fixture = "A final state that the loss does not use (thread)."
    awkward = Inputs({}, {"gate": -np.exp(draw(207, 2, 5, 3)), "value": STEPS})
    friendly = Inputs({}, awkward.x, {}, (draw(208, 2, 5, 3), np.zeros((2, 3))))

    def value(xp, p, x):
        h = scan(xp, xp.exp(x["gate"]), x["value"])
        return h, h[:, -1]

    def backward(p, x, g, wrong):
        decay = np.exp(x["gate"])
        d_value = d_scan(decay, g[0], g[1])
        d_h = d_scan(decay, g[0]) if wrong else d_value
        d_gate = d_h * before(scan(np, decay, x["value"])) * decay
        return {}, {"gate": d_gate, "value": d_value}


class Zoneout(Port):
    """Every step of the backward takes the zoneout mask of the first step."""

    thread = "lmnt-com/haste 43"
    causes = {"x": "misread", "params.weight": "misread"}
    near = ("mask leak", "wrong term")
    fixture = "No zoneout (thread)."
    kept = np.random.default_rng(209).random((5, 2, 3)) < 0.5
    awkward = Inputs({"weight": draw(210, 3, 3)}, STEPS, {"kept": kept})
    friendly = Inputs({"weight": draw(210, 3, 3)}, STEPS, {"kept": np.zeros_like(kept)})

    def value(xp, p, x, kept):
        h, states = 0 * x[:, 0], []
        for t in range(x.shape[1]):
            h = xp.where(kept[t], h, xp.tanh(h @ p["weight"] + x[:, t]))
            states.append(h)
        return xp.stack(states, 1)

    def backward(p, x, g, wrong, kept):
        h = Zoneout.value(np, p, x, kept)
        last = before(h)
        d_h, d_x, d_weight = 0 * x[:, 0], np.empty_like(g), np.zeros_like(p["weight"])
        for t in reversed(range(g.shape[1])):
            mask = kept[0 if wrong else t]
            d_h = d_h + g[:, t]
            new = np.tanh(last[:, t] @ p["weight"] + x[:, t])
            d_x[:, t] = np.where(mask, 0, d_h) * (1 - new**2)
            d_weight += last[:, t].T @ d_x[:, t]
            d_h = np.where(mask, d_h, 0) + d_x[:, t] @ p["weight"].T
        return {"weight": d_weight}, d_x


class LastStepOnly(Port):
    """The cell's gradient is assigned at every step where it should be added."""

    thread = "tensorflow/swift-apis 518"
    causes = {"params.weight": "slice kept", "params.bias": "slice kept"}
    fixture = "Sequences of one step hide it; tests came later (thread)."
    awkward = Inputs({"weight": draw(211, 3, 3), "bias": draw(212, 3)}, STEPS)
    friendly = Inputs({"weight": draw(211, 3, 3), "bias": draw(212, 3)}, STEPS[:, :1])

    def value(xp, p, x):
        h, states = 0 * x[:, 0], []
        for t in range(x.shape[1]):
            h = xp.tanh(h @ p["weight"] + x[:, t] + p["bias"])
            states.append(h)
        return xp.stack(states, 1)

    def backward(p, x, g, wrong):
        h = LastStepOnly.value(np, p, x)
        last, d_h, d_x = before(h), 0 * x[:, 0], np.empty_like(g)
        d_p = {name: np.zeros_like(leaf) for name, leaf in p.items()}
        for t in reversed(range(g.shape[1])):
            d_x[:, t] = (d_h + g[:, t]) * (1 - h[:, t] ** 2)
            step = {"weight": last[:, t].T @ d_x[:, t], "bias": d_x[:, t].sum(axis=0)}
            d_p = step if wrong else {name: d_p[name] + step[name] for name in step}
            d_h = d_x[:, t] @ p["weight"].T
        return d_p, d_x


class TwoDirections(Port):
    """The first direction writes its result over g, which the second still needs."""

    thread = "apache/mxnet 18203"
    causes = {"": "overwritten"}
    fixture = "Two layers (thread), of which this is one."
    awkward = Inputs({"decay": draw(213, 2, 3, scale=0.5)}, STEPS)

    def value(xp, p, x):
        there, back = (xp.broadcast_to(decay, x.shape) for decay in p["decay"])
        return scan(xp, there, x) + scan(xp, back, x[:, ::-1])[:, ::-1]

    def backward(p, x, g, wrong):
        there, back = (np.broadcast_to(decay, x.shape) for decay in p["decay"])
        d_there = d_scan(there, g)
        if wrong:
            g[...] = d_there
        d_back = d_scan(back, g[:, ::-1])
        h, h_back = scan(np, there, x), scan(np, back, x[:, ::-1])
        d_decay = [(d_there * before(h)), (d_back * before(h_back))]
        return {"decay": np.stack(d_decay).sum(axis=(1, 2))}, d_there + d_back[:, ::-1]


class MiddleLayers(Port):
    """The middle layers' weights are paired with the layer's output instead of its input."""

    thread = "apache/mxnet 18203"
    causes = {"params.second": "misread"}
    near = ("wrong point", "wrong term")
    fixture = "Two layers (thread)."
    weights = {name: draw(214 + i, 3, 3) for i, name in enumerate(("first", "second", "third"))}
    awkward = Inputs(weights, STEPS)
    friendly = Inputs({"first": weights["first"], "third": weights["third"]}, STEPS)

    def value(xp, p, x):
        for name in ("first", "second", "third"):
            x = xp.tanh(x @ p[name]) if name in p else x
        return x

    def backward(p, x, g, wrong):
        d_p, inputs = {}, {}
        for name in ("first", "second", "third"):
            if name in p:
                inputs[name], x = x, np.tanh(x @ p[name])
        outputs = x
        for name in reversed(inputs):
            g = g * (1 - outputs**2)
            paired = outputs if wrong and name == "second" else inputs[name]
            d_p[name] = np.einsum("btd,bte->de", paired, g)
            g, outputs = g @ p[name].T, inputs[name]
        return d_p, g


class BatchStride(Port):
    """Each step's update is read at a batch stride of zero: all examples get the first's."""

    thread = "unslothai/unsloth-zoo 776"
    causes = {"x.decay": "misread", "x.value": "misread"}
    near = ("slice kept", "misplaced")
    fixture = "A batch of one (thread); that the stride is zero is ours, the thread says wrong."
    awkward = Inputs({}, {"decay": draw(217, 2, 5, 3, scale=0.5), "value": STEPS})
    friendly = Inputs({}, {name: a[:1] for name, a in awkward.x.items()})

    def value(xp, p, x):
        return scan(xp, x["decay"], x["value"])

    def backward(p, x, g, wrong):
        d_value = d_scan(x["decay"], g)
        d_decay = d_value * before(scan(np, x["decay"], x["value"]))
        if wrong:
            d_value, d_decay = (np.repeat(a[:1], len(a), 0) for a in (d_value, d_decay))
        return {}, {"decay": d_decay, "value": d_value}


class PackedTail(Port):
    """Behind the last packed sequence the gradient is not written."""

    thread = "QwenLM/FlashQLA 28"
    causes = {"x": "never written"}
    near = ("extra term", "mask leak", "not linear in g", "hidden state")
    fixture = "Batches packed without padding hide it; the thread names no test."
    awkward = Inputs({"decay": draw(218, 3, scale=0.5)}, STEPS, {"length": 3})
    friendly = Inputs({"decay": draw(218, 3, scale=0.5)}, STEPS, {"length": 5})

    def value(xp, p, x, length):
        kept = x[:, :length]
        h = scan(xp, xp.broadcast_to(p["decay"], kept.shape), kept)
        return xp.concatenate([h, 0 * x[:, length:]], 1)

    def backward(p, x, g, wrong, length):
        kept = x[:, :length]
        decay = np.broadcast_to(p["decay"], kept.shape)
        d_kept = d_scan(decay, g[:, :length])
        d_x = np.full_like(x, 1234.5 if wrong else 0)  # what happened to lie in memory
        d_x[:, :length] = d_kept
        return {"decay": (d_kept * before(scan(np, decay, kept))).sum(axis=(0, 1))}, d_x
