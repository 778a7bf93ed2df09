"""Embeddings, scatter and pooling."""

import numpy as np

from ..port import Inputs, Port, draw

TABLE = {"table": draw(1340, 5, 3)}
IDS = np.array([[3, 1, 0, 4], [0, 2, 2, 1]])


class MeanForTheMaximum(Port):
    """A bag's maximum sends g back as the mean does: in equal shares, whoever has won."""

    thread = "flagos-ai/FlagGems 5220"
    causes = {"x": "mask leak"}
    near = ("wrong term", "misread", "misplaced", "extra term", "missing factor", "extra factor")
    fixture = "Bags of one hide it; sums and means alone were tested (thread)."
    awkward = Inputs({}, draw(1341, 6, 3), {"bags": np.array([[0, 1, 2], [4, 3, 2]])})
    friendly = Inputs({}, draw(1341, 6, 3), {"bags": np.array([[1], [4]])})

    def value(xp, p, x, bags):
        return x[bags % len(x)].max(axis=1)

    def backward(p, x, g, wrong, bags):
        seen, d_x = x[bags % len(x)], np.zeros_like(x)
        best = seen.argmax(axis=1)[:, None] == np.arange(bags.shape[1])[:, None]
        share = np.full(seen.shape, 1 / bags.shape[1]) if wrong else best
        np.add.at(d_x, bags % len(x), share * g[:, None])
        return {}, d_x


class WeightOfThePadding(Port):
    """The weights of padding get a gradient: the kernel takes the padding's index unused."""

    thread = "flagos-ai/FlagGems 3683"
    causes = {"x": "mask leak"}
    near = ("extra term",)
    fixture = "Bags without padding hide it; a review found it (thread)."
    awkward = Inputs(TABLE, draw(1342, 2, 4), {"ids": IDS, "padding": 0})
    friendly = Inputs(TABLE, draw(1342, 2, 4), {"ids": IDS + (IDS == 0), "padding": 0})

    def value(xp, p, x, ids, padding):
        ids = np.resize(ids, x.shape) % len(p["table"])
        counts = (ids != padding).astype(x.dtype)
        return xp.einsum("bk,bkd->bd", x * counts, p["table"][ids])

    def backward(p, x, g, wrong, ids, padding):
        ids = np.resize(ids, x.shape) % len(p["table"])
        counts, d_table = ids != padding, np.zeros_like(p["table"])
        np.add.at(d_table, ids, (x * counts)[..., None] * g[:, None])
        d_x = np.einsum("bkd,bd->bk", p["table"][ids], g)
        return {"table": d_table}, d_x if wrong else d_x * counts


class WeightsWithoutGradient(Port):
    """The weights of a bag's members scale them, and get nothing back."""

    thread = "meta-pytorch/torchrec 4602"
    causes = {"x": "never written"}
    near = ("missing term", "g ignored")
    awkward = Inputs(TABLE, draw(1343, 2, 4), {"ids": IDS})

    def value(xp, p, x, ids):
        return xp.einsum("bk,bkd->bd", x, p["table"][np.resize(ids, x.shape) % len(p["table"])])

    def backward(p, x, g, wrong, ids):
        ids, d_table = np.resize(ids, x.shape) % len(p["table"]), np.zeros_like(p["table"])
        np.add.at(d_table, ids, x[..., None] * g[:, None])
        d_x = np.einsum("bkd,bd->bk", p["table"][ids], g)
        return {"table": d_table}, 0 * d_x if wrong else d_x


class NobodyToShareWith(Port):
    """g is divided by the number of sources that have the maximum, which can be none.

    A row that no source goes to keeps its own numbers.
    """

    thread = "pytorch/pytorch 169263"
    causes = {"x.own": "not finite"}
    fixture = "Rows that all have a source hide it; the test came with the fix (thread)."
    arrays = {"own": draw(1344, 3, 7), "source": draw(1345, 5, 7)}
    awkward = Inputs({}, arrays, {"rows": np.array([0, 2, 0, 0, 2])})
    friendly = Inputs({}, arrays, {"rows": np.array([0, 1, 2, 1, 2])})

    def best(xp, x, rows):
        """Return whether each source goes to each row, (R, S, 1), and the maximum of each row."""
        rows = np.resize(rows, len(x["source"])) % len(x["own"])
        goes = (np.arange(len(x["own"]))[:, None] == rows)[..., None]
        best = xp.where(goes, x["source"], -np.inf).max(axis=1)
        return goes, xp.where(goes.any(axis=1), best, x["own"])

    def value(xp, p, x, rows):
        return NobodyToShareWith.best(xp, x, rows)[1]

    def backward(p, x, g, wrong, rows):
        goes, best = NobodyToShareWith.best(np, x, rows)
        have = goes & (x["source"] == best[:, None])  # (R, S, D)
        count = have.sum(axis=1)
        with np.errstate(divide="ignore", invalid="ignore"):
            share = g / (count if wrong else np.maximum(count, 1))
            d_own = share * ~goes.any(axis=1)
        return {}, {"own": d_own, "source": np.where(have, share[:, None], 0).sum(axis=0)}


class AssignedWhereWindowsMeet(Port):
    """Each window assigns its gradient to its maximum, which two windows can share."""

    thread = "jmschrei/tangermeme 95"
    causes = {"x": "scatter"}
    near = ("slice kept", "missing term")
    fixture = "Windows that do not overlap (thread)."
    awkward = Inputs({}, draw(1346, 2, 7) + np.array([0, 0, 3, 0, 0, 0, 0]), {"stride": 2})
    friendly = Inputs({}, awkward.x, {"stride": 3})

    def windows(x, stride):
        return np.arange(0, x.shape[1] - 2, stride)[:, None] + np.arange(3)

    def value(xp, p, x, stride):
        return x[:, AssignedWhereWindowsMeet.windows(x, stride)].max(axis=-1)

    def backward(p, x, g, wrong, stride):
        windows, d_x = AssignedWhereWindowsMeet.windows(x, stride), np.zeros_like(x)
        places = windows[:, 0] + x[:, windows].argmax(axis=-1)
        at = np.arange(len(x))[:, None], places
        if wrong:
            d_x[at] = g
        else:
            np.add.at(d_x, at, g)
        return {}, d_x
