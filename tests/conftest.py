"""What all tests share: floating-point faults are errors, and the real text if it is there."""

import os
from pathlib import Path

import numpy as np
import pytest


@pytest.fixture(autouse=True)
def _floating_point_faults_are_errors():
    # Underflow is normal: exp(-200) is zero in float32.
    with np.errstate(over="raise", divide="raise", invalid="raise"):
        yield


@pytest.fixture(scope="session")
def shakespeare() -> str:
    """Return Tiny Shakespeare from the folder FUNCTIONAL_LM_DATA, or skip."""
    folder = os.environ.get("FUNCTIONAL_LM_DATA")
    if not folder:
        pytest.skip("tinyshakespeare.txt is missing: FUNCTIONAL_LM_DATA is not set")
    path = Path(folder) / "tinyshakespeare.txt"
    if not path.is_file():
        pytest.skip(f"tinyshakespeare.txt is missing: not in FUNCTIONAL_LM_DATA={folder}")
    return path.read_text(encoding="utf-8")


@pytest.fixture(scope="session")
def root() -> Path:
    """Return the top folder of the project."""
    return Path(__file__).parent.parent
