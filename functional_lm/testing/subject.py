"""The code under test, and what the stages of one check share.

Whatever the layer raises or writes to is a finding, not a crash of the checker.
"""

import dataclasses
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from .. import pytree
from ..contract import Differentiable, Tree
from .inputs import at, cast, freeze, same_bits
from .report import Finding, Report

__all__ = ["BrokenLayer", "Comparison", "Examination", "Oracle", "Subject", "describe", "line_of"]

if TYPE_CHECKING:
    from .numeric import NumericOracle
    from .oracle import JaxOracle, LayerOracle


Oracle: TypeAlias = "JaxOracle | LayerOracle | NumericOracle"
"""What the results are compared with."""


class BrokenLayer(Exception):
    """A fault after which there is nothing left to compare; holds the finding."""

    def __init__(self, finding: Finding) -> None:
        super().__init__(finding.message)
        self.finding = finding


class Subject:
    """A layer, run with read-only arguments and with floating-point faults as errors.

    The first write to an argument is remembered in ``writes``; from then on the layer is given
    copies that it may write to, so that the rest of the check continues.

    A layer may declare, as constants of its module:

    - ``SHARES_MEMORY``: why results are views of inputs, ``g`` or residuals, in a sentence;
    - ``MAY_BE_NON_FINITE``: True if NaN or infinity is a legitimate value of results. They then
      must stand where the oracle's do;
    - ``EXTREME_SCALES``: factors; the layer is also checked at inputs this much larger;
    - ``FIXED_SIZES``: lengths of axes that it was made for, so that no others are tried.
    """

    def __init__(
        self, layer: Differentiable, keywords: dict[str, Any], *, strict: bool = True
    ) -> None:
        self.layer = layer
        self.strict = strict
        self._keywords = keywords
        self._inputs: Any = None  # of the last forward
        self.writes: set[str] = set()
        self.notes: dict[str, None] = {}  # what is forgiven unless the check is strict, in order
        self.float_faults: list[str] = []
        self.shares_memory: str = getattr(layer, "SHARES_MEMORY", "")
        self.may_be_non_finite = bool(getattr(layer, "MAY_BE_NON_FINITE", False))
        self.fixed_sizes: frozenset[int] = frozenset(getattr(layer, "FIXED_SIZES", ()))
        self.extreme_scales: tuple[float, ...] = tuple(getattr(layer, "EXTREME_SCALES", ()))

    def keywords(self, dtype: Any) -> dict[str, Any]:
        """Return the keywords with floating arrays in the dtype of the inputs, read-only."""
        return freeze(cast(self._keywords, dtype))

    def forward(self, inputs: tuple[Tree, Any], keywords: dict[str, Any] | None = None) -> Any:
        """Return ``(y, residuals)``, with other keywords if given."""
        if keywords is None:
            floats = [leaf.dtype for leaf in pytree.leaves(inputs) if leaf.dtype.kind == "f"]
            keywords = self.keywords(floats[0] if floats else np.float64)

        arguments = {"params": inputs[0], "x": inputs[1], "keyword": keywords}
        y, residuals = self._run("forward", "(y, residuals)", arguments)
        self._inputs = inputs
        if isinstance(y, float) and not isinstance(y, np.generic) and not self.strict:
            self.notes["forward returns a Python float; a NumPy scalar has the dtype of x"] = None
            y = np.result_type(np.float16, *pytree.leaves(inputs)).type(y)
        return y, residuals

    def vjp(self, residuals: Any, g: Any) -> Any:
        """Return ``(d_params, d_x)``."""

        pair = self._run("vjp", "(d_params, d_x)", {"residuals": residuals, "g": g})
        try:
            return pair if self.strict else pytree.map(self._forgiven, self._inputs, pair)
        except (ValueError, TypeError):  # another structure, which the contract check reports
            return pair

    def jvp(self, residuals: Any, t: Any) -> Any:
        """Return t_y."""
        return self._run("jvp", "", {"residuals": residuals, "t": t})

    def _forgiven(self, leaf: Any, d_leaf: Any) -> Any:
        """Return None for zeros as the cotangent of integers."""
        if leaf.dtype.kind == "f" or not pytree.is_leaf(d_leaf) or np.any(d_leaf):
            return d_leaf
        self.notes["vjp returns zeros for integers; None says that they have no gradient"] = None
        return None

    def results(self, inputs: Any, g: Any, keywords: dict[str, Any] | None = None) -> Tree:
        """Return ``{"y", "params", "x"}``: the value and the cotangents, by the names of leaves."""
        y, residuals = self.forward(inputs, keywords)
        d_params, d_x = self.vjp(residuals, g)
        return {"y": y, "params": d_params, "x": d_x}

    def _run(self, what: str, required: str, arguments: dict[str, Any]) -> Any:
        """Run a function of the layer, and require a pair if it is to return one."""
        try:
            result = self._guarded(what, arguments)
        except Exception as error:
            message = f"{what} raised {type(error).__name__}: {error}{line_of(error)}"
            raise BrokenLayer(Finding("contract", message, cause="exception")) from error
        if required and (type(result) is not tuple or len(result) != 2):
            message = f"{what} must return {required}: got {describe(result)}"
            raise BrokenLayer(Finding("contract", message, cause="structure"))
        return result

    def _guarded(self, what: str, arguments: dict[str, Any]) -> Any:
        """Run with read-only arguments; from the first write on, with copies."""
        if not self.writes:
            try:
                return self._strictly(what, freeze(arguments))
            except ValueError as error:
                if "read-only" not in str(error):
                    raise
        copies = {name: _copy(value) for name, value in arguments.items()}
        result = self._strictly(what, copies)
        for name, value in arguments.items():
            if not same_bits(value, copies[name]):
                self.writes.add(f"{what} writes to {_changed(name, value, copies[name])}")
        if not self.writes:  # it did write, but the values that stood there
            self.writes.add(f"{what} writes to an argument")
        return result

    def _strictly(self, what: str, arguments: dict[str, Any]) -> Any:
        """Run with floating-point faults as errors; note one that repeats, and go on."""
        keywords = arguments.get("keyword", {})
        given = [value for name, value in arguments.items() if name != "keyword"]
        function = getattr(self.layer, what)
        faults: list[str] = []
        for _ in range(0 if self.float_faults else 2):  # BLAS may flag what it does not use
            try:
                with np.errstate(over="raise", divide="raise", invalid="raise", under="ignore"):
                    return function(*given, **keywords)
            except FloatingPointError as error:
                faults.append(f"{what} raised FloatingPointError: {error}")
        self.float_faults += faults[-1:]
        with np.errstate(all="ignore"):
            return function(*given, **keywords)


