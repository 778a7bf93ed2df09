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
from functional_lm.compose import keywords_of_forward
from functional_lm.testing import registry
from functional_lm.testing.check import DTYPES, drawing
from functional_lm.testing.inputs import cast
from functional_lm.testing.oracle import JaxOracle
from functional_lm.testing.report import Finding, Report
from functional_lm.testing.stages.accuracy import compare_float32, compare_float64
from functional_lm.testing.stages.conduct import check_contract, check_linearity, check_purity
from functional_lm.testing.stages.variants import check_layouts
from functional_lm.testing.subject import BrokenLayer, Examination, Subject

SECONDS = 10.0
"""Processor time that a mutant may take at one case, a hundred times what it needs."""

LOWER = ("embedding", "positions", "blocks.0.")
"""The paths of the lower half of a transformer."""

ALL = ("",)
"""All paths."""

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
        """Take the cases, some of them with frozen parameters too.

        Frozen are the lower half of the transformer, at every third case, and all parameters of a
        layer with an ``input_vjp``.
        """
        layer, cases = registry.modules(name)[0], registry.cases(name)
        self.trials = [Trial(name, case) for case in cases]
        for case in cases[::3] if name == "transformer" else ():
            model = case.keywords["model"]
            model = model.freeze(case.params, lambda path: not path.startswith(LOWER))
            self.trials.append(Trial(name, case, LOWER, {"model": model}))
        for case in cases if hasattr(layer, "input_vjp") else ():
            told = {"frozen": True} if "frozen" in keywords_of_forward(layer) else {}
            self.trials.append(Trial(name, case, ALL, told))

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

    def __init__(
        self, name: str, case: Any, frozen: tuple[str, ...] = (), changes: Any = None
    ) -> None:
        """Draw the inputs; ``frozen`` are beginnings of paths, ``changes`` other keywords."""
        self.label = f"{case.label}, frozen" if frozen else case.label
        keywords = case.keywords | (changes or {})
        self._keywords = pytree.map(np.array, keywords)
        self._given = cast((case.params, case.x), np.float64)
        self._frozen = frozen
        self._oracle = _Memory(registry.modules(name)[1], registry.twin(keywords), frozen)
        y = self._oracle.output(self._given, "float64")
        self._draw = cache(drawing(self._given, y, None, 0))

    def fault(self, layer: Any, seconds: float) -> str:
        """Return the first fault of a layer, or ""."""
        if self._frozen:
            layer = SimpleNamespace(**vars(layer) | {"vjp": partial(self._frozen_vjp, layer)})
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

    def _frozen_vjp(self, layer: Any, residuals: Any, g: Any) -> Any:
        """Run the vjp; put zeros for the gradients of frozen leaves, which must be None."""
        params, like = self._given[0], pytree.leaves(g)[0].dtype.type
        if self._frozen == ALL:
            d_params, d_x = pytree.map(lambda _: None, params), layer.input_vjp(residuals, g)
        else:
            d_params, d_x = layer.vjp(residuals, g)
        filled = {}
        for path, leaf, d_leaf in pytree.zip_with_path(params, d_params):
            if (d_leaf is None) != path.startswith(self._frozen):
                raise ValueError(f"{path} must have a gradient exactly if it is trained")
            filled[path] = np.zeros(leaf.shape, like) if d_leaf is None else d_leaf
        return pytree.map_with_path(lambda path, _: filled[path], params), d_x


class _Memory(JaxOracle):
    """An oracle that computes everything once, and zeros for the gradients of frozen leaves."""

    def __init__(self, reference: Any, keywords: Any, frozen: tuple[str, ...]) -> None:
        super().__init__(reference, keywords)
        self._frozen = frozen
        self._known: dict[Any, Any] = {}

    def output(self, inputs: Any, dtype: str, **more: Any) -> Any:
        if dtype not in self._known:
            self._known[dtype] = super().output(inputs, dtype, **more)
        return self._known[dtype]

    def results(self, inputs: Any, g: Any, dtype: str, **more: Any) -> Any:
        contents = (leaf.tobytes() for leaf in pytree.leaves((inputs, g)))
        key = (dtype, more.get("given"), *contents)
        if key not in self._known:
            found = super().results(inputs, g, dtype, **more)
            found["params"] = pytree.map_with_path(
                lambda path, leaf: leaf * 0 if path.startswith(self._frozen) else leaf,
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
