import subprocess
import sys

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
    report = runtime.info()
    assert report.cores == runtime.cores() >= 1
    assert report.blas_threads >= 1
    assert report.blas
    assert report.pinned_by == ""
    monkeypatch.setenv("OPENBLAS_CORETYPE", "Haswell")
    assert runtime.info().pinned_by == "OPENBLAS_CORETYPE=Haswell"


def test_the_report_knows_what_keeps_memory():
    code = (
        "from functional_lm.speed import runtime\n"
        "before = runtime.info().memory\n"
        "print(repr(before), runtime.tune() == bool(runtime.info().memory))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["''", "True"]


def test_elsewhere_nothing_keeps_memory(monkeypatch):
    monkeypatch.setattr(runtime, "_tuned", False)
    monkeypatch.setattr(sys, "platform", "darwin")
    assert runtime.tune() is False
    assert runtime.info().memory == ""
