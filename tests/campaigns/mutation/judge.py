"""The verdict on one mutant: run at the golden cases until something is wrong."""

import contextlib
import math
import signal
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from golden import Draw, Golden, normal_like, read_only, redraw, rows

from functional_lm import pytree
from functional_lm.testing import limits
from functional_lm.testing.inputs import cast

RANDOM_INPUTS = 10_000
SECONDS = 10.0
"""What a mutant may take at one case, a thousand times what it needs."""


class Wrong(Exception):
    """What a mutant did wrong; the message is the reason of its death."""


class Judge:
    """Kills mutants with the golden values of some cases.

    What kills: an exception, a floating-point fault, a warning or a loop without end; another
    structure, shape or dtype, of residuals too; a float64 value outside of the limit; a write to
    an argument (all are read-only); a vjp that is not linear in g; another result for inputs that
    lie otherwise in memory; float32 errors larger than those of XLA, over all draws.

    The probe that killed last is tried first the next time, so that most mutants die at once.
    """

    def __init__(self, goldens: list[Golden]) -> None:
        """Take the golden values."""
        self._goldens = goldens
        checks: list[Callable[[Any, Golden], None]] = [
            _check_float64,
            _check_conduct,
            _check_layouts,
            _check_float32,
        ]
        self._probes = [(check, golden) for check in checks for golden in goldens]

    def reason(self, layer: Any) -> str | None:
        """Return why a mutated layer dies, or None if it survives."""
        with warnings.catch_warnings(action="error"), _faults_raise():
            for probe in self._probes:
                check, golden = probe
                try:
                    with _time_limit():
                        check(layer, golden)
                except Exception as error:  # whatever a mutant raises, it is dead
                    self._probes.remove(probe)
                    self._probes.insert(0, probe)
                    said = str(error) if isinstance(error, Wrong) else f"{error!r:.200}"
                    return f"{golden.label}: {said}"
        return None

    def disagreement(self, layer: Any, original: Any) -> str | None:
        """Return where a mutant differs from the original at random inputs, or None.

        The inputs are those of the cases with every floating entry redrawn, in float64 and
        float32 in turn; "equal" is bit for bit, or within a few units of rounding.
        """
        rng = np.random.default_rng(0)
        with warnings.catch_warnings(action="error"), _faults_raise():
            for i in range(RANDOM_INPUTS):
                golden = self._goldens[i % len(self._goldens)]
                dtype = (np.float64, np.float32)[i // len(self._goldens) % 2]
                inputs = cast(redraw(rng, golden.float64.inputs, 1.0), dtype)
                g = cast(normal_like(rng, golden.float64.g), dtype)
                expected = _run(original, golden, inputs, g)
                largest = max(np.abs(x).max(initial=0.0) for x in pytree.leaves(expected))
                try:
                    result = _run(layer, golden, inputs, g)
                    for path, a, b in rows(expected, result):
                        _expect_like(path, a, b, a.dtype)
                        limit = 8 * np.finfo(dtype).eps * math.sqrt(a.size) * float(largest)
                        if not (a.tobytes() == b.tobytes() or limits.norm(b - a) <= limit):
                            raise Wrong(f"{path} differs")
                except Exception as error:
                    return f"random input {i}, {golden.label}: {error!r:.200}"
        return None


def _faults_raise() -> Any:
    return np.errstate(over="raise", divide="raise", invalid="raise")


@contextlib.contextmanager
def _time_limit() -> Iterator[None]:
    """Raise inside of the block when it takes too long; a mutant may loop for ever."""

    def stop(*_: Any) -> None:
        raise Wrong(f"takes more than {SECONDS:.0f} s")

    previous = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)


