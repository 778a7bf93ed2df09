"""Check a hand-written ``vjp`` against `jax.vjp` of a reference, and against the contract."""

from collections.abc import Callable
from typing import Any

import numpy as np

from .. import pytree
from ..contract import Differentiable, Tree
from .accuracy import compare_float32, compare_float64
from .conduct import check_contract, check_linearity, check_purity, like_faults
from .explain import explain
from .inputs import cast, jitter, normal_like
from .numeric import NumericOracle
from .oracle import JaxOracle
from .refusals import check_refusals
from .report import Finding, Report
from .subject import BrokenLayer, Examination, Subject
from .variants import check_examples, check_layouts, check_one_token, check_scales

DTYPES = ("float64", "float32")


def check_vjp(
    layer: Differentiable,
    params: Tree,
    x: Any,
    *,
    reference: Any = None,
    cotangent: Any = None,
    seed: int = 0,
    dtypes: tuple[str, ...] = DTYPES,
    refusals: bool = False,
    **keywords: Any,
) -> Report:
    """Certify a layer's value and gradients, or say what is wrong with them.

    The float64 result must be within 1e-11 of `jax.vjp` of the reference; the float32 result may
    err up to 8 times as much as JAX's own float32; see `testing.limits`. Besides: structure,
    shapes and dtypes leaf by leaf, finite values, nothing written to, hidden or shared, the same
    bits twice, linear in ``g``, the same result for any memory layout, for an example alone, for
    one token and for an empty batch. A wrong leaf is reported with its likely cause.

    Without a reference the gradients are compared with derivatives of the layer's own forward in
    float64, by complex steps where it computes with complex numbers, else by five-point
    differences; this needs no JAX, and cannot tell whether the value is right.

    Args:
        layer: anything with ``forward`` and ``vjp``. Three constants in its module change what is
            asked of it: ``SHARES_MEMORY``, ``MAY_BE_NON_FINITE`` and ``EXTREME_SCALES``; see
            `testing.subject.Subject`.
        params: its parameters; float64 is best, since float32 has the values of float32 only.
        x: its positional input.
        reference: ``(params, x, **keywords) -> y``, traceable by JAX, or a module with such a
            ``forward``.
        cotangent: what to pull back; drawn from N(0, 1) if not given.
        seed: of the draws.
        dtypes: those to check, float64 and float32 or one of them.
        refusals: require an error that names the argument for wrong dtypes, shapes and parameters,
            as this library's own layers raise.
        **keywords: the layer's and the reference's keyword-only inputs; floating arrays among them
            are cast like the inputs. One that is called like an argument of this function has to
            be bound first, with `compose.bind` and `functools.partial`.

    Returns:
        A `Report`; it is true if the layer is right. An exception in the layer is a finding, not
        an error of the checker.

    Raises:
        ImportError: for a reference without jax.
        TypeError: for a layer without ``forward`` and ``vjp``, or inputs that hold no array.
        ValueError: for an unknown dtype, or a cotangent unlike y.

    >>> from functional_lm.layers import silu
    >>> import jax
    >>> x = np.linspace(-3, 3, 7)
    >>> bool(check_vjp(silu, {}, x, reference=lambda params, x: x * jax.nn.sigmoid(x)))
    True
    """
    name = getattr(layer, "__name__", type(layer).__name__).rpartition(".")[2]
    reproduce = ", ".join(
        [
            f"check_vjp({name}, params, x",
            *(["reference=reference"] if reference is not None else []),
            *(["cotangent=cotangent"] if cotangent is not None else []),
            f"seed={seed}",
            *([f"dtypes={dtypes!r}"] if tuple(dtypes) != DTYPES else []),
            *(["refusals=True"] if refusals else []),
            *(f"{keyword}={keyword}" for keyword in keywords),
        ]
    )
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
        refusals=refusals,
        keywords=keywords,
        reproduce=f"{reproduce})",
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
    refusals: bool = False,
    keywords: dict[str, Any],
    reference_keywords: dict[str, Any] | None = None,
    reproduce: str,
) -> Report:
    """Do the work of `check_vjp`.

    Two arguments are new: the factor over XLA's float32 error, and the keywords of the reference,
    where they are not those of the layer because they hold layers.
    """
    dtypes = _expect_arguments(layer, (params, x), dtypes)
    report = Report(name, reproduce=reproduce)
    subject = Subject(layer, pytree.map(np.array, keywords))
    given = cast((params, x), np.float64)
    oracle: JaxOracle | NumericOracle
    if reference is None:
        oracle = NumericOracle(subject)
    elif isinstance(reference, JaxOracle):
        oracle = reference  # compiled before, for the same keywords
    else:
        oracle = JaxOracle(reference, reference_keywords or keywords)
    examination = None
    try:
        draw = drawing(given, oracle.output(given, "float64"), cotangent, seed)
        draws = [draw(i) for i in range(oracle.draws)]
        examination = Examination(subject, oracle, draws, draw, dtypes, factor, report)
        with np.errstate(all="ignore"):  # the layer runs with faults as errors; we do not
            _examine(examination)
            if refusals:
                check_refusals(examination)
    except BrokenLayer as error:
        if error.finding not in report.findings:
            report.findings.append(error.finding)
    for what in sorted(subject.writes):
        report.findings.append(Finding("purity", what, cause="overwritten"))
    for what in subject.float_faults:
        report.findings.append(Finding("contract", what, cause="not finite"))
    report.oracle = oracle.name
    if examination is not None:
        with np.errstate(all="ignore"):
            explain(examination)
    return report


