import subprocess
import sys

import pytest

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


@pytest.mark.parametrize("names", runtime._LAUNCHERS)
def test_mpiexec_is_noticed_and_its_processes_share_the_cores(monkeypatch, names):
    alone = runtime.cores()
    assert runtime.launched() is None
    for name, value in zip(names, "142", strict=True):
        monkeypatch.setenv(name, value)
    assert runtime.launched() == (1, 4, 2)
    assert runtime.cores() == max(1, alone // 2)
    assert runtime.cores(others_wait=True) == alone


def test_the_peak_of_memory_is_known():
    before = runtime.peak_memory()
    assert before > 2**20
    assert runtime.peak_memory() >= before
