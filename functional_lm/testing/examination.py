"""What the stages of one check share."""

import dataclasses
from collections.abc import Callable
from typing import Any, Protocol

from ..contract import Tree
from .report import Finding, Report
from .subject import Subject


class Oracle(Protocol):
    """What tells the truth about a layer."""

    draws: int  # how many inputs are looked at
    has_float32: bool  # whether it can say how inaccurate float32 has to be

    @property
    def name(self) -> str:
        """What the gradients are compared with."""

    @property
    def tolerance(self) -> float:
        """The relative error allowed in float64."""

    def output(self, inputs: Any, dtype: str) -> Any:
        """Return a tree in the shapes and dtypes of y."""

    def results(self, inputs: Any, g: Any, dtype: str, given: str | None = None) -> Tree:
        """Return ``{"y", "params", "x"}``, or without y."""

    def project(self, results: Tree) -> Tree:
        """Return of a layer's results what this oracle can compare."""


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
    oracle: Oracle
    draws: list[tuple[Any, Any]]  # ((params, x), g) in float64; the first is what was given
    draw: Callable[[int], tuple[Any, Any]]  # any number of them
    dtypes: tuple[str, ...]
    factor: float  # over XLA's float32 error
    report: Report
    comparisons: list[Comparison] = dataclasses.field(default_factory=list)
    returned: Any = None  # (d_params, d_x) as the first vjp gave them, whatever their shapes

    def find(self, check: str, message: str, **fields: Any) -> None:
        """Add a finding, unless the same was found before."""
        finding = Finding(check, message, **fields)
        if finding not in self.report.findings:
            self.report.findings.append(finding)