def _examine(examination: Examination) -> None:
    """Run the stages in order; what breaks one of them ends the check."""
    for dtype in examination.dtypes:
        check_contract(examination, dtype)
    for dtype in examination.dtypes:
        check_purity(examination, dtype)
        check_linearity(examination, dtype)
    if "float64" in examination.dtypes:
        compare_float64(examination)
    if "float32" in examination.dtypes:
        compare_float32(examination)
    for dtype in examination.dtypes:
        check_layouts(examination, dtype)
    if "float64" in examination.dtypes:
        check_examples(examination)
        check_one_token(examination)
        check_scales(examination)


def _expect_arguments(layer: Any, inputs: Any, dtypes: Any) -> tuple[str, ...]:
    for name in ("forward", "vjp"):
        if not callable(getattr(layer, name, None)):
            raise TypeError(
                f"layer must have forward and vjp: {layer!r} has no {name}; pass a module, or "
                "types.SimpleNamespace(forward=..., vjp=...)"
            )
    dtypes = (dtypes,) if isinstance(dtypes, str) else tuple(dtypes)
    for dtype in dtypes:
        if dtype not in DTYPES:
            raise ValueError(f"dtypes must be float64 or float32: got {dtype!r}; pass their names")
    if not dtypes:
        raise ValueError("dtypes must name at least one: got none; pass ('float64', 'float32')")
    for path, leaf in pytree.leaves_with_path({"params": inputs[0], "x": inputs[1]}):
        if leaf.dtype.kind not in "fiub":
            raise TypeError(f"{path} must be an array of numbers: got {leaf.dtype}; cast it")
    if not pytree.leaves(inputs):
        raise TypeError("params and x must hold NumPy arrays: got none; pass np.asarray(x)")
    return dtypes


def drawing(
    given: tuple[Tree, Any], y: Any, cotangent: Any, seed: int
) -> Callable[[int], tuple[Any, Any]]:
    """Return ``i -> ((params, x), g)``: for 0 the inputs given, for others some near them."""
    if cotangent is not None:
        cotangent = cast(cotangent, np.float64)
        faults = like_faults("cotangent", cast(y, np.float64), cotangent)
        if faults:
            raise ValueError(f"{faults[0].message}; pass one like y")

    def draw(i: int) -> tuple[Any, Any]:
        inputs = jitter((seed, 2, i), given) if i else given
        if cotangent is None:
            return inputs, normal_like((seed, 0, i), y)
        return inputs, jitter((seed, 1, i), cotangent) if i else cotangent

    return draw
