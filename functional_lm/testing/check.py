"""Check a hand-written ``vjp`` against `jax.vjp` of a reference, and against the contract."""

import inspect
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np

from .. import pytree
from ..contract import Differentiable, Tree, expect_int
from .explain import explain
from .inputs import as_arrays, cast, did_you_mean, jitter, keywords_of, normal_like
from .numeric import NumericOracle
from .oracle import JaxOracle, LayerOracle
from .report import Finding, Report
from .stages import variants
from .stages.accuracy import compare_float32, compare_float64
from .stages.audit import audit as audited
from .stages.conduct import check_contract, check_linearity, check_purity, like_faults
from .stages.forward_mode import check_jvp
from .stages.half_precision import HALF, check_half
from .stages.own_inputs import check_own_inputs
from .stages.refusals import check_refusals
from .subject import BrokenLayer, Examination, Oracle, Subject, line_of

__all__ = ["DTYPES", "check", "check_vjp", "drawing"]

DTYPES = ("float64", "float32")
FACTOR = 8.0
"""How much larger than XLA's the float32 error may be."""


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
    bitwise: bool = False,
    strict: bool = False,
    own_inputs: bool = True,
    audit: bool = False,
    name: str = "",
    keywords: Mapping[str, Any] | None = None,
    **more: Any,
) -> Report:
    """Certify a layer's value and gradients numerically, or say what is wrong with them.

    The float64 result must be within 1e-11 of `jax.vjp` of the reference; the float32 result may
    err up to 8 times as much as JAX's own float32; see `testing.limits`. Besides: structure,
    shapes and dtypes leaf by leaf, finite values, nothing written to, hidden or shared, the same
    bits twice, linear in ``g``, the same result for any memory layout, for an example alone, for
    one token and for an empty batch. A wrong leaf is reported with its likely cause.

    Without a reference the gradients are compared with derivatives of the layer's own forward in
    float64, by complex steps where it computes with complex numbers, else by five-point
    differences. This needs no JAX, and cannot tell whether the value is right.

    Args:
        layer: anything with ``forward`` and ``vjp``. Constants in its module change what is
            required of it: ``SHARES_MEMORY``, ``MAY_BE_NON_FINITE``, ``EXTREME_SCALES`` and
            ``FIXED_SIZES``; see `testing.subject.Subject`.
        params: its parameters; float64 is best, since float32 has the values of float32 only. The
            arrays here and in x may be of NumPy, JAX or PyTorch, or lists of numbers.
        x: its positional input.
        reference: ``(params, x, **keywords) -> y``, traceable by JAX, or a module with such a
            ``forward``. With a ``vjp`` too it is its own oracle and needs no JAX, such as
            `interop.from_torch` of a plain function; then no step of it can be named as the cause.
        cotangent: what to pull back; drawn from N(0, 1) if not given.
        seed: of the draws.
        dtypes: those to check, float64 and float32 or one of them; bfloat16 and float16 for a
            layer that computes in half precision. There each leaf has a verdict: right, inexact
            by a factor, wrong, or ill-conditioned here; see `testing.stages.half_precision`.
        refusals: require an error that names the argument for wrong dtypes, shapes and parameters,
            as this library's own layers raise.
        bitwise: require the same bits in every call, and for an example in whatever batch it comes.
        strict: fail for what is otherwise a note: a Python float as y, zeros as the gradient of
            integers, a y that lies in the memory of a residual, an empty batch that raises, a
            forward that cannot take one example, a vjp that raises for a setting that forward
            ignores, an overflow on the way to right results.
        own_inputs: also try inputs that the check makes itself, where ``forward`` still agrees with
            the reference: other scales and biases, ids that repeat, masks that hide, a broadcast
            ``g``; other settings, sizes and optional inputs.
        audit: list in `Report.audit` what the inputs given do not test: the steps of the reference
            whose derivative could be wrong unseen, and sizes and settings without a verdict.
        name: what the report calls the layer; its ``__name__`` if not given.
        keywords: keyword-only inputs of the layer and the reference; floating arrays among them are
            cast like the inputs.
        **more: the same, unless they have the name of an argument of this function.

    Returns:
        A `Report`, which is true if the layer is right. An exception in the layer or in the
        reference is a finding, with the line that raised it.

    Raises:
        ImportError: for a reference without jax.
        TypeError: for a layer without ``forward`` and ``vjp``, or inputs that hold no array.
        ValueError: for an unknown dtype, half precision without a reference, a cotangent unlike y,
            or inputs that are not finite.

    >>> from functional_lm.layers import silu
    >>> import jax
    >>> x = np.linspace(-3, 3, 7)
    >>> bool(check_vjp(silu, {}, x, reference=lambda params, x: x * jax.nn.sigmoid(x)))
    True
    """
    called = getattr(layer, "__name__", type(layer).__name__).rpartition(".")[2]
    given = {"reference": reference, "cotangent": cotangent, "keywords": keywords} | more
    settings = {
        "seed": seed,
        "dtypes": dtypes,
        "refusals": refusals,
        "bitwise": bitwise,
        "strict": strict,
        "own_inputs": own_inputs,
        "audit": audit,
        "name": name,
    }
    usual = {"dtypes": DTYPES, "own_inputs": True, "name": ""}
    usual |= dict.fromkeys(("refusals", "bitwise", "strict", "audit"), False)
    arguments = [f"{key}={key}" for key, value in given.items() if value is not None]
    arguments += [f"{k}={v!r}" for k, v in settings.items() if v != usual.get(k, ())]
    return check(
        name or called,
        layer,
        params,
        x,
        reference=reference,
        cotangent=cotangent,
        seed=seed,
        dtypes=dtypes,
        refusals=refusals,
        bitwise=bitwise,
        strict=strict,
        own_inputs=own_inputs,
        audit=audit,
        keywords=dict(keywords or {}) | more,
        reproduce=f"check_vjp({', '.join([called, 'params', 'x', *arguments])})",
    )


