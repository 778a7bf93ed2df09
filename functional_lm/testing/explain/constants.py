"""What a constant is called: from the sizes of axes and the layer's own settings."""

import itertools
import math
import re
from typing import Any

import numpy as np

from ... import pytree
from ..inputs import at
from .evidence import Evidence

_FAMILIAR = {
    "√2": math.sqrt(2),
    "π": math.pi,
    "2π": 2 * math.pi,
    "√(2/π)": math.sqrt(2 / math.pi),
    "√(2π)": math.sqrt(2 * math.pi),
    "ln 2": math.log(2),
}


def name_constant(value: float, evidence: Evidence) -> str:
    """Return the number, and what it is if sizes, settings or small integers explain it."""
    shown = f"{value:.6g}"
    sign = "−" if value < 0 else ""
    for name, known in _candidates(evidence):
        for text, number in ((name, known), (f"1/{_bracket(name)}", 1 / known if known else 0.0)):
            if number and math.isclose(abs(value), number, rel_tol=1e-7):
                return f"{sign}{text}{_places(text, evidence)}" + (
                    "" if sign + text == shown else f" = {shown}"
                )
    return shown


def _bracket(name: str) -> str:
    return name if name[0] == "(" or not any(c in name for c in "·/−") else f"({name})"


def _places(text: str, evidence: Evidence) -> str:
    """Say which axes have the sizes that stand in a text."""
    known = _axes(evidence)
    found = [
        f"{n} is the size of {known[int(n)]}" for n in re.findall(r"\d+", text) if int(n) in known
    ]
    return f" ({', '.join(dict.fromkeys(found))})" if found else ""


def _candidates(evidence: Evidence) -> list[tuple[str, float]]:
    """Return (name, number), the simplest first."""
    small = [(str(i), float(i)) for i in (1, 2, 3, 4)]
    sizes = [(str(size), float(size)) for size in _axes(evidence)]
    roots = [(f"√{name}", math.sqrt(number)) for name, number in sizes]
    products = [(f"{a}·{b}", x * y) for (a, x), (b, y) in itertools.combinations(sizes, 2)] + [
        (f"{a}·{b}·{c}", x * y * z) for (a, x), (b, y), (c, z) in itertools.combinations(sizes, 3)
    ]
    less = [(f"({name} − 1)", number - 1) for name, number in sizes if number > 2]
    ratios = [(f"{a}/{b}", x / y) for (a, x), (b, y) in itertools.permutations(sizes, 2)]
    settings = []
    for path, value in _settings(evidence):
        settings += [(path, value), (f"(1 − {path})", 1 - value), (f"√{path}", abs(value) ** 0.5)]
    doubled = [(f"2·{name}", 2 * number) for name, number in [*sizes, *roots]]
    bessel = [
        (f"({name} − 1)/{name}", (number - 1) / number) for name, number in [*sizes, *products]
    ]
    known = [*small, *sizes, *roots, *settings, *products, *less, *ratios, *doubled, *bessel]
    return [*known, *_FAMILIAR.items()]


def _axes(evidence: Evidence) -> dict[int, str]:
    """Return where each size of an axis first occurs."""
    c = evidence.comparisons[0]
    found: dict[int, str] = {}
    for name, tree in (("x", c.inputs[1]), ("params", c.inputs[0]), ("y", c.g)):
        for path, leaf in pytree.leaves_with_path(tree):
            for axis, size in enumerate(np.shape(leaf)):
                if size > 1:
                    found.setdefault(size, f"axis {axis} of {at(name, path)}")
    return found


def _settings(evidence: Evidence) -> list[tuple[str, float]]:
    found = []
    for name, value in evidence.examination.subject.keywords(np.float64).items():
        if np.ndim(value) == 0 and np.asarray(value).dtype.kind in "fi":
            found.append((name, float(value)))
    return found


def fit(a: Any, b: Any) -> float | None:
    """Return the c for which a ≈ c·b in the sense of least squares; None where b is zero."""
    square = float(np.vdot(b, b))
    return float(np.vdot(b, a)) / square if square > 0 else None
