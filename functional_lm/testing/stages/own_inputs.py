"""Inputs that a check draws itself: friendly ones hide most real mistakes.

Scales of one, biases of zero, ids that never repeat, masks that hide nothing, a ``g`` with memory
of its own for every entry, a stride of one and a length that the block divides let a wrong
backward pass. First other values are drawn in the shapes given, then settings and sizes change
(`changes`). An attempt counts only where ``forward`` still agrees with the oracle: elsewhere the
inputs are not what the layer is made for, such as a negative variance.

JAX compiles a reference anew for every shape and setting, which takes longer than all the rest.
So these are screened without it: along a random direction, ``vjp`` must give what differences of
``forward`` give. Only where it does not, the oracle decides.
"""

import dataclasses
import itertools
import re
import traceback
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ... import prng, pytree
from ...contract import Array, Key, Tree
from ..explain import explain
from ..inputs import finite, jitter, normal_like, same_bits, stretched
from ..limits import norm
from ..numeric import NumericOracle
from ..oracle import JaxOracle
from ..report import Finding, Report
from ..subject import BrokenLayer, Examination, Subject
from .accuracy import compare_float64
from .changes import Problem, changed, defaults_of, tied_or_zero
from .conduct import check_contract
from .forward_mode import check_jvp

__all__ = [
    "KINDS",
    "Attempt",
    "agrees",
    "check_own_inputs",
    "compared",
    "is_right",
    "problems",
    "tried",
]

DRAWS = 2
"""Of each kind."""

DIFFERENCES = 100.0
"""Times the usual limit where the oracle takes differences: few draws say little of its noise."""

MODERATE = 1e30
"""Larger results of inputs that nobody chose say nothing about a layer."""

DOUBTS = 8
"""So many attempts the oracle may clear before the rest are given up."""

CLOSE = 1e-6
"""How near central differences come to the derivative, with room to spare."""


class Attempt(NamedTuple):
    """The same check at other inputs, with a report of its own."""

    problem: Problem
    examination: Examination
    is_new: bool  # whether JAX has yet to compile it
    usual: dict[tuple[str, int], tuple[int, int]]  # what has no gradient at the inputs given
    same_y: bool = False  # whether forward makes no use of the settings that change


HARMLESS = ("precision", "shared memory")
"""Causes of findings that leave the values right: the dtype of a result, and where it lies."""


def check_own_inputs(examination: Examination) -> None:
    """Compare the gradients at inputs of each kind; the first that shows a mistake is explained."""
    report = examination.report
    graver = any(finding.cause not in HARMLESS for finding in report.findings)
    if graver or not all(leaf.ok for leaf in report.leaves.values()):
        return
    doubts, free, failed = 0, {0}, []  # lengths that may change; attempts without a verdict
    for attempt in itertools.chain(
        _redrawn(examination), tried(examination, problems(examination))
    ):
        if _ignored(examination, attempt):
            message = "forward gives the same y, but the reference another"
            found = [Finding("inputs", message, "y", "float64", "value", "forward ignores it")]
        elif attempt.is_new and is_right(attempt):
            free.add(attempt.problem.length)
            continue
        else:
            failed.append(attempt)
            found = compared(attempt) if attempt.problem.length < 2 else []
            doubts += attempt.is_new and attempt.problem.length < 2
        if _added(report, attempt, found):
            return
        if doubts == DOUBTS:
            break
    # Many a forward slices or broadcasts what it was not made for, and many a right backward is
    # made for one size. Where it is right at some other size of an axis, it is made for any.
    for attempt in [attempt for attempt in failed if attempt.problem.length in free - {0, 1}]:
        found = compared(attempt)
        if not found and _broadcasts_no_more(examination, attempt):
            everything = attempt.problem._replace(counts="everything")
            found = compared(attempt._replace(problem=everything))
        if _added(report, attempt, found):
            return
    # At zeros and ties right layers differ, but not where forward is smooth there.
    for attempt in tried(examination, tied_or_zero(examination.draws[0][0])):
        wrong = not is_right(attempt) and _is_smooth(attempt)
        if wrong and _added(report, attempt, compared(attempt)):
            return


def _added(report: Report, attempt: Attempt, found: list[Finding]) -> bool:
    """Add to a report what an attempt has shown; tell whether something is wrong."""
    where = f"(with {attempt.problem.what}; not at the inputs given)"
    theirs = attempt.examination.report
    report.notes += [f"{note} {where}" for note in theirs.notes]
    report.findings += [
        dataclasses.replace(f, check="inputs", message=f"{f.message} {where}") for f in found
    ]
    report.leaves |= {path: x for path, x in theirs.leaves.items() if found and not x.ok}
    return bool(found)


