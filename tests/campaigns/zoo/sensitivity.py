"""Measure the smallest error that the checker finds in a whole leaf, and in one entry of it.

python tests/campaigns/zoo/sensitivity.py [NAMES]

For every leaf of a layer's first case the right gradient is multiplied by 1 + e, as a whole or in
its nonzero entry of median size; e shrinks by factors of √10 while the float64 check still fails.
"""

import argparse
import types

import numpy as np
from rich.console import Console
from rich.progress import track

from functional_lm import pytree
from functional_lm.testing import cases, names, registry
from functional_lm.testing.check import drawing
from functional_lm.testing.oracle import JaxOracle
from functional_lm.testing.report import Report
from functional_lm.testing.stages.accuracy import compare_float64
from functional_lm.testing.subject import Examination, Subject

STEPS = tuple(10.0 ** (-k / 2) for k in range(8, 34))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", default=names())
    rows = {
        f"{name} {path}": found
        for name in track(parser.parse_args().names, console=Console(stderr=True), transient=True)
        for path, found in sensitivity(name).items()
    }
    worst = {kind: max(found[kind] for found in rows.values()) for kind in KINDS}
    print(f"{'layer and leaf':44}  {'whole leaf':>10}  {'one entry':>10}")
    for place, found in (rows | {"the worst": worst}).items():
        print(f"{place:44}  {found['whole']:10.0e}  {found['entry']:10.0e}")


def sensitivity(name):
    """Return {leaf: {"whole": e, "entry": e}}, the smallest relative errors that are found."""
    layer, twin = registry.modules(name)
    case = cases(name)[0]
    oracle = JaxOracle(twin, case.keywords)
    inputs = (case.params, case.x)
    draw = drawing(inputs, oracle.output(inputs, "float64"), None, 0)
    draws = [draw(i) for i in range(oracle.draws)]

    def is_found(path, kind, e):
        changed = types.SimpleNamespace(
            forward=layer.forward,
            vjp=lambda residuals, g: altered(layer.vjp(residuals, g), path, kind, e),
        )
        subject = Subject(changed, case.keywords)
        examination = Examination(subject, oracle, draws, draw, ("float64",), 4.0, Report(name))
        compare_float64(examination)
        return not examination.report.leaves[path].ok

    paths = [path for path, leaf in leaves_of(*inputs) if leaf.dtype.kind == "f"]
    return {
        path: {kind: smallest(lambda e, p=path, k=kind: is_found(p, k, e)) for kind in KINDS}
        for path in paths
    }


KINDS = ("whole", "entry")


def smallest(is_found):
    """Return the smallest step that is found, like all larger ones."""
    last = np.inf
    for e in STEPS:
        if not is_found(e):
            break
        last = e
    return last


def altered(cotangents, path, kind, e):
    """Multiply one leaf, or its entry of median size, by 1 + e."""

    def one(place, leaf):
        if place != path:
            return leaf
        if kind == "whole":
            return leaf * (1 + e)
        changed = leaf.copy()
        order = np.argsort(np.abs(leaf), axis=None)
        order = order[leaf.reshape(-1)[order] != 0]  # an embedding has rows that nothing uses
        entry = order[len(order) // 2]
        changed.reshape(-1)[entry] *= 1 + e
        return changed

    d_params, d_x = cotangents
    tree = pytree.map_with_path(one, {"params": d_params, "x": d_x})
    return tree["params"], tree["x"]


def leaves_of(params, x):
    return pytree.leaves_with_path({"params": params, "x": x})


if __name__ == "__main__":
    main()
