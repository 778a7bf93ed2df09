"""What is wrong with a backward pass, judged by its numbers.

A wrong leaf is compared with signatures, the most specific first. The first that fits all draws to
rounding is the likely cause:

    whole_leaf   it is the truth times a constant, transposed, misplaced, another leaf's; its shape
    parts        its answers to parts of g: a slice kept, a scatter, a leak through a mask
    places       which entries of g are read, and which of the leaf are written
    factors      a factor is missing or stands there twice
    terms        a term is missing or wrong: the reference with one step differentiated wrongly
    edges        a cotangent inside the reference is masked or multiplied; two terms are wrong
    maps         one step is undone along other axes, at other entries, without its sum
    trials       another value is read, or part of a loop cut off
    rounding     right algebra, wrong rounding

    evidence     what the signatures look at: the truth and the answer at any g; names of constants
    network      for edges, maps and trials: the reference as linear maps; Jacobians
    replay       for terms: all wrong derivatives of a reference as one compiled function
    steps        for replay: a traced reference as a list of single operations
"""

import contextlib
import dataclasses
import itertools
from collections.abc import Callable

import numpy as np

from ... import pytree
from ..inputs import cast, finite
from ..report import Finding
from ..subject import BrokenLayer, Comparison, Examination
from . import edges, factors, maps, parts, places, rounding, terms, trials, whole_leaf
from .evidence import Cause, Evidence, leaf_of
from .whole_leaf import explain_shape

__all__ = ["explain"]

Signature = Callable[[Evidence], Cause | None]

OF_PROJECTIONS: tuple[Signature, ...] = (
    rounding.tiny,
    parts.never_written,
    whole_leaf.g_ignored,
    rounding.held,
    rounding.noisy,
    whole_leaf.not_linear,
    whole_leaf.exchanged,
    whole_leaf.sign_or_constant,
)
"""In order of trial; these need projections of a leaf only."""

OF_ENTRIES: tuple[Signature, ...] = (
    whole_leaf.swapped,
    whole_leaf.transposed,
    parts.scatter,
    whole_leaf.jacobian_not_transposed,
    whole_leaf.other_setting,
    parts.slice_kept,
    parts.pure_leak,
    whole_leaf.misplaced,
    places.g_at_other_places,
    factors.of_another,
    places.written_elsewhere,
    factors.constant_in_part,
    factors.entrywise,
    factors.in_the_sum,
    terms.replayed,
    whole_leaf.diagonal_only,
    parts.one_survives,
    trials.g_elsewhere,
    trials.keyword_elsewhere,
    whole_leaf.other_number,
    edges.factor_at_an_edge,
    maps.selected_otherwise,
    trials.read_elsewhere,
    maps.other_entries_read,
    maps.mapped_otherwise,
    places.outputs_exchanged,
    places.passed_early,
    maps.not_summed,
    places.other_leaves,
    places.examples_mixed,
    places.unrelated,
    places.copied,
    places.one_term_each,
    edges.two_terms,
    places.lands_elsewhere,
    places.right_or_zero,
    factors.pattern,
    terms.error_along,
    parts.mask_leak,
    rounding.small,
    places.wider,
)
"""In order of trial, after those; these need every entry."""


def explain(examination: Examination) -> None:
    """Give every finding that lacks one a likely cause, and every wrong leaf a finding."""
    report = examination.report
    report.findings[:] = [_with_cause(examination, finding) for finding in report.findings]
    wrong = [path for path, leaf in report.leaves.items() if not leaf.within("float64")]
    causes = _causes(examination, wrong)
    for path, (cause, explanation) in causes.items():
        evidence = Evidence(examination, path)
        if cause in ("g ignored", "hidden state", "overwritten", "precision"):
            shallow = (path, "not linear in g")
            report.findings[:] = [
                dataclasses.replace(f, cause=cause) if (f.leaf, f.cause) == shallow else f
                for f in report.findings
            ]
        if cause == "not finite" and any(
            (f.leaf, f.cause) == (path, cause) for f in report.findings
        ):
            continue  # it was explained before
        message = f"{path} is wrong in float64: {_worst(evidence)}"
        report.findings.append(Finding("accuracy", message, path, "float64", cause, explanation))
    for path, leaf in report.leaves.items():
        if leaf.within("float32") or path in wrong:
            continue
        error = np.nan if leaf.float32_error is None else leaf.float32_error
        cause, explanation = rounding.in_float32(error, leaf.over_xla)
        message = f"{path} is wrong in float32: error {error:.1e}, limit {leaf.float32_limit:.1e}"
        report.findings.append(Finding("accuracy", message, path, "float32", cause, explanation))


def _causes(examination: Examination, wrong: list[str]) -> dict[str, Cause]:
    """Return the cause of each leaf that is wrong in float64."""
    if not wrong:
        return {}
    part = _of_wrong_outputs(examination)
    causes = {path: _cause_of(part, Evidence(part, path)) for path in wrong}
    for path in (path for path in wrong if causes[path][0] == "never written"):
        if Evidence(examination, path).ours.any() and not Evidence(part, path).ours.any():
            causes[path] = "missing term", "the cotangent of another output of y adds nothing to it"
    if "slice kept" in (cause for cause, _ in causes.values()):
        for path in (path for path in wrong if causes[path][0] == "never written"):
            # What is kept may be nothing, such as the first step of a loop that starts at zero.
            with contextlib.suppress(Exception):
                found = trials.read_elsewhere(Evidence(part, path), only="slice kept")
                causes[path] = found or causes[path]
    named = {cause for cause, _ in causes.values()} - {"unknown"}
    for path in (path for path in wrong if causes[path][0] == "unknown" and len(named) == 1):
        others = ", ".join(p for p in wrong if causes[p][0] in named)
        text = f"no signature matches, but one mistake may explain this leaf and {others}"
        causes[path] = next(iter(named)), text
    return causes


