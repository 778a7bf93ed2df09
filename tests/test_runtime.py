import subprocess
import sys


def test_tune_needs_no_numpy_and_says_whether_it_worked():
    code = (
        "import sys\n"
        "from functional_lm import runtime\n"
        "tuned = runtime.tune()\n"
        "assert isinstance(tuned, bool)\n"
        "assert 'numpy' not in sys.modules\n"
        "import numpy as np\n"
        "assert np.ones((2000, 2000)).sum() == 4e6\n"
        "print(tuned)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() in ("True", "False")