def check(
    name: str,
    layer: Differentiable,
    params: Tree,
    x: Any,
    *,
    reference: Any,
    cotangent: Any = None,
    seed: int = 0,
    dtypes: tuple[str, ...] = DTYPES,
    factor: float = FACTOR,
    refusals: bool = False,
    bitwise: bool = False,
    strict: bool = True,
    own_inputs: bool = False,
    audit: bool = False,
    keywords: dict[str, Any],
    reproduce: str = "",
    progress: Callable[[float], None] = lambda share: None,
) -> Report:
    """Do the work of `check_vjp`.

    The factor over XLA's float32 error is an argument, and the reference may be a `JaxOracle`: then
    it has keywords of its own. ``progress`` is called with the share of the work that is done.
    """
    params, x, cotangent = map(as_arrays, (params, x, cotangent))
    cotangent = np.asarray(cotangent) if isinstance(cotangent, (int, float)) else cotangent
    keywords = as_arrays(keywords, lists=False)
    dtypes = _expect_arguments(layer, (params, x), dtypes, seed)
    report = Report(name, reproduce=reproduce)
    unfit = _unfit(layer, (params, x), keywords)
    if unfit:
        report.findings.append(Finding("contract", unfit, cause="exception"))
        return report
    subject = Subject(layer, pytree.map(np.array, keywords), strict=strict)
    given = cast((params, x), np.float64)
    if reference is None and set(dtypes) & set(HALF):
        raise ValueError("half precision is compared with a reference: got none; pass reference")
    oracle: Oracle
    if reference is None:
        oracle = NumericOracle(subject)
    elif isinstance(reference, JaxOracle):
        oracle = reference
    else:
        kind = LayerOracle if hasattr(reference, "vjp") else JaxOracle
        oracle = kind(reference, keywords)
    examination = None
    with np.errstate(all="ignore"):  # the layer runs with faults as errors; we do not
        try:
            draw = drawing(given, _output(oracle, subject, given), cotangent, seed)
            draws = [draw(i) for i in range(oracle.draws)]
            examination = Examination(subject, oracle, draws, draw, dtypes, factor, report)
            stages = _stages(examination, refusals, bitwise)
            for i, stage in enumerate(stages):
                stage()
                progress((i + 1) / len(stages))
        except BrokenLayer as error:
            if error.finding not in report.findings:
                report.findings.append(error.finding)
        for what in sorted(subject.writes):
            report.findings.append(Finding("purity", what, cause="overwritten"))
        harmless = not (strict or report.findings) and all(x.ok for x in report.leaves.values())
        for what in subject.float_faults:
            if harmless and report.leaves:
                report.notes.append(f"{what}; the results are right all the same")
            else:
                report.findings.append(Finding("contract", what, cause="not finite"))
        report.notes += subject.notes
        report.oracle = oracle.name
        if examination is not None:
            explain(examination)
            if own_inputs and "float64" in dtypes:
                try:
                    check_own_inputs(examination)
                except BrokenLayer as error:
                    report.notes.append(f"the inputs of the check end early: {error}")
            if audit and "float64" in dtypes:
                report.audit += audited(examination)
    return report


