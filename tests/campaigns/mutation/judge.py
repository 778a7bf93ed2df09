"""The verdict on one mutant: the stages of `functional_lm.testing.check`, at all cases of a layer.

What JAX says is computed once and kept, and the first fault ends the examination.
"""

import contextlib
import signal
import warnings
from collections.abc import Iterator
from functools import cache, partial
from types import SimpleNamespace
from typing import Any

import numpy as np

from functional_lm import pytree
from functional_lm.testing import registry
from functional_lm.testing.accuracy import compare_float32, compare_float64
from functional_lm.testing.check import DTYPES, drawing
from functional_lm.testing.conduct import check_contract, check_linearity, check_purity
from functional_lm.testing.inputs import cast
from functional_lm.testing.oracle import JaxOracle
from functional_lm.testing.report import Finding, Report
from functional_lm.testing.subject import BrokenLayer, Examination, Subject
from functional_lm.testing.variants import check_layouts

SECONDS = 10.0
"""Processor time that a mutant may take at one case, a hundred times what it needs."""

FROZEN = ("embedding", "positions", "blocks.0.")
"""The parameters that are not trained where the lower half is frozen."""

STAGES = [
    partial(check_contract, dtype="float64"),
    compare_float64,
    partial(check_contract, dtype="float32"),
    *(
        partial(check, dtype=dtype)
        for check in (check_linearity, check_layouts, check_purity)
        for dtype in DTYPES
    ),
    compare_float32,
]


class Judge:
    """Kills mutants of a layer. The case that killed last is tried first the next time."""

    def __init__(self, name: str) -> None:
        """Take the cases; every third of the transformer also with its lower half frozen."""
        cases = registry.cases(name)
        for case in cases[::3] if name == "transformer" else ():
            model = case.keywords["model"]
            model = model.freeze(case.params, lambda path: not path.startswith(FROZEN))
            keywords = case.keywords | {"model": model}
            cases.append(case._replace(label=f"{case.label}, frozen", keywords=keywords))
        self.trials = [Trial(name, case) for case in cases]

    def reason(self, layer: Any, seconds: float = SECONDS) -> str:
        """Return why a mutated layer dies, or "" if it survives; 0 seconds are no limit."""
        for trial in self.trials:
            if fault := trial.fault(layer, seconds):
                self.trials.remove(trial)
                self.trials.insert(0, trial)
                return f"{trial.label}: {fault}"
        return ""


class Trial:
    """One case of a layer."""

    def __init__(self, name: str, case: Any) -> None:
        """Draw the inputs."""
        self.label = case.label
        self._keywords = pytree.map(np.array, case.keywords)
        self._given = cast((case.params, case.x), np.float64)
        model = case.keywords.get("model")
        self._is_frozen = getattr(model, "frozen", None) is not None
        self._oracle = _Memory(registry.modules(name)[1], registry.twin(case.keywords))
        if self._is_frozen:
            self._oracle.frozen = FROZEN
        self._draw = cache(
            drawing(self._given, self._oracle.output(self._given, "float64"), None, 0)
        )

    def fault(self, layer: Any, seconds: float) -> str:
        """Return the first fault of a layer, or ""."""
        if self._is_frozen:
            layer = SimpleNamespace(**vars(layer) | {"vjp": partial(self._filled_vjp, layer.vjp)})
        subject, report = Subject(layer, self._keywords), Report(self.label)
        draws = [self._draw(i) for i in range(self._oracle.draws)]
        factor = registry.FACTOR
        examination = Examination(subject, self._oracle, draws, self._draw, DTYPES, factor, report)
        try:
            with _strictly(seconds):
                for stage in STAGES:
                    stage(examination)
                    wrong = [f"{path} is wrong" for path, x in report.leaves.items() if not x.ok]
                    found = [finding.message for finding in report.findings]
                    if faults := [*found, *subject.writes, *subject.float_faults, *wrong]:
                        return faults[0]
        except Exception as error:  # whatever a mutant does to the checker, it is dead
            return f"{error!r:.200}"
        return ""

    def _filled_vjp(self, vjp: Any, residuals: Any, g: Any) -> Any:
        """Put zeros where a gradient has nothing because its leaf is frozen, and only there."""
        d_params, d_x = vjp(residuals, g)
        like = pytree.leaves(g)[0].dtype.type
        filled = {}
        for path, leaf, d_leaf in pytree.zip_with_path(self._given[0], d_params):
            if (d_leaf is None) != path.startswith(FROZEN):
                raise ValueError(f"{path} must have a gradient exactly if it is trained")
            filled[path] = np.zeros(leaf.shape, like) if d_leaf is None else d_leaf
        return pytree.map_with_path(lambda path, _: filled[path], self._given[0]), d_x


class _Memory(JaxOracle):
    """An oracle that computes everything once, and zeros for the gradients of frozen leaves."""

    frozen: tuple[str, ...] = ()

    def __init__(self, reference: Any, keywords: dict[str, Any]) -> None:
        super().__init__(reference, keywords)
        self._known: dict[Any, Any] = {}

    def output(self, inputs: Any, dtype: str) -> Any:
        if dtype not in self._known:
            self._known[dtype] = super().output(inputs, dtype)
        return self._known[dtype]

    def results(self, inputs: Any, g: Any, dtype: str, given: str | None = None) -> Any:
        contents = (leaf.tobytes() for leaf in pytree.leaves((inputs, g)))
        key = (dtype, given, *contents)
        if key not in self._known:
            found = super().results(inputs, g, dtype, given)
            found["params"] = pytree.map_with_path(
                lambda path, leaf: leaf * 0 if path.startswith(self.frozen) else leaf,
                found["params"],
            )
            self._known[key] = found
        return self._known[key]


@contextlib.contextmanager
def _strictly(seconds: float) -> Iterator[None]:
    """Make warnings errors, and stop a mutant that loops for ever."""

    def stop(*_: Any) -> None:
        raise BrokenLayer(Finding("contract", f"takes more than {seconds:.0f} s"))

    previous = signal.signal(signal.SIGVTALRM, stop)
    signal.setitimer(signal.ITIMER_VIRTUAL, seconds)
    try:
        with warnings.catch_warnings(action="error"), np.errstate(all="ignore"):
            yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, previous)