def _broadcasts_no_more(examination: Examination, attempt: Attempt) -> bool:
    """Tell whether the reference meets no more axes of one than at the inputs given."""
    before, after = examination.oracle, attempt.examination.oracle
    if not (isinstance(before, JaxOracle) and isinstance(after, JaxOracle)):
        return False
    ones = [
        sum(shape.split(",").count("1") for shape in re.findall(r":\w+\[([\d,]*)\]", text))
        for text in (
            before.traced(examination.draws[0][0]),
            after.traced(attempt.problem.inputs),
        )
    ]
    return ones[1] <= ones[0]


def _redrawn(examination: Examination) -> Iterator[Attempt]:
    """Yield attempts with other values in the shapes given."""
    keywords = examination.subject.keywords(np.float64)
    (inputs, g), *_ = examination.draws
    for number, (what, redraw) in enumerate(KINDS.items()):
        drawn: list[Any] = [redraw((number, i), inputs, g, keywords) for i in range(DRAWS)]
        if all(one is not None for one in drawn):
            arrays = {name: v for name, v in drawn[0][2].items() if pytree.leaves(v)}
            changes = {} if drawn[0][2] is keywords else arrays
            problem = Problem(what, drawn[0][0], changes, "everything")
            yield _attempt(examination, problem, [one[:2] for one in drawn], bool(changes))


def problems(examination: Examination) -> Iterator[Problem]:
    """Yield problems with other settings and sizes; defaults count as settings given."""
    subject, oracle = examination.subject, examination.oracle
    (inputs, g), *_ = examination.draws
    forward = subject.layer.forward
    taken = oracle.settings if isinstance(oracle, JaxOracle) else None
    defaults = defaults_of(subject.layer)
    settings = {name: v for name, v in defaults.items() if taken is None or name in taken}
    visit = oracle.visit if isinstance(oracle, JaxOracle) else forward
    return changed(forward, inputs, settings | subject.keywords(np.float64), g, visit)


def tried(examination: Examination, problems: Iterable[Problem]) -> Iterator[Attempt]:
    """Yield attempts at those problems of which forward computes something finite."""
    subject, given = examination.subject, examination.draws[0][0]
    for problem in problems:
        if problem.counts == "infinities" and isinstance(examination.oracle, NumericOracle):
            continue  # differences do not know them
        if subject.fixed_sizes & _lost(given, problem.inputs):
            continue
        keywords = {**subject.keywords(np.float64), **problem.keywords}
        other = Subject(subject.layer, keywords, strict=subject.strict)
        try:
            y, _ = other.forward(problem.inputs)
            leaves = pytree.leaves(y)
        except BrokenLayer:
            continue
        if not other.float_faults and all(a.size and np.isfinite(a).all() for a in leaves):
            if problem.new_axis and not _is_batch(other, problem, y):
                continue
            near = [problem.inputs, jitter((1,), problem.inputs)]
            draws = [(moved, normal_like((i,), y)) for i, moved in enumerate(near)]
            same_y = _same_without(subject, problem, y)
            yield _attempt(examination, problem, draws, is_new=True)._replace(same_y=same_y)


def _same_without(subject: Subject, problem: Problem, y: Any) -> bool:
    """Tell whether y is the same without the plain settings that a problem changes."""
    arrays = {name: value for name, value in problem.keywords.items() if pytree.leaves(value)}
    if len(arrays) == len(problem.keywords):
        return False
    keywords = {**subject.keywords(np.float64), **arrays}
    try:
        other, _ = Subject(subject.layer, keywords, strict=subject.strict).forward(problem.inputs)
    except BrokenLayer:
        return False
    return same_bits(y, other)


def _is_batch(subject: Subject, problem: Problem, y: Any) -> bool:
    """Tell whether forward treats each entry of a new axis in front as it does one alone."""
    params, x = problem.inputs
    count = len(pytree.leaves(x)[0])
    try:
        each = [pytree.map(lambda a, i=i: a[i], x) for i in range(count)]
        alone = pytree.map(lambda *a: np.stack(a), *(subject.forward((params, x))[0] for x in each))
        pairs = pytree.zip_with_path(y, alone)
    except Exception:  # another structure for one alone, or an error
        return False
    return all(a.shape == b.shape and np.allclose(a, b) for _, a, b in pairs)


def _lost(before: Any, after: Any) -> set[int]:
    """Return the lengths of axes that change."""
    pairs = zip(pytree.leaves(before), pytree.leaves(after), strict=False)
    shapes = ((a.shape, b.shape) for a, b in pairs if a.ndim == b.ndim)
    return {n for old, new in shapes for n, m in zip(old, new, strict=True) if n != m}


