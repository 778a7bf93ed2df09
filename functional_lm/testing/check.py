"""Check a hand-written ``vjp`` against `jax.vjp` of a reference, and against the contract."""

from typing import Any

import numpy as np

from .. import pytree
from ..contract import Differentiable, Tree
from . import limits
from .inputs import LAYOUTS, cast, freeze, jitter, normal_like
from .oracle import JaxOracle
from .report import LeafReport, Report

DRAWS = 8
"""The inputs that one check looks at: those given, and seven redrawn near them."""


class _Broken(Exception):
    """A breach of the contract after which there is nothing left to compare."""


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
    given = cast((params, x), np.float64)
    subject = _Subject(layer, keywords, report)
    try:
        for dtype in dtypes:
            subject.check_contract(cast(given, dtype), oracle, cotangent, seed, dtype)
        g = _cotangent(cotangent, subject.y, seed)
        draws = [(given, g)]
        for i in range(1, DRAWS):
            redrawn = jitter((seed, 1, i), (given, g) if cotangent is not None else (given,))
            fresh = redrawn[1] if cotangent is not None else normal_like((seed, 2, i), subject.y)
            draws.append((redrawn[0], fresh))
        if "float64" in dtypes:
            _compare_float64(subject, oracle, draws)
            _compare_layouts(subject, *draws[0])
        if "float32" in dtypes:
            _compare_float32(subject, oracle, draws, factor)
    except _Broken as error:
        report.findings.append(str(error))
    return report


class _Subject:
    """The layer under test, run with floating-point faults as errors."""

    def __init__(self, layer: Differentiable, keywords: dict[str, Any], report: Report) -> None:
        self.layer = layer
        self.keywords = keywords
        self.report = report
        self.y: Any = None

    def forward(self, inputs: tuple[Tree, Any], keywords: dict[str, Any] | None = None) -> Any:
        """Return ``(y, residuals)``."""
        keywords = self.keywords if keywords is None else keywords
        result = _run("forward", lambda: self.layer.forward(*inputs, **keywords))
        if type(result) is not tuple or len(result) != 2:
            raise _Broken(f"forward must return (y, residuals): got {_kind(result)}")
        return result

    def vjp(self, residuals: Any, g: Any) -> Any:
        """Return ``(d_params, d_x)``."""
        result = _run("vjp", lambda: self.layer.vjp(residuals, g))
        if type(result) is not tuple or len(result) != 2:
            raise _Broken(f"vjp must return (d_params, d_x): got {_kind(result)}")
        return result

    def gradients(self, inputs: Any, g: Any, keywords: dict[str, Any] | None = None) -> Tree:
        """Return ``{"y", "params", "x"}``, forward and back."""
        y, residuals = self.forward(inputs, keywords)
        d_params, d_x = self.vjp(residuals, g)
        return {"y": y, "params": d_params, "x": d_x}

    def check_contract(
        self, inputs: Any, oracle: JaxOracle, cotangent: Any, seed: int, dtype: str
    ) -> None:
        """Check structure, dtypes, purity, repeatability and linearity, at read-only inputs."""
        found = self.report.findings
        before = cast(inputs, dtype)
        self.y, residuals = self.forward(freeze(inputs))
        _expect_like("y", oracle.output(before, dtype), self.y)
        freeze(residuals)
        kept = [leaf.copy() for leaf in pytree.leaves(residuals)]
        g = freeze(cast(_cotangent(cotangent, self.y, seed), dtype))
        d_params, d_x = cotangents = self.vjp(residuals, g)
        _expect_like("d_params", inputs[0], d_params)
        _expect_like("d_x", inputs[1], d_x)

        for place, tree in (("y", self.y), ("residuals", residuals), ("d", cotangents)):
            found += [f"{place}{fault}" for fault in _dtype_faults(tree, dtype)]
        for place, tree in (("y", self.y), ("d_params", d_params), ("d_x", d_x)):
            for path, leaf in pytree.leaves_with_path(tree):
                if not np.isfinite(leaf).all():
                    found.append(f"{_at(place, path)} is not finite in {dtype}")

        again = self.vjp(residuals, g)
        if not _same_bits(again, cotangents):
            found.append(f"a second vjp of the same residuals and g gives other bits in {dtype}")
        _expect_linear(self, residuals, g, cotangents, dtype)
        if not _same_bits(inputs, before):
            found.append("forward or vjp writes to its inputs")
        if not _same_bits(pytree.leaves(residuals), kept):
            found.append("vjp writes to its residuals")