def line_of(error: BaseException) -> str:
    """Return the last line of the user's own code in a traceback: " (file.py, line 3: `code`)"."""
    ours = Path(__file__).parent.parts
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if not {"site-packages", "importlib"} & {*Path(frame.filename).parts}
        and Path(frame.filename).parts[: len(ours)] != ours
        and not frame.filename.startswith("<")
    ]
    if not frames:
        return ""
    last = frames[-1]
    code = f": `{last.line}`" if last.line else ""
    return f" ({Path(last.filename).name}, line {last.lineno}{code})"


def describe(value: Any) -> str:
    """Return what a value is, in a few words."""
    if isinstance(value, (tuple, list)):
        return f"a {type(value).__name__} of {len(value)}"
    return f"{type(value).__name__} {getattr(value, 'dtype', '')}".strip()


def _copy(value: Any) -> Any:
    """Copy a tree; what is shared between its leaves stays shared."""
    copies: dict[int, Any] = {}

    def one(leaf: Any) -> Any:
        if id(leaf) not in copies:
            copies[id(leaf)] = np.array(leaf) if isinstance(leaf, np.ndarray) else leaf
        return copies[id(leaf)]

    return pytree.map(one, value)


def _changed(name: str, before: Any, after: Any) -> str:
    for path, a, b in pytree.zip_with_path(before, after):
        if not same_bits(a, b):
            return at(name, path)
    return name


@dataclasses.dataclass
class Comparison:
    """One draw in float64: what went in, what should come out and what did."""

    inputs: Any
    g: Any
    exact: Tree
    ours: Tree


@dataclasses.dataclass
class Examination:
    """One check of one layer, from the first stage to the last."""

    subject: Subject
    oracle: "Oracle"
    draws: list[tuple[Any, Any]]  # ((params, x), g) in float64; the first is what was given
    draw: Callable[[int], tuple[Any, Any]]  # any number of them
    dtypes: tuple[str, ...]
    factor: float  # over XLA's float32 error
    report: Report
    comparisons: list[Comparison] = dataclasses.field(default_factory=list)
    returned: Any = None  # (d_params, d_x) as the first vjp gave them, whatever their shapes
    memory: dict[str, Any] = dataclasses.field(default_factory=dict)  # of the diagnosis

    def find(self, check: str, message: str, **fields: Any) -> None:
        """Add a finding, unless the same was found before."""
        finding = Finding(check, message, **fields)
        if finding not in self.report.findings:
            self.report.findings.append(finding)