def _attempt(
    examination: Examination, problem: Problem, draws: list[tuple[Any, Any]], is_new: bool
) -> Attempt:
    subject, oracle = examination.subject, examination.oracle
    keywords = {**subject.keywords(np.float64), **problem.keywords}
    other = dataclasses.replace(
        examination,
        subject=Subject(subject.layer, keywords, strict=subject.strict),
        oracle=oracle.with_keywords({**problem.keywords}) if is_new else oracle,
        draws=draws,
        draw=lambda i: draws[i % len(draws)],
        report=Report(examination.report.name),
        comparisons=[],
        returned=None,
        memory={},
    )
    return Attempt(problem, other, is_new, _without_gradient(examination.comparisons[0].exact))


def is_right(attempt: Attempt) -> bool:
    """Tell whether vjp gives, along one direction, what central differences of forward give."""
    subject = attempt.examination.subject
    keywords = subject.keywords(np.float64)  # for a subject whose faults do not count
    subject = Subject(subject.layer, keywords, strict=subject.strict)
    (inputs, g), *_ = attempt.examination.draws
    try:
        _, residuals = subject.forward(inputs)
        pairs = pytree.zip_with_path(inputs, subject.vjp(residuals, g))
        floating = [(leaf, d_leaf) for _, leaf, d_leaf in pairs if leaf.dtype.kind == "f"]
        if any(leaf.shape != d_leaf.shape for leaf, d_leaf in floating):
            return False
        if attempt.problem.counts == "infinities":
            return all(np.isfinite(d_leaf).all() for _, d_leaf in floating)
        sizes = [min(norm(leaf) / max(leaf.size, 1) ** 0.5, 1.0) or 1.0 for leaf, _ in floating]
        v = [s * z for s, z in zip(sizes, normal_like((0,), [a for a, _ in floating]), strict=True)]
        there, back = (_values(subject, inputs, v, h) for h in (1e-5, -1e-5))
        triples = zip(pytree.leaves(g), there, back, strict=True)
        changes = [np.sum(a * (b - c) / 2e-5) for a, b, c in triples]
    except Exception:  # whatever a layer raises, the oracle decides
        return False
    products = [np.zeros(1), *(np.ravel(d * w) for (_, d), w in zip(floating, v, strict=True))]
    slack = CLOSE * (norm(np.concatenate(products)) + sum(map(abs, changes)))
    return bool(abs(sum(p.sum() for p in products) - sum(changes)) <= slack)


def _is_smooth(attempt: Attempt) -> bool:
    """Tell whether forward has one slope on both sides, and the oracle the same."""
    subject, oracle = attempt.examination.subject, attempt.examination.oracle
    (inputs, g), *_ = attempt.examination.draws
    floating = [leaf for leaf in pytree.leaves(inputs) if leaf.dtype.kind == "f"]
    v, step, total = normal_like((0,), floating), 1e-6, 0.0
    try:
        exact = oracle.results(inputs, g, "float64")
        here, there, back = (_values(subject, inputs, v, h) for h in (0.0, step, -step))
    except Exception:  # whatever a layer or a reference raises there
        return False
    for cotangent, a, b, c in zip(pytree.leaves(g), here, there, back, strict=True):
        up, down = (b - a) / step, (a - c) / step
        if not np.abs(up - down).max(initial=0.0) <= 1e-3 * np.abs(up).max(initial=0.0):
            return False
        total += float(np.sum(cotangent * (up + down) / 2))
    slopes = [leaf for leaf in pytree.leaves([exact["params"], exact["x"]]) if leaf is not None]
    products = [np.ravel(d * w) for d, w in zip(slopes, v, strict=True)]
    slack = 1e-3 * norm(np.concatenate(products))
    return bool(abs(sum(p.sum() for p in products) - total) <= slack)


def _values(subject: Subject, inputs: Any, v: list[Array], h: float) -> list[Array]:
    """Return the leaves of y at inputs moved by h·v."""
    steps = iter(v)
    moved = pytree.map(
        lambda a: np.asarray(a + h * next(steps)) if a.dtype.kind == "f" else a, inputs
    )
    return pytree.leaves(subject.forward(moved)[0])


