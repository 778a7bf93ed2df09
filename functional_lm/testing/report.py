"""What a check found: a line for each leaf, a finding for each fault."""

import dataclasses
import math
import textwrap
from html import escape
from typing import Any

__all__ = ["CAUSES", "CHECKS", "Finding", "HalfReport", "LeafReport", "Report", "columns", "figure"]


@dataclasses.dataclass
class LeafReport:
    """How far one leaf is from the truth.

    Errors are Euclidean norms of the difference from the float64 oracle, relative to the norm of
    the oracle's leaf (absolute where that is zero).

    Attributes:
        path: ``y``, ``params.scale``, ``x.q``, ...
        float64_error: of our float64 result, in the worst of the draws.
        float64_limit: the largest error allowed there.
        float32_error: of our float32 result, root mean square over the draws.
        xla_error: of JAX's float32 result, likewise; None without a JAX reference.
        float32_limit: the largest float32 error allowed.
        ulps: the largest error of an entry of our float32 result, in units in the last place of
            what it should be, among the entries at least as large as their root mean square.
    """

    path: str
    float64_error: float | None = None
    float64_limit: float | None = None
    float32_error: float | None = None
    xla_error: float | None = None
    float32_limit: float | None = None
    ulps: float | None = None

    def within(self, dtype: str) -> bool:
        """Whether the error in that dtype, if it was measured, is within its limit."""
        error, limit = getattr(self, f"{dtype}_error"), getattr(self, f"{dtype}_limit")
        return error is None or (limit is not None and error <= limit)

    @property
    def ok(self) -> bool:
        """Whether every error that was measured is within its limit; NaN never is."""
        return self.within("float64") and self.within("float32")

    @property
    def over_xla(self) -> float | None:
        """Our float32 error over XLA's; None where one is missing."""
        if self.float32_error is None or self.xla_error is None:
            return None
        if self.xla_error:
            return self.float32_error / self.xla_error
        return math.inf if self.float32_error else 1.0


@dataclasses.dataclass
class HalfReport:
    """How far one leaf is from the truth in half precision.

    Errors are root mean squares over the draws, relative to the norm of the oracle's leaf.

    Attributes:
        path: as in `LeafReport`.
        dtype: bfloat16 or float16.
        error: of our result.
        unit: what rounding does to the problem itself; see `testing.stages.half_precision`.
        systematic: the share of the error that does not change with the rounding.
        verdict: ``right``, ``inexact``, ``wrong`` or ``ill-conditioned here``.
    """

    path: str
    dtype: str
    error: float
    unit: float
    systematic: float
    verdict: str

    @property
    def factor(self) -> float:
        """The error in units."""
        return self.error / self.unit if self.unit else math.inf if self.error else 1.0

    @property
    def ok(self) -> bool:
        """Whether the leaf is right, or nobody could compute it in this dtype."""
        return self.verdict in ("right", "ill-conditioned here")


CHECKS = ("contract", "purity", "linearity", "accuracy", "inputs", "jvp", "bitwise", "refusals")
"""What a check looks at, in this order.

contract: structure, shapes, dtypes and finite values of what forward and vjp return.
purity: nothing is written to, nothing hidden or shared; the same bits every time.
linearity: of vjp in g.
accuracy: the value and each gradient against the oracle.
inputs: other memory layouts, examples one by one, one token, an empty batch, extreme scales.
jvp: the forward mode of a layer that has one: all of this, and that it fits the gradient.
bitwise: the same bits in every call and in every batch; where it is asked for.
refusals: inputs spoilt in one place raise an error that names the argument; where it is asked for.
"""