def _compare_float64(subject: _Subject, oracle: JaxOracle, draws: list[Any]) -> None:
    for inputs, g in draws:
        ours = subject.gradients(inputs, g)
        y, d_params, d_x = oracle.vjp(inputs, g, "float64")
        for group in ({"y": y}, {"params": d_params, "x": d_x}):
            largest = _largest(group)
            for path, theirs, mine in _zip(group, ours):
                leaf = _leaf(subject.report, path)
                error = limits.norm(mine - theirs)
                limit = limits.float64_limit(theirs, largest)
                if leaf.float64_error is None or _ratio(error, limit) > _ratio(
                    leaf.float64_error, leaf.float64_limit
                ):
                    leaf.float64_error, leaf.float64_limit = error, limit


def _compare_float32(subject: _Subject, oracle: JaxOracle, draws: list[Any], factor: float) -> None:
    figures: dict[str, list[tuple[float, ...]]] = {}
    for draw in draws:
        inputs, g = cast(draw, np.float32)
        ours = subject.gradients(inputs, g)
        xla = dict(zip(("y", "params", "x"), oracle.vjp(inputs, g, "float32"), strict=True))
        exact_inputs, exact_g = cast((inputs, g), np.float64)
        y, d_params, d_x = oracle.vjp(exact_inputs, exact_g, "float64")
        for group in ({"y": y}, {"params": d_params, "x": d_x}):
            largest = _largest(group)
            rows = zip(_zip(group, ours), _zip(group, xla), strict=True)
            for (path, exact, mine), (_, _, theirs) in rows:
                exact = limits.flush(exact)
                errors = [limits.norm(limits.flush(result) - exact) for result in (mine, theirs)]
                row = (*errors, limits.norm(exact), exact.size, largest)
                figures.setdefault(path, []).append(row)
    for path, rows_of_path in figures.items():
        leaf = _leaf(subject.report, path)
        mine, theirs, exact, _, largest = map(
            limits.root_mean_square, zip(*rows_of_path, strict=True)
        )
        leaf.float32_error, leaf.xla_error = mine, theirs
        leaf.float32_limit = limits.float32_limit(
            theirs, exact, int(rows_of_path[0][3]), largest, factor
        )


def _compare_layouts(subject: _Subject, inputs: Any, g: Any) -> None:
    """Require the same result, to rounding, however the inputs lie in memory."""
    plain = subject.gradients(inputs, g)
    for name, lay_out in LAYOUTS.items():
        laid, laid_g, keywords = pytree.map(
            lambda leaf, lay_out=lay_out: lay_out(leaf) if isinstance(leaf, np.ndarray) else leaf,
            (inputs, g, subject.keywords),
        )
        result = subject.gradients(laid, laid_g, keywords)
        largest = _largest(plain)
        for path, expected, received in _zip(plain, result):
            error = limits.norm(received - expected)
            if not error <= limits.float64_limit(expected, largest):
                subject.report.findings.append(f"{path} is wrong for {name} inputs")


def _expect_linear(subject: _Subject, residuals: Any, g: Any, cotangents: Any, dtype: str) -> None:
    """Require that zero g gives exactly zero, and that 2g gives twice the result, to the bit."""
    found = subject.report.findings
    zero = subject.vjp(residuals, freeze(pytree.map(lambda leaf: leaf * 0, g)))
    if any(np.any(leaf) for leaf in pytree.leaves(zero)):
        found.append(f"zero g does not give zero in {dtype}")
    double = subject.vjp(residuals, freeze(pytree.map(lambda leaf: leaf * 2, g)))
    # Doubling is exact but for subnormals, in the entry or in what it was summed from.
    info = np.finfo(dtype)
    floor = float(info.tiny) / float(info.eps)
    for path, once, twice in pytree.zip_with_path(cotangents, double):
        counts = np.abs(once) > floor
        if not np.array_equal(2 * once[counts], twice[counts]):
            found.append(f"vjp is not linear in g in {dtype}: d{_path(path)} of 2g is not twice")


