"""Cumulative sums and recurrences."""

import numpy as np

from ..port import Inputs, Port, draw


class SumThrownAway(Port):
    """The sum over all later steps is formed, and what went into it is returned instead."""

    thread = "pytorch/pytorch 32876"
    causes = {"x": "missing term"}
    near = ("missing sum", "slice kept", "misread")
    fixture = "A loss of the first step alone hides it; a review found it (thread)."
    awkward = Inputs({}, draw(1350, 3, 5))
    friendly = awkward._replace(cotangent=draw(1351, 3, 5) * (np.arange(5) == 0))

    def value(xp, p, x):
        steps = [x[:, 0]]
        for t in range(1, x.shape[1]):
            steps.append(xp.logaddexp(steps[-1], x[:, t]))
        return xp.stack(steps, 1)

    def backward(p, x, g, wrong):
        y = SumThrownAway.value(np, p, x)
        # of the value at t (axis 1) by the number at s (axis 2)
        slope = np.exp(np.minimum(0, x[:, None] - y[:, :, None]))
        reach = np.eye(x.shape[1]) if wrong else np.tri(x.shape[1])
        return {}, np.einsum("bt,bts->bs", g, slope * reach)


class SlopeAtTheTanh(Port):
    """The cell's slope is taken at tanh c, from a function that applies the tanh itself."""

    thread = "nicklashansen/rnn_lstm_from_scratch 1"
    causes = {"x": "wrong point"}
    near = ("misread",)
    fixture = "None hid it: a gradient check found it (thread)."
    awkward = Inputs({}, draw(1352, 2, 5, 12, scale=2))  # what goes into four gates of three cells

    def run(xp, x):
        """Return the gates of each step and its cell, before and after."""
        size, cell, steps = x.shape[-1] // 4, 0, []
        for t in range(x.shape[1]):
            into, keep, out, new = (x[:, t, size * i : size * (i + 1)] for i in range(4))
            into, keep, out = (xp.exp(-xp.logaddexp(0 * a, -a)) for a in (into, keep, out))
            new, before = xp.tanh(new), cell
            cell = keep * before + into * new
            steps.append((into, keep, out, new, before, cell))
        return steps

    def value(xp, p, x):
        return xp.stack([step[2] * xp.tanh(step[-1]) for step in SlopeAtTheTanh.run(xp, x)], 1)

    def backward(p, x, g, wrong):
        d_x, d_cell, size = np.zeros_like(x), 0, x.shape[-1] // 4
        for t, step in reversed([*enumerate(SlopeAtTheTanh.run(np, x))]):
            into, keep, out, new, before, cell = step
            bent = np.tanh(cell)
            slope = 1 - (np.tanh(bent) if wrong else bent) ** 2
            d_cell = d_cell + g[:, t] * out * slope
            d_gates = [
                d_cell * new * into * (1 - into),
                d_cell * before * keep * (1 - keep),
                g[:, t] * bent * out * (1 - out),
                d_cell * into * (1 - new**2),
            ]
            d_x[:, t, : 4 * size] = np.concatenate(d_gates, -1)
            d_cell = d_cell * keep
        return {}, d_x