def _of_wrong_outputs(examination: Examination) -> Examination:
    """Return the same with zeros in g for the outputs of y that it is pulled back rightly from."""
    first = examination.comparisons[0]
    count = len(pytree.leaves(first.g))
    if count < 2 or examination.oracle.project(first.exact) is not first.exact:
        return examination
    wrong: set[int] = set()
    with contextlib.suppress(Exception):  # a layer may fail at zeros
        for whole, i in itertools.product(examination.comparisons[:2], range(count)):
            part = _with_outputs(examination, whole, {i})
            sizes = dict(pytree.leaves_with_path(whole.exact))
            for path, exact, ours in pytree.zip_with_path(part.exact, part.ours):
                if np.linalg.norm(ours - exact) > 1e-9 * np.linalg.norm(sizes[path]):
                    wrong.add(i)
        if 0 < len(wrong) < count:
            parts = [_with_outputs(examination, c, wrong) for c in examination.comparisons]
            return dataclasses.replace(examination, comparisons=parts, memory={})
    return examination


def _with_outputs(examination: Examination, whole: Comparison, kept: set[int]) -> Comparison:
    """Return a comparison with zeros in g for the other outputs of y."""
    numbers = itertools.count()
    g = pytree.map(lambda a: a if next(numbers) in kept else np.zeros_like(a), whole.g)
    exact = examination.oracle.results(whole.inputs, g, "float64")
    return Comparison(whole.inputs, g, exact, examination.subject.results(whole.inputs, g))


def _cause_of(examination: Examination, evidence: Evidence) -> Cause:
    """Return the cause of a leaf that is wrong in float64."""
    report, path = examination.report, evidence.path
    for finding in report.findings:
        if finding.cause in ("hidden state", "overwritten"):
            return finding.cause, f"see above: {finding.message}"
    if not all(np.isfinite(ours).all() for ours, _ in evidence.pairs):
        return "not finite", "it has NaN or infinity where the oracle has numbers"
    if path == "y":
        return "value", _value_explanation(evidence)
    y = report.leaves.get("y")
    if y is not None and not y.within("float64") and _own(examination, path):
        return "value", "it is the right gradient of this forward: only forward is wrong"
    for signature in (*OF_PROJECTIONS, *(OF_ENTRIES if evidence.is_whole else ())):
        # A layer may fail at the inputs that a signature tries: that is no evidence.
        with contextlib.suppress(Exception):
            cause = signature(evidence)
            if cause is not None:
                return cause
    return "unknown", "no signature and no replay of the reference matches"


def _value_explanation(evidence: Evidence) -> str:
    """Say how the value relates to the reference's."""
    text = "forward computes something else than the reference"
    for signature in (whole_leaf.sign_or_constant, whole_leaf.transposed, whole_leaf.misplaced):
        found = signature(evidence)
        if found is not None:
            return f"{text}: {found[1]}"
    return text


def _own(examination: Examination, path: str) -> bool:
    """Tell whether a gradient is that of the layer's own forward."""
    from ..numeric import NumericOracle

    oracle = NumericOracle(examination.subject)
    first = examination.comparisons[0]
    try:
        truth = oracle.results(first.inputs, first.g, "float64")
        mine = leaf_of(oracle.project(first.ours), path)
    except BrokenLayer:
        return False
    exact = leaf_of(truth, path)
    return bool(np.linalg.norm(mine - exact) <= 1e-6 * np.linalg.norm(exact))


def _worst(evidence: Evidence) -> str:
    """Name the worst entry, with what it is and should be."""
    errors = [
        np.where(np.isfinite(ours), np.abs(finite(ours) - finite(exact)), np.inf)
        for ours, exact in evidence.pairs
    ]
    draw = max(range(len(errors)), key=lambda i: errors[i].max(initial=0.0))
    ours, exact = evidence.pairs[draw]
    index = tuple(int(i) for i in np.unravel_index(int(errors[draw].argmax()), ours.shape))
    place = f"entry {list(index)}" if index else "its value"
    if not evidence.is_whole:
        place = f"random projection {list(index)}"
    leaf = evidence.examination.report.leaves[evidence.path]
    return (
        f"worst is {place} with {ours[index]:.6g} for {exact[index]:.6g}; "
        f"relative error {leaf.float64_error:.1e}, limit {leaf.float64_limit:.1e}"
    )


def _with_cause(examination: Examination, finding: Finding) -> Finding:
    """Explain a wrong shape by its numbers."""
    if finding.cause != "shape":
        return finding
    returned = zip(("params", "x"), examination.returned or (), strict=False)
    received = dict(pytree.leaves_with_path(dict(returned)))
    inputs, g = cast(examination.draws[0], "float64")
    try:
        exact = dict(pytree.leaves_with_path(examination.oracle.results(inputs, g, "float64")))
    except BrokenLayer:
        exact = {}
    if finding.leaf not in exact or finding.leaf not in received:
        return dataclasses.replace(finding, cause="structure")
    others = {path: leaf for path, leaf in exact.items() if path not in (finding.leaf, "y")}
    cause, explanation = explain_shape(received[finding.leaf], exact[finding.leaf], others)
    return dataclasses.replace(finding, cause=cause, explanation=explanation)