def _output(oracle: Oracle, subject: Subject, given: tuple[Tree, Any]) -> Any:
    """Return zeros like y.

    Raises:
        BrokenLayer: for a fault of the layer, of the inputs or of the reference.
    """
    try:
        y = oracle.output(given, "float64")
    except Exception as error:
        refusal: BaseException | None = None
        try:
            subject.forward(given)
        except BrokenLayer as broken:
            refusal = broken.__cause__
        if isinstance(refusal, (TypeError, ValueError)):
            also = "" if isinstance(error, BrokenLayer) else ", and so does the reference"
            what = f"params and x must suit the layer: forward refuses them{also}"
            message = f"{what}: {type(refusal).__name__}: {refusal}{line_of(refusal)}"
            raise BrokenLayer(Finding("contract", message, cause="exception")) from error
        if isinstance(error, BrokenLayer):
            raise
        first = str(error).strip().partition("\n")[0]
        message = (
            "the reference must take params and x, as forward does, and be traceable by JAX: it "
            f"raised {type(error).__name__}: {first}{line_of(error)}"
        )
        raise BrokenLayer(Finding("contract", message, cause="reference")) from error
    if not pytree.leaves(y):
        message = f"the reference must return y, made of arrays: got {y!r}; return y alone"
        raise BrokenLayer(Finding("contract", message, cause="reference"))
    return y


def _stages(examination: Examination, refusals: bool, bitwise: bool) -> list[Callable[[], None]]:
    """Return the stages in order; what breaks one of them ends the check."""
    halves = [dtype for dtype in examination.dtypes if dtype in HALF]
    dtypes = [dtype for dtype in examination.dtypes if dtype not in HALF]
    by_dtype = [(check_contract, d) for d in dtypes]
    by_dtype += [(stage, d) for d in dtypes for stage in (check_purity, check_linearity)]
    stages: list[Callable[[], None]]
    stages = [partial(stage, examination, dtype) for stage, dtype in by_dtype]
    if "float64" in dtypes:
        stages.append(partial(compare_float64, examination))
    if "float32" in dtypes:
        stages.append(partial(compare_float32, examination))
    stages += [partial(variants.check_layouts, examination, dtype) for dtype in dtypes]
    if "float64" in dtypes:
        others = (variants.check_examples, variants.check_one_token, variants.check_scales)
        stages += [partial(stage, examination) for stage in others]
    stages += [partial(check_jvp, examination, dtype) for dtype in dtypes]
    if bitwise:
        stages += [partial(variants.check_bitwise, examination, dtype) for dtype in dtypes]
    stages += [partial(check_half, examination, dtype) for dtype in halves]
    return stages + ([partial(check_refusals, examination)] if refusals else [])


def _unfit(layer: Any, inputs: Any, keywords: dict[str, Any]) -> str:
    """Say which keyword forward does not take, or which input is complex; nothing if all fit."""
    known = keywords_of(layer)
    unknown = [] if known is None else sorted(set(keywords) - set(known))
    if known is not None and unknown:
        hint = did_you_mean(unknown[0], [*known, *inspect.signature(check_vjp).parameters])
        return f"forward has the keywords {{{', '.join(known)}}}: got {unknown[0]}{hint}"
    for path, leaf in pytree.leaves_with_path({"params": inputs[0], "x": inputs[1]}):
        if leaf.dtype.kind == "c":
            return f"{path} must be real: got {leaf.dtype}; pass its real and imaginary parts"
    return ""


def _expect_arguments(layer: Any, inputs: Any, dtypes: Any, seed: int) -> tuple[str, ...]:
    for name in ("forward", "vjp"):
        if not callable(getattr(layer, name, None)):
            raise TypeError(
                f"layer must have forward and vjp: {layer!r} has no {name}; pass a module, or "
                "types.SimpleNamespace(forward=..., vjp=...)"
            )
    dtypes = (dtypes,) if isinstance(dtypes, str) else tuple(dtypes)
    for dtype in dtypes:
        if dtype not in (*DTYPES, *HALF):
            known = ", ".join((*DTYPES, *HALF))
            raise ValueError(f"dtypes must be some of {known}: got {dtype!r}; pass their names")
    if not dtypes:
        raise ValueError("dtypes must name at least one: got none; pass ('float64', 'float32')")
    expect_int("seed", seed, minimum=0)
    tree = {"params": inputs[0], "x": inputs[1]}
    for path, leaf in pytree.leaves_with_path(tree):
        if leaf.dtype.kind not in "fiubc":
            raise TypeError(f"{path} must be an array of numbers: got {leaf.dtype}; cast it")
    infinite = pytree.first_not_finite(tree)
    if infinite and not getattr(layer, "MAY_BE_NON_FINITE", False):
        raise ValueError(f"params and x must be finite: {infinite}; pass other inputs")
    if not pytree.leaves(inputs):
        raise TypeError(
            f"params and x must hold arrays: got {inputs[0]!r} and {inputs[1]!r}; pass NumPy, JAX "
            "or PyTorch arrays, or lists of numbers"
        )
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
