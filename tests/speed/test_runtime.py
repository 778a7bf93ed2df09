import subprocess
import sys

from functional_lm.speed import runtime


def test_tune_needs_no_numpy_and_the_report_says_whether_it_worked():
    code = (
        "import sys\n"
        "from functional_lm.speed import runtime\n"
        "tuned = runtime.tune()\n"
        "assert isinstance(tuned, bool)\n"
        "assert 'numpy' not in sys.modules\n"
        "import numpy as np\n"
        "assert np.ones((2000, 2000)).sum() == 4e6\n"
        "assert bool(runtime.info().memory) == tuned\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_report_says_what_is_there(monkeypatch):
    monkeypatch.delenv("OPENBLAS_CORETYPE", raising=False)
    report = runtime.info()
    assert report.cores == runtime.cores() >= 1
    assert report.blas_threads >= 1
    assert report.blas
    assert report.pinned_by == ""
    monkeypatch.setenv("OPENBLAS_CORETYPE", "Haswell")
    assert runtime.info().pinned_by == "OPENBLAS_CORETYPE=Haswell"


def test_elsewhere_nothing_keeps_memory(monkeypatch):
    monkeypatch.setattr(runtime, "_tuned", False)
    monkeypatch.setattr(sys, "platform", "darwin")
    assert runtime.tune() is False
    assert runtime.info().memory == ""
