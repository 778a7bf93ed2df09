"""Check a hand-written ``vjp`` against `jax.vjp` of a reference, and against the contract."""

from typing import Any

import numpy as np

from .. import pytree
from ..contract import Differentiable, Tree
from .accuracy import compare_float32, compare_float64, layout_faults
from .conduct import conduct_faults, expect_like
from .inputs import cast, freeze, jitter, normal_like
from .oracle import JaxOracle
from .report import Report
from .subject import BrokenLayer, Subject

DRAWS = 8
"""The inputs that one check looks at: those given, and seven redrawn near them."""


def check_vjp(
    layer: Differentiable,
    params: Tree,
    x: Any,
    *,
    reference: Any,
    cotangent: Any = None,
    seed: int = 0,
    dtypes: tuple[str, ...] = ("float64", "float32"),
    **keywords: Any,
) -> Report:
    """Check a layer's value and gradients against JAX, and its keeping of the contract.

    The float64 result must be within 1e-11 of `jax.vjp` of the reference; the float32 result may
    err up to 8 times as much as JAX's own float32; see `testing.limits`. Besides: structure,
    shapes and dtypes leaf by leaf, finite values, nothing written to, the same bits twice, linear
    in ``g``, the same result for any memory layout of the inputs.

    Args:
        layer: anything with ``forward`` and ``vjp``.
        params: its parameters; float64 is best, since float32 has the values of float32 only.
        x: its positional input.
        reference: ``(params, x, **keywords) -> y``, traceable by JAX, or a module with such a
            ``forward``.
        cotangent: what to pull back; drawn from N(0, 1) if not given.
        seed: of the draws.
        dtypes: those to check.
        **keywords: the layer's and the reference's keyword-only inputs.

    Returns:
        A `Report`; it is true if the layer is right. An exception in the layer is a finding, not
        an error of the checker.

    Raises:
        ImportError: without jax.
        ValueError: for an unknown dtype.

    >>> from functional_lm.layers import silu
    >>> import jax
    >>> x = np.linspace(-3, 3, 7)
    >>> bool(check_vjp(silu, {}, x, reference=lambda params, x: x * jax.nn.sigmoid(x)))
    True
    """
    name = getattr(layer, "__name__", type(layer).__name__).rpartition(".")[2]
    return check(
        name,
        layer,
        params,
        x,
        reference=reference,
        cotangent=cotangent,
        seed=seed,
        dtypes=dtypes,
        factor=8.0,
        keywords=keywords,
    )


def check(
    name: str,
    layer: Differentiable,
    params: Tree,
    x: Any,
    *,
    reference: Any,
    cotangent: Any,
    seed: int,
    dtypes: tuple[str, ...],
    factor: float,
    keywords: dict[str, Any],
) -> Report:
    """Do the work of `check_vjp`, with the factor over XLA's float32 error as an argument."""
    for dtype in dtypes:
        if dtype not in ("float64", "float32"):
            raise ValueError(f"dtypes must be float64 or float32: got {dtype!r}; pass their names")
    report = Report(name)
    oracle = JaxOracle(reference, keywords)
    subject = Subject(layer, freeze(pytree.map(np.array, keywords)))
    given = cast((params, x), np.float64)
    y = oracle.output(given, "float64")
    try:
        draws = _draws(given, y, cotangent, seed)
        for dtype in dtypes:
            inputs, g = cast(draws[0], dtype)
            expected_y = oracle.output(inputs, dtype)
            report.findings += conduct_faults(subject, inputs, expected_y, g, dtype)
        if "float64" in dtypes:
            compare_float64(subject, oracle, draws, report)
        if "float32" in dtypes:
            compare_float32(subject, oracle, draws, factor, report)
        for dtype in dtypes:
            inputs, g = cast(draws[0], dtype)
            report.findings += layout_faults(subject, inputs, g, dtype)
    except BrokenLayer as error:
        report.findings.append(str(error))
    return report


def _draws(given: tuple[Tree, Any], y: Any, cotangent: Any, seed: int) -> list[Any]:
    """Return ``[((params, x), g), ...]``: the inputs given, then others near them."""
    if cotangent is None:
        cotangents = [normal_like((seed, 0, i), y) for i in range(DRAWS)]
    else:
        first = cast(cotangent, np.float64)
        expect_like("cotangent", y, first, dtypes=False)
        cotangents = [first, *(jitter((seed, 1, i), first) for i in range(1, DRAWS))]
    inputs = [given, *(jitter((seed, 2, i), given) for i in range(1, DRAWS))]
    return list(zip(inputs, cotangents, strict=True))
