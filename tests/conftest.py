"""What all tests share: floating-point faults are errors, and the real text if it is there."""

import gc
import math
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

# pytest-xdist runs one process per core, so each needs one thread. XLA compiles far more here than
# it computes: without its optimisations a certificate takes a third of the time.
os.environ["OPENBLAS_NUM_THREADS"] = "1"
# The models that tests make are not remembered as the user's own.
os.environ["XDG_STATE_HOME"] = str(Path(tempfile.gettempdir(), "functional-lm-tests"))
os.environ["XLA_FLAGS"] = " ".join(
    [
        "--xla_backend_optimization_level=0",
        "--xla_cpu_use_fusion_emitters=false",
        "--xla_cpu_parallel_codegen_split_count=1",
        "--xla_cpu_multi_thread_eigen=false",
    ]
)

import hypothesis
import numpy as np
import pytest

# Traces make many objects and few cycles; collections took a tenth of the time.
gc.set_threshold(200_000, 50, 100)
# Many tests start processes: let them find compiled modules, as Python does by default.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

hypothesis.settings.register_profile("untimed", deadline=None)  # the machine may be busy
hypothesis.settings.load_profile("untimed")


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


@pytest.fixture(scope="session")
def mpiexec():
    """Return a function that runs Python in several processes of MPI, or skips."""
    pytest.importorskip("mpi4py", reason="mpi4py is missing", exc_type=ImportError)
    program = Path(sys.executable).with_name("mpiexec")
    if not program.exists():
        pytest.skip(f"mpiexec is missing: not in {program.parent}")

    def run(processes: int, *arguments: object) -> subprocess.CompletedProcess[str]:
        python = [sys.executable, "-m", "mpi4py"]  # which ends all on an error of one
        command = [program, "-n", str(processes), *python, *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, timeout=60)

    return run


@pytest.fixture
def small_disk(tmp_path):
    """Return a function that mounts a file system in memory, of a size such as 2m, or skips."""
    folder = tmp_path / "disk"

    def mount(size: str) -> Path:
        folder.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
        if not shutil.which("mount") or subprocess.run(command, capture_output=True).returncode:
            pytest.skip("a small file system cannot be mounted here")
        return folder

    yield mount
    if os.path.ismount(folder):
        subprocess.run(["umount", str(folder)], check=True)


@pytest.fixture(scope="session")
def run_records():
    """Return a function that makes up the records of a run, with statistics at every fifth step."""

    def make(steps: int = 40, blocks: int = 3, *, seed: int = 0) -> list[dict[str, Any]]:
        noise = np.random.default_rng(seed).uniform(0.9, 1.1, steps + 1)
        leaves = ["embedding.weight", "norm.scale"]
        leaves += [
            f"blocks.{i}.{leaf}" for i in range(blocks) for leaf in ("norm1.scale", "mlp.up")
        ]
        sites = [f"blocks.{i}{site}" for i in range(blocks) for site in ("", ".mlp")]
        records = []
        for step in range(1, steps + 1):
            record: dict[str, Any] = {
                "step": step,
                "loss": 1.5 + 2.5 * math.exp(-step / 10) * noise[step],
                "lr": 1e-3 * step / steps,
                "grad_norm": noise[step],
                "step_ms": 20.0,
                "tokens_per_second": 1000 + step,
            }
            if step % 10 == 0:
                record |= {"val_loss": record["loss"] + 0.1, "sample": f"\nsample of {step}\n"}
                record["bits_per_byte"] = record["val_loss"] / math.log(2)
            if step % 5 == 0:
                record["statistics"] = {
                    "grad_norm": dict.fromkeys(leaves, 0.1 * noise[step]),
                    "update_ratio": dict.fromkeys(leaves, 0.001 * noise[step]),
                    "activation_mean": dict.fromkeys(sites, noise[step] - 1),
                    "activation_std": dict.fromkeys(sites, noise[step]),
                    "zero_share": dict.fromkeys(sites[1::2], 0.0),
                    "attention_entropy": dict.fromkeys(sites[::2], 2.0 * noise[step]),
                }
            records.append(record)
        return records

    return make