CAUSES = {
    # the shape of the answer
    "exception": "the code under test raises",
    "reference": "the reference does not take the inputs, or JAX cannot trace it",
    "structure": "forward or vjp returns something other than the contract requires",
    "integer cotangent": "integers have the cotangent None",
    "swapped": "two outputs are exchanged",
    "missing sum": "a sum over a broadcast axis is missing",
    "transposed": "the result has two axes exchanged",
    "misplaced": "the right values are in the wrong places",
    "misread": "an array is read at wrong indices, or another one in its place",
    "never written": "the leaf stays zero, or uninitialised",
    "written in part": "some entries of the leaf stay zero, and the others are right",
    # the algebra
    "sign": "the whole leaf has the wrong sign",
    "constant factor": "the whole leaf is off by one constant",
    "missing factor": "a factor is left out: an array, a slope, or g itself",
    "extra factor": "a factor is applied once too often",
    "missing term": "one of several terms or paths is left out: a projection, a mean, a skip",
    "wrong term": "one of several terms or paths has the wrong sign or constant",
    "wrong point": "a slope is evaluated at the wrong point, such as the output for the input",
    "jacobian not transposed": "the Jacobian is applied where its transpose is needed: W for Wᵀ",
    "slice kept": "one part of a batch, head or group sum is kept, or one part is dropped",
    "scatter": "entries that share an index overwrite each other where they must add",
    "extra term": "a term is added that the forward does not have",
    "extra mask": "a gradient is masked where the forward masks nothing",
    "mask leak": "a gradient passes through a mask, or against the causal order",
    # the role of g
    "g ignored": "the result does not depend on g",
    "not linear in g": "the result is not linear in g",
    # conduct
    "overwritten": "an input, a residual or g is written to",
    "hidden state": "the result depends on something besides the residuals and g",
    "shared memory": "a result is a view of an input, of g or of a residual",
    "layout": "the result depends on how the inputs lie in memory",
    "edge shape": "the layer fails at a batch of one or none, or mixes the examples of a batch",
    "not refused": "an input that the layer cannot work with raises no error that names it",
    # numbers
    "jvp": "forward mode disagrees with the gradient, or breaks the contract",
    "precision": "right algebra, wrong rounding: a narrower or wider dtype, or a cancellation",
    "not reproducible": "the bits change from call to call, or with the batch around an example",
    "not finite": "NaN or infinity",
    "value": "forward computes something else than the reference",
    "unknown": "no signature and no replay matches",
}
"""The likely causes that a report can name, each with what it means."""


@dataclasses.dataclass(frozen=True)
class Finding:
    """One fault.

    Attributes:
        check: which of `CHECKS` found it.
        message: what is wrong, in a sentence.
        leaf: the path of the wrong leaf; empty where it is not about one leaf.
        dtype: in which it showed, float64 or float32; empty where it does not matter.
        cause: the likely cause, a key of `CAUSES`; empty where the message says it all.
        explanation: the likely cause in a sentence, with the numbers and names of this layer.
    """

    check: str
    message: str
    leaf: str = ""
    dtype: str = ""
    cause: str = ""
    explanation: str = ""

    def __str__(self) -> str:
        if not self.explanation:
            return self.message
        return f"{self.message}\n    likely cause: {self.cause}: {self.explanation}"


