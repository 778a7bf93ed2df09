"""`import functional_lm` loads nothing, and its parts load NumPy only."""

import subprocess
import sys

import pytest

import functional_lm

HEAVY = (
    "jax",
    "optax",
    "matplotlib",
    "tokenizers",
    "mpi4py",
    "rich",
    "safetensors",
    "platformdirs",
    "uniplot",
    "tensorboardX",
)


def loaded_by(code: str) -> set[str]:
    script = f"import sys\nbefore = set(sys.modules)\n{code}\nprint(*set(sys.modules) - before)"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    return {name.partition(".")[0] for name in done.stdout.split()}


def test_the_package_loads_nothing():
    loaded = loaded_by("import functional_lm")
    assert "numpy" not in loaded
    assert not loaded.intersection(HEAVY)


def test_all_parts_load_numpy_only():
    parts = [name for name in functional_lm.__all__ if not name.startswith("_")]
    loaded = loaded_by(f"from functional_lm import {', '.join(parts)}")
    assert "numpy" in loaded
    assert not loaded.intersection((*HEAVY, "pytest"))


def test_dir_and_unknown_names():
    assert "value_and_grad" in dir(functional_lm)
    with pytest.raises(AttributeError, match="nothing_like_it"):
        _ = functional_lm.nothing_like_it