def _ignored(examination: Examination, attempt: Attempt) -> bool:
    """Tell whether the reference uses a changed setting that forward does not look at."""
    problem, other, *_ = attempt
    (inputs, g), *_ = examination.draws
    before, after = examination.oracle, other.oracle
    if problem.inputs is not inputs or pytree.leaves(problem.keywords):
        return False
    if not (isinstance(before, JaxOracle) and isinstance(after, JaxOracle)):
        return False
    try:
        y, mine = (e.subject.forward(inputs)[0] for e in (examination, other))
        if not same_bits(y, mine) or before.traced(inputs) == after.traced(inputs):
            return False
        theirs = [o.results(inputs, g, "float64")["y"] for o in (before, after)]
        pairs = pytree.zip_with_path(*theirs)
    except Exception:  # whatever a reference raises at a setting that it does not have
        return False
    return any(norm(a - b) > CLOSE * norm(a) and np.isfinite(b).all() for _, a, b in pairs)


def compared(attempt: Attempt, *, explained: bool = True) -> list[Finding]:
    """Return what is wrong; nothing where forward and the oracle differ in value.

    A backward that refuses the inputs, by an error of its own, is a note unless the check is
    strict. One that breaks down is wrong: forward has taken them.
    """
    problem, other, is_new, *_ = attempt
    report, subject = other.report, other.subject
    only_values = problem.counts == "values" or (is_new and isinstance(other.oracle, NumericOracle))
    if not all(agrees(other, *draw) for draw in other.draws):
        return []
    if problem.resized and _is_cut_off(attempt):
        return []
    try:
        if is_new:
            check_contract(other, "float64")
        if problem.counts == "infinities":
            return [finding for finding in report.findings if finding.cause == "not finite"]
        compare_float64(other)
        if not is_new:
            check_jvp(other, "float64")
    except BrokenLayer as error:
        if only_values:
            return []
        # A setting that forward makes no use of, only the backward can refuse.
        refused = attempt.same_y or _is_refusal(error.__cause__)
        if refused and not subject.strict:
            report.notes.append(str(error))
            return []
        if error.finding not in report.findings:
            report.findings.append(error.finding)
    for leaf in report.leaves.values():
        if leaf.float64_limit is not None:
            slack = 1 if other.oracle.has_float32 else DIFFERENCES
            # Nobody chose these inputs, so their conditioning is no fault of the layer.
            leaf.float64_limit = max(slack * leaf.float64_limit, 1e-11)
    if explained:
        explain(other)
    return report.findings


def _is_cut_off(attempt: Attempt) -> bool:
    """Tell whether more entries of an axis have no gradient at all than at the inputs given.

    Such as queries before all keys, which a causal mask hides from everything: y has that axis
    too. Or what a loop over another axis does not reach in one that was lengthened alone.
    """
    problem, other, _, usual, _ = attempt
    inputs, g = other.draws[0]
    sizes = {size for leaf in pytree.leaves(g) for size in leaf.shape}
    alone = problem.counts == "everything" and not problem.length
    found = _without_gradient(other.oracle.results(inputs, g, "float64"))
    return any(
        count > usual.get(place, (size, 0))[1] and (alone or size in sizes)
        for place, (size, count) in found.items()
    )


def _without_gradient(exact: Tree) -> dict[tuple[str, int], tuple[int, int]]:
    """Return by leaf and axis its size, and how many of its entries have no gradient."""
    return {
        (path, axis): (
            size,
            int((~np.moveaxis(leaf, axis, 0).reshape(size, -1).any(axis=1)).sum()),
        )
        for path, leaf in pytree.leaves_with_path({name: exact[name] for name in ("params", "x")})
        for axis, size in enumerate(leaf.shape)
        if leaf.size
    }


def _is_refusal(error: BaseException | None) -> bool:
    """Tell whether a backward raised an error of its own, rather than broke down."""
    if not isinstance(error, _BREAKDOWNS):
        return error is not None
    last = traceback.extract_tb(error.__traceback__)[-1]
    own = "site-packages" not in Path(last.filename).parts
    return own and (last.line or "").startswith(("raise", "assert"))


_BREAKDOWNS = (ArithmeticError, AttributeError, LookupError, NameError, TypeError, ValueError)


def agrees(examination: Examination, inputs: Any, g: Any) -> bool:
    """Tell whether ``forward`` takes the inputs and computes what the oracle does."""
    try:
        exact = examination.oracle.results(inputs, g, "float64")
        y, _ = examination.subject.forward(inputs)
        pairs = pytree.zip_with_path(exact.get("y", y), y)
    except Exception:  # whatever is raised where inputs make no sense
        return False
    gradients = pytree.leaves({name: exact[name] for name in ("params", "x")})
    largest = max((float(np.abs(leaf).max(initial=0.0)) for leaf in gradients), default=0.0)
    if largest < 1e-6 * max(float(np.abs(leaf).max(initial=0.0)) for leaf in pytree.leaves(g)):
        return False  # nothing but rounding to compare, as softmax has for equal entries of g
    everything = pytree.leaves((exact, y))
    if examination.subject.float_faults or not all(_is_moderate(leaf) for leaf in everything):
        return False
    return all(norm(mine - theirs) <= 1e-10 * norm(finite(theirs)) for _, theirs, mine in pairs)