@dataclasses.dataclass(repr=False)
class Report:
    """The verdict on one layer at one set of inputs.

    Attributes:
        name: the layer.
        leaves: a `LeafReport` for the value ``y`` and for each gradient, by path.
        findings: a `Finding` for each fault, with its likely cause.
        notes: what a strict check would not forgive.
        audit: what the inputs do not test, where it was asked for.
        residual_bytes: of the float32 residuals (float64 if that alone was checked), beyond what
            they share with inputs and parameters; None if forward failed.
        oracle: what the gradients were compared with.
        reproduce: a line of Python that makes this report again.
        half: a `HalfReport` for each leaf and each dtype of half precision.
    """

    name: str
    leaves: dict[str, LeafReport] = dataclasses.field(default_factory=dict)
    findings: list[Finding] = dataclasses.field(default_factory=list)
    notes: list[str] = dataclasses.field(default_factory=list)
    audit: list[str] = dataclasses.field(default_factory=list)
    residual_bytes: int | None = None
    oracle: str = ""
    reproduce: str = ""
    half: list[HalfReport] = dataclasses.field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether the layer is right: something was compared, and nothing was found."""
        compared: list[LeafReport | HalfReport] = [*self.leaves.values(), *self.half]
        return bool(compared) and not self.findings and all(leaf.ok for leaf in compared)

    def __bool__(self) -> bool:
        return self.ok

    @property
    def causes(self) -> dict[str, str]:
        """The likely cause of each wrong leaf, by path; of what is about no leaf, by ""."""
        ordered = sorted(self.findings, key=lambda f: f.check != "accuracy")
        found: dict[str, str] = {}
        for finding in ordered:
            found.setdefault(finding.leaf, finding.cause)
        return found

    def raise_if_failed(self) -> None:
        """Raise an AssertionError that holds the printed report, unless the layer is right."""
        if not self.ok:
            raise AssertionError(str(self))

    def to_dict(self) -> dict[str, Any]:
        """Return all of it as dicts, lists, strings and numbers, ready for `json.dumps`.

        A number that is not finite is its name, since JSON has none: "nan", "inf".
        """
        record = {"ok": self.ok} | dataclasses.asdict(self)
        for path, leaf in self.leaves.items():
            fields = record["leaves"][path] | {"over_xla": leaf.over_xla}
            shown = {
                name: str(value) if value is not None and not math.isfinite(value) else value
                for name, value in fields.items()
                if name != "path"
            }
            record["leaves"][path] = {"path": path, **shown, "ok": leaf.ok}
        record["half"] = [
            {
                name: str(value) if isinstance(value, float) and not math.isfinite(value) else value
                for name, value in (dataclasses.asdict(leaf) | {"factor": leaf.factor}).items()
            }
            for leaf in self.half
        ]
        return record

    def __str__(self) -> str:
        lines = [f"{self.name}: {'ok' if self.ok else 'FAILED'}"]
        if self.leaves:
            lines += ["  " + line for line in columns([HEADER, *map(_row, self.leaves.values())])]
        if self.half:
            lines += ["  " + line for line in columns([HALF_HEADER, *map(_half_row, self.half)])]
        for messages, cause in self._by_cause():
            for message in messages:
                lines += _wrapped("  - ", message, "    ")
            if cause:
                lines += _wrapped("      likely cause: ", cause, "        ")
        for note in self.notes:
            lines += _wrapped("  - note: ", note, "    ")
        lines += ["  these inputs do not test"] * bool(self.audit)
        for untested in self.audit:
            lines += _wrapped("  - ", untested, "    ")
        if not self.ok and self.reproduce:
            lines.append(f"  reproduce: {self.reproduce}")
        return "\n".join(lines)

    __repr__ = __str__

    def _repr_html_(self) -> str:
        """Return the same as HTML, for a notebook."""
        verdict = "ok" if self.ok else "FAILED"
        against = f", certified numerically against {self.oracle}" if self.ok else ""
        parts = [f"<p><b>{escape(self.name)}: {verdict}</b>{escape(against)}</p>"]
        tables = (
            [HEADER, *map(_row, self.leaves.values())],
            [HALF_HEADER, *map(_half_row, self.half)],
        )
        for rows in tables:
            for i, row in enumerate(rows if len(rows) > 1 else ()):
                cells = "".join(f"<t{'d' if i else 'h'}>{escape(text)}" for text in row)
                parts.append(f"{'' if i else '<table>'}<tr>{cells}")
            parts += ["</table>"] * (len(rows) > 1)
        for messages, cause in self._by_cause():
            shown = "<br>".join(map(escape, messages))
            parts.append(f"<p>{shown}<br><i>{escape(cause and f'likely cause: {cause}')}</i></p>")
        parts += [f"<p>note: {escape(note)}</p>" for note in self.notes]
        untested = "".join(f"<li>{escape(line)}" for line in self.audit)
        parts += [f"<p>these inputs do not test<ul>{untested}</ul>"] * bool(untested)
        if not self.ok and self.reproduce:
            parts.append(f"<pre>{escape(self.reproduce)}</pre>")
        return "\n".join(parts)

    def _by_cause(self) -> list[tuple[list[str], str]]:
        """Return (messages, likely cause) of the findings that have one explanation."""
        groups: dict[Any, list[Finding]] = {}
        for i, finding in enumerate(self.findings):
            alone = not finding.explanation and finding.check != "inputs"
            key = i if alone else (finding.check, finding.cause, finding.explanation)
            groups.setdefault(key, []).append(finding)
        found = []
        for findings in groups.values():
            first, messages = findings[0], _folded(findings)
            if not first.explanation:
                found.append((["; ".join(messages)], ""))
                continue
            leaves = ", ".join(finding.leaf for finding in findings)
            explains = f" (explains {leaves})" if len(messages) > 1 else ""
            found.append((messages, f"{first.cause}: {first.explanation}{explains}"))
        return found


def _folded(findings: list[Finding]) -> list[str]:
    """Return the messages, in one line where they say the same of several leaves or layouts."""
    said: dict[str, list[str]] = {}  # of which leaves
    for finding in findings:
        rest = finding.message.removeprefix(f"{finding.leaf} is ")
        same = rest.startswith("wrong for ") or " where the inputs are " in rest
        said.setdefault(rest if same else finding.message, []).extend([finding.leaf] * same)
    found: dict[str, list[str]] = {}  # in which layouts
    for rest, leaves in said.items():
        *others, last = leaves or [""]
        start = f"{', '.join(others)} and {last} are " if others else f"{last} is " if last else ""
        kind = "wrong for " if start and rest.startswith("wrong for ") else ""
        found.setdefault(start + kind, []).append(rest.removeprefix(kind))
    return [
        start + text
        for start, rests in found.items()
        for text in ([", ".join(rests)] if start.endswith("for ") else rests)
    ]


def _wrapped(start: str, text: str, indent: str) -> list[str]:
    """Return lines of at most 100 characters."""
    return textwrap.wrap(
        start + " ".join(text.split()),
        100,
        subsequent_indent=indent,
        break_long_words=False,
        break_on_hyphens=False,
    )


HEADER = ("leaf", "f64 error", "limit", "f32 error", "limit", "over XLA", "ULPs", "")


def columns(rows: list[tuple[str, ...]]) -> list[str]:
    """Return lines in which the first cells are flush left and the others flush right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        cells = [row[0].ljust(widths[0])]
        cells += [c.rjust(w) for c, w in zip(row[1:-1], widths[1:-1], strict=True)]
        lines.append("  ".join([*cells, row[-1]]).rstrip())
    return lines


def _row(leaf: LeafReport) -> tuple[str, ...]:
    return (
        leaf.path,
        figure(leaf.float64_error),
        figure(leaf.float64_limit),
        figure(leaf.float32_error),
        figure(leaf.float32_limit),
        "-" if leaf.over_xla is None else f"{leaf.over_xla:.2g}",
        "-" if leaf.ulps is None else f"{leaf.ulps:.2g}",
        "ok" if leaf.ok else "WRONG",
    )


HALF_HEADER = ("leaf", "dtype", "error", "unit", "factor", "systematic", "")


def _half_row(leaf: HalfReport) -> tuple[str, ...]:
    shares = f"{leaf.factor:.2g}", f"{leaf.systematic:.0%}"
    return leaf.path, leaf.dtype, figure(leaf.error), figure(leaf.unit), *shares, leaf.verdict


def figure(value: float | None) -> str:
    """Return a number in seven characters, a dash where there is none."""
    return "-" if value is None else f"{value:.1e}"