def _cotangent(cotangent: Any, y: Any, seed: int) -> Any:
    if cotangent is None:
        return normal_like((seed, 0), y)
    given = cast(cotangent, np.float64)
    _expect_like("cotangent", y, given, dtypes=False)
    return given


def _run(what: str, call: Any) -> Any:
    try:
        with np.errstate(over="raise", divide="raise", invalid="raise"):
            return call()
    except Exception as error:
        raise _Broken(f"{what} raised {type(error).__name__}: {error}") from error


def _expect_like(name: str, primal: Any, cotangent: Any, dtypes: bool = True) -> None:
    """Require the structure, shapes and dtypes of the primal; None for an integer leaf."""
    primal = pytree.map(np.asarray, _as_arrays(primal))
    try:
        pairs = pytree.zip_with_path(primal, cotangent)
    except ValueError as error:
        raise _Broken(f"{name} has another structure: {error}") from None
    for path, required, received in pairs:
        place = _at(name, path)
        if required.dtype.kind != "f":
            if received is not None:
                raise _Broken(f"{place} must be None, the cotangent of integers: {_kind(received)}")
        elif not pytree.is_leaf(received):
            raise _Broken(f"{place} must be an array: got {_kind(received)}")
        elif received.shape != required.shape:
            raise _Broken(f"{place} must have shape {required.shape}: got {received.shape}")
        elif dtypes and received.dtype != required.dtype:
            raise _Broken(f"{place} must be {required.dtype}: got {received.dtype}")


def _as_arrays(tree: Any) -> Any:
    """Turn jax.ShapeDtypeStruct leaves into arrays without memory."""
    if hasattr(tree, "shape") and not pytree.is_leaf(tree):
        return np.broadcast_to(np.zeros((), tree.dtype), tree.shape)
    if isinstance(tree, dict):
        return {key: _as_arrays(value) for key, value in tree.items()}
    if isinstance(tree, tuple) and hasattr(tree, "_fields"):
        return type(tree)(*map(_as_arrays, tree))
    return type(tree)(map(_as_arrays, tree)) if isinstance(tree, (tuple, list)) else tree


def _dtype_faults(tree: Any, dtype: str) -> list[str]:
    """Name the floating and complex leaves of another precision."""
    allowed = (np.dtype(dtype), np.result_type(dtype, np.complex64))
    return [
        f"{_path(path)} is {leaf.dtype} where the inputs are {dtype}"
        for path, leaf in pytree.leaves_with_path(tree)
        if leaf.dtype.kind in "fc" and leaf.dtype not in allowed
    ]


def _zip(group: Tree, result: Tree) -> list[tuple[str, Any, Any]]:
    """Pair the leaves of the oracle's tree with those of another result, integers left out."""
    return pytree.zip_with_path(group, {name: result[name] for name in group})


def _leaf(report: Report, path: str) -> LeafReport:
    return report.leaves.setdefault(path, LeafReport(path))


def _largest(tree: Tree) -> float:
    return max(
        (float(np.abs(leaf).max()) for leaf in pytree.leaves(tree) if leaf.size), default=0.0
    )


def _ratio(error: float, limit: float | None) -> float:
    """Return how far an error is past its limit; NaN counts as infinitely far."""
    if error == 0.0:
        return 0.0
    return error / limit if limit and error == error else float("inf")


def _same_bits(a: Any, b: Any) -> bool:
    pairs = zip(pytree.leaves(a), pytree.leaves(b), strict=True)
    return all(np.asarray(x).tobytes() == np.asarray(y).tobytes() for x, y in pairs)


def _kind(value: Any) -> str:
    if isinstance(value, tuple):
        return f"a tuple of {len(value)}"
    return f"{type(value).__name__} {getattr(value, 'dtype', '')}".strip()


def _path(path: str) -> str:
    return f".{path}" if path else ""


def _at(name: str, path: str) -> str:
    return name + _path(path)
