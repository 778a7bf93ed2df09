"""A short run of the fuzzer on each reader, and faults that the fuzzer must find."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent

BROKEN = {
    "raises": ("{}['missing']", "KeyError: 'missing'"),
    "warns": ("warnings.warn('odd', stacklevel=1)", "UserWarning: odd"),
    "crashes": ("ctypes.string_at(0)", "the process ended with"),
    "uses memory": ("bytearray(2**33)", "MemoryError"),
    "recurses": ("READERS['recurses'].read(path)", "RecursionError"),
    "waits": ("time.sleep(999)", "an input takes more than"),
    "computes": ("7 ** (7**9)", "an input takes more than"),
    "says little": ("refuse(path, 'bad')", "must give a reason"),
    "names another": ("refuse('another', 'is damaged: ...; restore it')", "must name the file"),
    "says much": ("refuse(path, 'x' * 3000)", "the message is long"),
}
"""What a reader does with a path, and what the fuzzer says about it."""

HEAD = """
import ctypes, time, types, warnings
from functional_lm.files import FileFormatError

def refuse(path, reason):
    raise FileFormatError(path, reason)

def reader(read):
    return types.SimpleNamespace(
        file="any.json", make=lambda folder: [b"{}"], words=(), repair=bytes, read=read
    )

READERS = {}
"""


def load(name: str):
    spec = importlib.util.spec_from_file_location(f"fuzz_{name}", HERE / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


run = load("run")


@pytest.mark.parametrize("name", load("readers").READERS)
def test_every_input_is_read_or_refused(name):
    report = run.run_reader(name, "--inputs", "250", limit=20.0)
    assert "fault" not in report, report["fault"]
    assert report["inputs"] == 250
    assert report["outcomes"]["a value"] > 1
    assert len(report["outcomes"]) > 3


SHORT = ("config.json", "model.safetensors")


@pytest.mark.parametrize("name", [f"run {file}" for file in SHORT])
def test_no_file_of_a_run_does_what_none_may_do(name):
    report = run.run_reader(name, "--inputs", "3", limit=60.0)
    assert "fault" not in report, report["fault"]
    assert report["inputs"] == 3


@pytest.fixture
def broken(tmp_path):
    path = tmp_path / "broken.py"
    readers = (f"READERS[{n!r}] = reader(lambda path: {does})" for n, (does, _) in BROKEN.items())
    path.write_text("\n".join([HEAD, *readers]))
    return path


@pytest.mark.parametrize("name", BROKEN)
def test_the_fuzzer_finds(broken, monkeypatch, name):
    if name == "uses memory" and sys.platform != "linux":
        pytest.skip("the memory of a process is limited on Linux only")
    monkeypatch.setattr(run, "STARTING", 2.0 if name == "waits" else 300.0)
    report = run.run_reader(name, "--inputs", "5", readers=broken, limit=1.0)
    assert BROKEN[name][1] in report["fault"]
    folder = Path(report["fault"].rpartition("the input is in ")[2])
    assert (folder / "any.json").is_file()
    for path in folder.iterdir():
        path.unlink()
    folder.rmdir()


def test_the_same_seed_makes_the_same_inputs():
    first, again, other = (
        run.run_reader("json", "--inputs", "300", "--seed", seed)["outcomes"] for seed in "001"
    )
    assert first == again != other


def test_the_command():
    command = [sys.executable, str(HERE / "run.py"), "--seconds", "0.2"]
    done = subprocess.run([*command, "json"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "none failed" in done.stdout
    done = subprocess.run([*command, "yaml"], capture_output=True, text=True)
    assert done.returncode == 2
    assert "there is no reader yaml" in done.stderr
