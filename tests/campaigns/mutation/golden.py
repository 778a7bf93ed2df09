"""Golden values: what JAX says about every case of the registry, computed once and kept.

At each case, in float64 at the inputs themselves, and in float32 at several draws near them, since
one draw says little about accuracy. All arrays are read-only.
"""

import zlib
from typing import Any, NamedTuple

import numpy as np

from functional_lm import pytree
from functional_lm.testing import limits, registry
from functional_lm.testing.inputs import cast
from functional_lm.testing.inputs import freeze as read_only
from functional_lm.testing.oracle import JaxOracle

DRAWS = 8
FACTOR = 8.0
"""How much larger than XLA's the float32 error may be, as root mean squares over the draws."""

Figures = tuple[float, float, int, float]


class Draw(NamedTuple):
    """Inputs and a cotangent, with the truth in float64."""

    inputs: Any  # (params, x)
    g: Any
    truth: Any  # {"y", "params", "x"}


class Golden(NamedTuple):
    """One case with its golden values."""

    label: str
    keywords: dict[str, Any]
    float64: Draw
    float32: list[Draw]
    limits64: dict[str, float]  # of ‖ours − truth‖, by leaf
    limits32: dict[str, float]  # of its root mean square over the draws


FROZEN = ("params.embedding", "params.positions", "params.blocks.0.")
"""What is not trained where the lower half is frozen."""


def freeze(name: str) -> list[Golden]:
    """Compute the golden values of all cases of a layer, loss or model.

    At every third case the transformer is judged with its lower half frozen, too.
    """
    _, twin = registry.modules(name)
    cases = registry.cases(name)
    for case in cases[::3] if name == "transformer" else ():
        model = case.keywords["model"]
        model = model.freeze(case.params, lambda path: not f"params.{path}".startswith(FROZEN))
        keywords = case.keywords | {"model": model}
        cases.append(case._replace(label=f"{case.label}, frozen", keywords=keywords))
    return [_freeze_case(case, twin, index) for index, case in enumerate(cases)]


def rows(truth: Any, result: Any) -> list[tuple[str, Any, Any]]:
    """Return (path, true leaf, leaf of the result), without the integers, whose cotangent is None.

    Raises:
        ValueError: for a result of another structure.
    """
    return pytree.zip_with_path(truth, result)


def redraw(rng: np.random.Generator, tree: Any, spread: float = 0.1) -> Any:
    """Multiply every floating entry by its own factor between 1 − spread and 1 + spread."""

    def one(leaf: Any) -> Any:
        if leaf.dtype.kind != "f":
            return leaf
        return leaf * rng.uniform(1 - spread, 1 + spread, leaf.shape).astype(leaf.dtype)

    return pytree.map(one, tree)


def normal_like(rng: np.random.Generator, tree: Any) -> Any:
    """Draw N(0, 1) in the shapes and dtypes of the leaves."""
    return pytree.map(lambda leaf: np.array(rng.standard_normal(leaf.shape), leaf.dtype), tree)


def _freeze_case(case: Any, twin: Any, index: int) -> Golden:
    rng = np.random.default_rng([zlib.crc32(case.layer.encode()), index])
    oracle = JaxOracle(twin, registry.twin(case.keywords))
    given = cast((case.params, case.x), np.float64)
    y = oracle.output(given, "float64")
    g = normal_like(rng, y)

    def results(*arguments: Any) -> Any:
        truth = oracle.results(*arguments)
        if getattr(case.keywords.get("model"), "frozen", None) is None:
            return truth
        return pytree.map_with_path(lambda p, x: None if p.startswith(FROZEN) else x, truth)

    exact = Draw(given, g, results(given, g, "float64"))
    draws, figures = [], []
    for i in range(DRAWS):
        near = redraw(rng, given) if i else given
        inputs, g = cast((near, normal_like(rng, y)), np.float32)
        truth = results(*cast((inputs, g), np.float64), "float64")
        draws.append(Draw(inputs, g, truth))
        figures.append(_figures(truth, results(inputs, g, "float32")))
    keywords = read_only(pytree.map(np.array, case.keywords))
    return Golden(
        f"{case.layer}, {case.label}",
        keywords,
        read_only(exact),
        read_only(draws),
        _limits64(exact.truth),
        {path: _limit32([f[path] for f in figures]) for path in figures[0]},
    )


def _largest(truth: Any) -> dict[str, float]:
    """Return by leaf the largest entry of its group: that of y, or that of the whole gradient."""
    sizes: dict[bool, float] = {}
    paths = pytree.leaves_with_path(truth)
    for path, leaf in paths:
        size, of_y = float(np.abs(leaf).max(initial=0.0)), path.startswith("y")
        sizes[of_y] = max(size, sizes.get(of_y, 0.0))
    return {path: sizes[path.startswith("y")] for path, _ in paths}


def _limits64(truth: Any) -> dict[str, float]:
    largest = _largest(truth)
    leaves = pytree.leaves_with_path(truth)
    return {path: limits.float64_limit(leaf, largest[path]) for path, leaf in leaves}


def _figures(truth: Any, xla: Any) -> dict[str, Figures]:
    """Return by leaf XLA's error, the true norm, the size and the largest entry of the group."""
    largest = _largest(truth)
    found = {}
    for path, true, theirs in rows(truth, xla):
        flushed = limits.flush(true)
        error = limits.norm(limits.flush(theirs) - flushed)
        found[path] = (error, limits.norm(flushed), true.size, largest[path])
    return found


def _limit32(figures: list[Figures]) -> float:
    error, norm, size, largest = map(limits.root_mean_square, zip(*figures, strict=True))
    return limits.float32_limit(error, norm, round(size), largest, FACTOR)
