"""A second opinion without JAX: directional differences in float64."""

from typing import Any

import numpy as np

from .. import prng, pytree
from ..contract import Array, Differentiable, Tree
from .conduct import expect_like
from .inputs import cast, normal_like
from .report import LeafReport, Report
from .subject import BrokenLayer

STEP = 1e-4
"""Of the five-point rule: its error is of order STEP⁴ from the fifth derivative, and 1e-16/STEP
from rounding."""

TOLERANCE = 1e-8
"""Allowed error of a directional derivative, relative to ‖gradient‖·‖direction‖ of the leaf."""


def check_differences(
    layer: Differentiable, params: Tree, x: Any, *, seed: int = 0, **keywords: Any
) -> Report:
    """Check each leaf's gradient along a random direction by a five-point difference.

    With L = ⟨g, y⟩ for a random g, and v a direction in one leaf, as large as the leaf:

        ∂L/∂v ≈ (L(−2h) − 8·L(−h) + 8·L(h) − L(2h)) / 12h      must equal ⟨d_leaf, v⟩

    Args:
        layer: anything with ``forward`` and ``vjp``, smooth near the inputs.
        params: its parameters.
        x: its positional input.
        seed: of the cotangent and the directions.
        **keywords: the layer's keyword-only inputs.

    Returns:
        A `Report` with the float64 columns filled: the error of the directional derivative.
    """
    report = Report(getattr(layer, "__name__", type(layer).__name__).rpartition(".")[2])
    inputs = cast({"params": params, "x": x}, np.float64)
    y, residuals = layer.forward(inputs["params"], inputs["x"], **keywords)
    g = normal_like((seed, 0), y)
    d_params, d_x = layer.vjp(residuals, g)
    try:
        expect_like("d_params", inputs["params"], d_params)
        expect_like("d_x", inputs["x"], d_x)
    except BrokenLayer as fault:
        report.findings.append(str(fault))
        return report

    def objective(path: str, step: Array) -> float:
        moved = pytree.map_with_path(lambda p, leaf: leaf + step if p == path else leaf, inputs)
        value, _ = layer.forward(moved["params"], moved["x"], **keywords)
        pairs = zip(pytree.leaves(g), pytree.leaves(value), strict=True)
        return sum(float(np.vdot(a, b)) for a, b in pairs)

    rows = pytree.zip_with_path(inputs, {"params": d_params, "x": d_x})
    for i, (path, leaf, gradient) in enumerate(rows):
        if leaf.dtype.kind != "f":
            continue
        size = float(np.sqrt(np.mean(np.square(leaf)))) if leaf.any() else 1.0
        v = prng.normal((seed, 1, i), leaf.shape, scale=size, dtype=np.float64)
        terms = [w * objective(path, k * STEP * v) for k, w in ((-2, 1), (-1, -8), (1, 8), (2, -1))]
        error = abs(sum(terms) / (12 * STEP) - float(np.vdot(gradient, v)))
        scale = float(np.linalg.norm(gradient) * np.linalg.norm(v))
        largest = max(map(abs, terms), default=0.0) * 1e-13
        report.leaves[path] = LeafReport(path, error, TOLERANCE * scale + largest / STEP)
    return report