def _run(layer: Any, golden: Golden, inputs: Any, g: Any, keywords: Any = None) -> Any:
    """Return ``{"y", "params", "x"}`` with read-only arguments; residuals keep the dtype."""
    y, residuals = layer.forward(*read_only(inputs), **(keywords or golden.keywords))
    dtype = pytree.leaves(g)[0].dtype
    for path, leaf in pytree.leaves_with_path(residuals):
        if leaf.dtype.kind in "fc" and leaf.real.dtype != dtype:
            raise Wrong(f"residuals.{path} is {leaf.dtype}")
    d_params, d_x = layer.vjp(read_only(residuals), read_only(g))
    return {"y": y, "params": d_params, "x": d_x}


def _expect_like(path: str, true: Any, received: Any, dtype: Any) -> None:
    if not pytree.is_leaf(received):
        raise Wrong(f"{path} is no array")
    if received.shape != true.shape:
        raise Wrong(f"{path} has shape {received.shape}")
    if received.dtype != dtype:
        raise Wrong(f"{path} is {received.dtype}")


def _errors(draw: Draw, result: Any) -> dict[str, float]:
    """Return ‖result − truth‖ by leaf, after comparing structure, shapes and dtypes."""
    found = {}
    for path, true, received in rows(draw.truth, result):
        _expect_like(path, true, received, pytree.leaves(draw.g)[0].dtype)
        found[path] = limits.norm(limits.flush(received) - limits.flush(true))
    return found


def _within(errors: dict[str, float], allowed: dict[str, float], what: str) -> None:
    for path, error in errors.items():
        if not error <= allowed[path]:  # NaN is not
            raise Wrong(f"{path} {what}: error {error:.1e}, limit {allowed[path]:.1e}")


def _check_float64(layer: Any, golden: Golden) -> None:
    """Compare with the golden values, and the dtypes in float32."""
    draw = golden.float64
    result = _run(layer, golden, draw.inputs, draw.g)
    _within(_errors(draw, result), golden.limits64, "is wrong in float64")
    draw = golden.float32[0]
    _errors(draw, _run(layer, golden, draw.inputs, draw.g))


def _check_conduct(layer: Any, golden: Golden) -> None:
    """Require 0 for zero g, twice the result for 2·g to the bit, and the same bits twice."""
    draw = golden.float64
    _, residuals = layer.forward(*draw.inputs, **golden.keywords)
    once = pytree.leaves(layer.vjp(residuals, draw.g))
    for factor in (0, 1, 2):
        g = pytree.map(lambda leaf, f=factor: np.asarray(leaf * leaf.dtype.type(f)), draw.g)
        scaled = pytree.leaves(layer.vjp(residuals, g))
        for a, b in zip(once, scaled, strict=True):
            normal = np.abs(a) > 1e-290
            if not np.array_equal(factor * a[normal], b[normal]):
                raise Wrong(f"vjp is not linear in g: for {factor}·g")


def _check_layouts(layer: Any, golden: Golden) -> None:
    """Require the golden values for inputs in Fortran order, and for reversed and strided ones."""
    draw = golden.float64
    for lay_out in (_fortran, _reversed, _strided):
        inputs, g, keywords = pytree.map(lay_out, (draw.inputs, draw.g, golden.keywords))
        result = _run(layer, golden, inputs, g, keywords)
        _within(_errors(draw, result), golden.limits64, f"is wrong for {lay_out.__name__} inputs")


def _check_float32(layer: Any, golden: Golden) -> None:
    """Require errors like those of XLA, as root mean squares over the draws."""
    errors = [_errors(d, _run(layer, golden, d.inputs, d.g)) for d in golden.float32]
    mean = {p: math.sqrt(sum(e[p] ** 2 for e in errors) / len(errors)) for p in errors[0]}
    _within(mean, golden.limits32, "is inaccurate in float32")


def _fortran(x: Any) -> Any:
    return np.array(x, order="F")


def _reversed(x: Any) -> Any:
    flip = (slice(None, None, -1),) * x.ndim
    return x[flip].copy()[flip] if x.ndim else x


def _strided(x: Any) -> Any:
    return np.repeat(x, 2, axis=-1)[..., ::2] if x.ndim else x