def _is_moderate(leaf: Array) -> bool:
    """Tell whether no entry is infinite, nor as good as: a recurrence may grow without bound."""
    return bool((np.abs(leaf) < MODERATE).all())


Redraw = Callable[[Key, tuple[Tree, Any], Any, dict[str, Any]], tuple[Any, Any, Any] | None]
"""``(key, (params, x), g, keywords) -> (inputs, g, keywords)``; None where nothing would change."""


def _drawn(key: Key, tree: Tree, one: Callable[[Key, Array], Array]) -> Tree:
    numbers: Iterator[int] = iter(range(len(pytree.leaves(tree))))
    return pytree.map(lambda leaf: one((*key, next(numbers)), leaf), tree)


def _anew(key: Key, leaf: Array) -> Array:
    """Return normal numbers of about the same size, around a mean that is not zero."""
    if leaf.dtype.kind != "f":
        return leaf
    if not leaf.ndim:
        return leaf * np.exp(0.3 * prng.normal(key, (), dtype=np.float64))
    size = float(np.sqrt(np.mean(np.square(leaf)))) if leaf.size else 1.0
    return (0.3 + prng.normal(key, leaf.shape, dtype=np.float64)) * (size or 1.0)


def _repeated(key: Key, leaf: Array) -> Array:
    """Return integers of those present that repeat, and booleans that are mixed.

    Rows in which none repeats, as of the k largest, stay so.
    """
    if leaf.dtype.kind == "b":
        return prng.uniform(key, leaf.shape) < 0.7
    if leaf.dtype.kind not in "iu" or not leaf.size:
        return leaf
    values = np.unique(leaf)
    ordered = np.sort(leaf, axis=-1) if leaf.ndim > 1 else leaf
    distinct = leaf.ndim > 1 and leaf.shape[-1] > 1 and (np.diff(ordered, axis=-1) != 0).all()
    if distinct and leaf.size // leaf.shape[-1] * values.size < 10**6:
        chances = prng.uniform(key, (*leaf.shape[:-1], values.size))
        return values[np.argsort(chances, axis=-1)[..., : leaf.shape[-1]]]
    return values[prng.integers(key, leaf.shape, low=0, high=values.size)]


def _with_new(one: Callable[[Key, Array], Array], *, x: bool = True) -> Redraw:
    def redraw(key: Key, inputs: Any, g: Any, keywords: dict[str, Any]) -> Any:
        params, given = inputs
        moved = _drawn((*key, 0), params, one), _drawn((*key, 1), given, one) if x else given
        return moved, normal_like((*key, 2), g), keywords

    return redraw


def _with_labels(key: Key, inputs: Any, g: Any, keywords: dict[str, Any]) -> Any:
    moved = _drawn((*key, 0), inputs, _repeated), _drawn((*key, 1), keywords, _repeated)
    same = all(
        np.array_equal(a, b)
        for a, b in zip(pytree.leaves((inputs, keywords)), pytree.leaves(moved), strict=True)
    )
    return None if same else (moved[0], normal_like((*key, 2), g), moved[1])


def _with_new_keywords(key: Key, inputs: Any, g: Any, keywords: dict[str, Any]) -> Any:
    if not any(leaf.dtype.kind == "f" and leaf.ndim for leaf in pytree.leaves(keywords)):
        return None
    return inputs, normal_like((*key, 2), g), _drawn((*key, 1), keywords, _anew)


def _with_broadcast_g(key: Key, inputs: Any, g: Any, keywords: dict[str, Any]) -> Any:
    def one(leaf: Array) -> Array:
        return np.broadcast_to(np.asarray(leaf.reshape(-1)[0]), leaf.shape) if leaf.size else leaf

    return inputs, pytree.map(one, normal_like(key, g)), keywords


KINDS: dict[str, Redraw] = {
    "params and x drawn anew": _with_new(_anew),
    "params drawn anew": _with_new(_anew, x=False),
    "params and x stretched, and zeros drawn anew": _with_new(stretched),
    "ids that repeat and masks that hide": _with_labels,
    "floating keywords drawn anew": _with_new_keywords,
    "one number broadcast as g": _with_broadcast_g,
}
"""By what they are, in order of trial."""
