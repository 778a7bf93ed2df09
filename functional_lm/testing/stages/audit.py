"""What the inputs of a check would not notice.

Each step of the reference is differentiated wrongly in turn, as in `explain.replay`: a path is left
out, a slope is set to one, a mask is dropped. Where the gradients stay the same, a backward with
that mistake passes at these inputs. If other values of one array make the mistake show, that
array is what hides it. Steps that show at no values are left out: such as the maximum in a
softmax, they may have no gradient at all.

Other sizes and settings are tried as well, and more of them than `own_inputs` dares to judge:
where the backward has no answer, or another one than the reference, no finding says so.
"""

from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np

from ... import pytree
from ...contract import Array
from ..explain.replay import Replays, Site
from ..inputs import finite
from ..limits import float64_limit, norm
from ..oracle import JaxOracle
from ..subject import Examination
from .changes import disputed
from .own_inputs import KINDS, agrees, compared, is_right, problems, tried

__all__ = ["audit"]


def audit(examination: Examination) -> list[str]:
    """Return in plain words what the inputs given do not test."""
    found = [*_hidden_steps(examination)]
    return found if examination.report.findings else [*found, *_untested(examination)]


_WITHOUT = {
    "path": "a path left out",
    "unmasked": "the mask left out",
    "factor": "a factor or slope left out",
    "elsewhere": "the slope at another value",
    "input": "the slope at another value",
    "not transposed": "W for Wᵀ",
    "reshaped": "axes reshaped instead of exchanged",
    "part": "a part of the sum left out",
}


def _hidden_steps(examination: Examination) -> Iterator[str]:
    oracle = examination.oracle
    (inputs, g), *_ = examination.draws
    keywords = examination.subject.keywords(np.float64)
    if not isinstance(oracle, JaxOracle):
        yield "the steps of the reference were not tried: only one in JAX can be taken apart"
        return
    try:
        replays = Replays(oracle, inputs, g)
        sites = [site for site in replays.sites if site.kind in _WITHOUT]
        hidden = _invisible(replays, sites, inputs, g)
    except Exception as error:  # whatever JAX raises for a reference that it can only run
        yield f"the reference cannot be taken apart: {type(error).__name__}: {error}"
        return
    lines: dict[tuple[str, str], dict[str, None]] = {}
    for number, redraw in enumerate(_REDRAWS):
        drawn = redraw((number, 0), inputs, g, keywords)
        if drawn is None:
            continue
        for reason, others, moved, moved_g in _one_by_one(oracle, inputs, g, keywords, drawn):
            try:
                again = replays if others is oracle else Replays(others, moved, moved_g)
                still = {*_invisible(again, hidden, moved, moved_g)}
            except Exception:  # values that the reference is not made for
                continue
            for site in hidden:
                if site not in still:
                    place = f"`{site.operation}`" + (f" in `{site.line}`" if site.line else "")
                    lines.setdefault((reason, place), {})[_WITHOUT[site.kind]] = None
            hidden = [site for site in hidden if site in still]
    for (reason, place), mistakes in lines.items():
        yield f"{reason}: {place} with {', '.join(mistakes)}"


_REDRAWS = tuple(redraw for what, redraw in KINDS.items() if "g" not in what.split())


def _one_by_one(
    oracle: JaxOracle, inputs: Any, g: Any, keywords: dict[str, Any], drawn: Any
) -> Iterator[tuple[str, JaxOracle, Any, Any]]:
    """Yield (what hides mistakes, oracle, inputs, g) with one array redrawn, and then with all."""
    (params, x), moved_g, moved_keywords = drawn
    before = {"params": inputs[0], "x": inputs[1]}
    pairs = pytree.zip_with_path(before, {"params": params, "x": x})
    for path, leaf, other in pairs:
        if not np.array_equal(leaf, other):
            tree = pytree.map_with_path(partial(_exchanged, path, other), before)
            yield f"{path} {_character(leaf)}", oracle, (tree["params"], tree["x"]), g
    for path, leaf in pytree.leaves_with_path(g):
        name = f"g.{path}" if path else "g"
        yield f"{name} {_character(leaf)}", oracle, inputs, moved_g
    for name, value in moved_keywords.items():
        same = all(map(np.array_equal, pytree.leaves(value), pytree.leaves(keywords[name])))
        if not same:
            (leaf, *_) = pytree.leaves(keywords[name])
            yield f"{name} {_character(leaf)}", oracle.with_keywords({name: value}), inputs, g
    yield "the values given together", oracle, (params, x), moved_g


def _exchanged(path: str, other: Array, here: str, leaf: Array) -> Array:
    return other if here == path else leaf


def _character(leaf: Array) -> str:
    """Return what is special about the values of an array."""
    values = np.unique(leaf)
    if values.size == 1:
        return (
            f"is {values[0]} everywhere"
            if leaf.dtype.kind == "b"
            else f"is {values[0]:g} everywhere"
        )
    if leaf.dtype.kind in "iu" and values.size == leaf.size:
        return "does not repeat an entry"
    return "has values that hide it"


def _invisible(replays: Replays, sites: list[Site], inputs: Any, g: Any) -> list[Site]:
    """Return the sites whose mistakes change no gradient."""
    (plain,) = replays.gradients([replays.normal], inputs, g)
    if not all(np.isfinite(leaf).all() for leaf in plain):
        return sites
    largest = max((float(np.abs(leaf).max(initial=0.0)) for leaf in plain), default=0.0)
    limits = [float64_limit(leaf, largest) for leaf in plain]
    rows = replays.gradients([replays.weights({site: 0.0}) for site in sites], inputs, g)
    return [
        site
        for site, leaves in zip(sites, rows, strict=True)
        if all(
            norm(finite(a) - b) <= limit for a, b, limit in zip(leaves, plain, limits, strict=True)
        )
    ]


def _untested(examination: Examination) -> Iterator[str]:
    """Yield what happens at other sizes and settings that no finding tells."""
    inputs, _ = examination.draws[0]
    others = disputed(inputs, examination.subject.keywords(np.float64))
    for attempt in tried(examination, [*problems(examination), *others]):
        problem, other, *_ = attempt = attempt._replace(
            problem=attempt.problem._replace(counts="everything")
        )
        plain = problem.inputs is inputs and not pytree.leaves(problem.keywords)
        if plain and not agrees(other, *other.draws[0]) and _runs(other):
            yield f"with {problem.what}: forward and the reference give different y"
        elif not is_right(attempt):
            wrong = [finding.message for finding in compared(attempt, explained=False)]
            wrong += [f"{path} is wrong" for path, x in other.report.leaves.items() if not x.ok]
            for message in [*wrong, *other.report.notes][:1]:
                yield f"with {problem.what}: {message}"


def _runs(examination: Examination) -> bool:
    """Tell whether the reference computes something finite of the shape of y."""
    inputs, g = examination.draws[0]
    try:
        y = examination.oracle.results(inputs, g, "float64")["y"]
        pairs = pytree.zip_with_path(g, y)
    except Exception:  # whatever a reference raises at a setting that it does not have
        return False
    return all(a.shape == b.shape and np.isfinite(b).all() for _, a, b in pairs)
