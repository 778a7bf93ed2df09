import subprocess
import sys
import types

import numpy as np
import pytest

from functional_lm import buffers
from functional_lm.speed import runtime


def test_tune_needs_no_numpy_and_says_whether_it_worked():
    code = (
        "import sys\n"
        "from functional_lm.speed import runtime\n"
        "tuned = runtime.tune()\n"
        "assert isinstance(tuned, bool)\n"
        "assert 'numpy' not in sys.modules\n"
        "import numpy as np\n"
        "assert np.ones((2000, 2000)).sum() == 4e6\n"
        "print(tuned)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() in ("True", "False")


def test_the_report_says_what_is_there(monkeypatch):
    monkeypatch.delenv("OPENBLAS_CORETYPE", raising=False)
    report = runtime.report()
    assert report.cores == runtime.cores() >= 1
    assert report.blas_threads >= 1
    assert report.blas
    assert report.pinned_by == ""
    monkeypatch.setenv("OPENBLAS_CORETYPE", "Haswell")
    assert runtime.report().pinned_by == "OPENBLAS_CORETYPE=Haswell"


def test_the_report_knows_what_keeps_memory():
    code = (
        "from functional_lm.speed import runtime\n"
        "before = runtime.report().memory\n"
        "print(repr(before), runtime.tune() == bool(runtime.report().memory))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["''", "True"]


@pytest.fixture
def tune_elsewhere(monkeypatch):
    """Return a `tune` on a system without glibc, where something else may differ too."""
    monkeypatch.setattr(runtime, "_tuned", False)
    monkeypatch.setattr(runtime, "pooled", False)

    def tune(name="platform", value="darwin"):
        with monkeypatch.context() as patch:
            patch.setattr(sys, "platform", "darwin")
            patch.setattr(sys, name, value, raising=False)
            return runtime.tune()

    return tune


def test_without_mallopt_a_pool_keeps_memory(tune_elsewhere):
    assert buffers.empty((1000, 1000), np.float32).base is None
    assert tune_elsewhere() is True
    assert runtime.report().memory == "pool"
    assert buffers.empty((1000, 1000), np.float32).base is not None


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("_is_gil_enabled", lambda: False),
        ("implementation", types.SimpleNamespace(name="pypy")),
    ],
    ids=["no global lock", "no reference counts"],
)
def test_a_pool_needs_exact_reference_counts(tune_elsewhere, name, value):
    assert tune_elsewhere(name, value) is False
    assert runtime.report().memory == ""
    assert buffers.empty((1000, 1000), np.float32).base is None
