"""A short run of the fuzzer on each reader, and what the fuzzer itself must find."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent

BROKEN = """
import ctypes
import time
import types
import warnings

from functional_lm.files import FileFormatError


def Reader(read):
    return types.SimpleNamespace(
        file="any.json", make=lambda folder: [b"{}"], words=(), repair=bytes, read=read
    )


def uses_memory(path):
    return bytearray(2**33)


def recurses(path):
    return recurses(path)


def waits(path):
    while True:
        time.sleep(0.01)


def computes(path):
    return 7 ** (7**9)  # without an interruption from Python


def says_little(path):
    raise FileFormatError(path, "bad")


def names_another(path):
    raise FileFormatError("another", "is damaged: ...; restore it")


def says_much(path):
    raise FileFormatError(path, "x" * 3000)


READERS = {
    "raises": Reader(read=lambda path: {}["missing"]),
    "warns": Reader(read=lambda path: warnings.warn("odd", stacklevel=1)),
    "crashes": Reader(read=lambda path: ctypes.string_at(0)),
    "uses memory": Reader(read=uses_memory),
    "recurses": Reader(read=recurses),
    "waits": Reader(read=waits),
    "computes": Reader(read=computes),
    "says little": Reader(read=says_little),
    "names another": Reader(read=names_another),
    "says much": Reader(read=says_much),
}
"""

FAULTS = {
    "raises": "KeyError: 'missing'",
    "warns": "UserWarning: odd",
    "crashes": "the process ended with",
    "uses memory": "MemoryError",
    "recurses": "RecursionError",
    "waits": "an input takes more than",
    "computes": "an input takes more than",
    "says little": "must give a reason",
    "names another": "must name the file",
    "says much": "the message is long",
}


def load(name: str):
    spec = importlib.util.spec_from_file_location(f"fuzz_{name}", HERE / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


run = load("run")


@pytest.mark.parametrize("name", load("readers").READERS)
def test_no_content_does_what_none_may_do(name):
    report = run.run_reader(name, "--inputs", "1000", limit=20.0)
    assert "fault" not in report, report["fault"]
    assert report["inputs"] == 1000
    assert report["outcomes"]["a value"] > 1
    assert len(report["outcomes"]) > 3


@pytest.mark.parametrize("name", load("commands").READERS)
def test_no_file_of_a_run_does_what_none_may_do(name):
    report = run.run_reader(name, "--inputs", "20", limit=60.0)
    assert "fault" not in report, report["fault"]
    assert report["inputs"] == 20


@pytest.fixture
def broken(tmp_path):
    path = tmp_path / "broken.py"
    path.write_text(BROKEN)
    return path


@pytest.mark.parametrize("name", FAULTS)
def test_the_fuzzer_finds(broken, monkeypatch, name):
    if name == "uses memory" and sys.platform != "linux":
        pytest.skip("the memory of a process is limited on Linux only")
    monkeypatch.setattr(run, "STARTING", 2.0 if name == "waits" else 300.0)
    report = run.run_reader(name, "--inputs", "5", readers=broken, limit=1.0)
    assert FAULTS[name] in report["fault"]
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
