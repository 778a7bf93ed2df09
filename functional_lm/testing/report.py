"""What a check found, leaf by leaf."""

import dataclasses


@dataclasses.dataclass
class LeafReport:
    """The errors of one leaf, as Euclidean norms of the difference from the float64 oracle.

    Attributes:
        path: ``y``, ``params.scale``, ``x.q``, ...
        float64_error: of our float64 result, in the worst of the draws.
        float64_limit: the largest error allowed there.
        float32_error: of our float32 result, root mean square over the draws.
        xla_error: of JAX's float32 result, likewise.
        float32_limit: the largest float32 error allowed.
    """

    path: str
    float64_error: float | None = None
    float64_limit: float | None = None
    float32_error: float | None = None
    xla_error: float | None = None
    float32_limit: float | None = None

    @property
    def ok(self) -> bool:
        """Whether every error that was measured is within its limit; NaN never is."""
        pairs = [
            (self.float64_error, self.float64_limit),
            (self.float32_error, self.float32_limit),
        ]
        return all(e is None or (m is not None and e <= m) for e, m in pairs)


@dataclasses.dataclass
class Report:
    """The verdict on one layer at one set of inputs.

    Attributes:
        name: the layer.
        leaves: a `LeafReport` for the value ``y`` and for each gradient, by path.
        findings: sentences on everything that broke the contract.
    """

    name: str
    leaves: dict[str, LeafReport] = dataclasses.field(default_factory=dict)
    findings: list[str] = dataclasses.field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether the layer is right: something was compared, and nothing was found."""
        return bool(self.leaves) and not self.findings and all(x.ok for x in self.leaves.values())

    def __bool__(self) -> bool:
        """Same as `ok`."""
        return self.ok

    def raise_if_failed(self) -> None:
        """Raise an AssertionError that holds the printed report, unless the layer is right."""
        if not self.ok:
            raise AssertionError(str(self))

    def __str__(self) -> str:
        """Return the verdict, a table of the leaves and the findings."""
        lines = [f"{self.name}: {'ok' if self.ok else 'FAILED'}"]
        if self.leaves:
            header = ("leaf", "f64 error", "limit", "f32 error", "XLA's", "limit", "")
            table = [header, *(_row(leaf) for leaf in self.leaves.values())]
            widths = [max(map(len, column)) for column in zip(*table, strict=True)]
            for row in table:
                cells = [row[0].ljust(widths[0])]
                cells += [c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True)]
                lines.append("  " + "  ".join(cells).rstrip())
        lines += [f"  - {finding}" for finding in self.findings]
        return "\n".join(lines)


def _row(leaf: LeafReport) -> tuple[str, ...]:
    figures = (
        leaf.float64_error,
        leaf.float64_limit,
        leaf.float32_error,
        leaf.xla_error,
        leaf.float32_limit,
    )
    cells = ["-" if figure is None else f"{figure:.1e}" for figure in figures]
    return (leaf.path, *cells, "ok" if leaf.ok else "WRONG")
