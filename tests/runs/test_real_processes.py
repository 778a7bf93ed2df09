"""The command against what once broke a run, in processes of its own where they matter."""

import contextlib
import hashlib
import io
import json
import os
import py_compile
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from functional_lm import pytree
from functional_lm.cli.main import main
from functional_lm.runs import load_checkpoint, read_metrics, save_checkpoint

pytestmark = pytest.mark.skipif(os.name != "posix", reason="needs POSIX signals and links")

MAIN = "import sys; from functional_lm.cli.main import main; sys.exit(main())"
PROGRAM = [sys.executable, "-c", MAIN]
OF_ANY = [
    *("--text-file", "text.txt", "--batch-size", "2", "--seq-len", "8", "--d-model", "8"),
    *("--shards", "1", "--statistics-every", "0"),
]
SETTINGS = [*OF_ANY, "--n-heads", "1", "--n-layers", "1"]
TEXT = "the quick brown fox jumps over the lazy dog.\n" * 40
MODEL = """
import helper
from functional_lm.compose import serial
from functional_lm.layers import embedding, unembedding

helper.mark()
model = serial(embedding=embedding, unembedding=unembedding)
"""
HELPER = """
import os


def mark():
    with open(os.environ["MARK"], "a") as file:
        file.write("x")
"""


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """Work in a new folder, as a user who has made nothing yet."""
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("MARK", str(tmp_path / "mark"))
    monkeypatch.delenv("PYTHONDONTWRITEBYTECODE", raising=False)
    Path("text.txt").write_text(TEXT)
    return tmp_path


def run(*arguments, program=None, timeout=120):
    """Run the command here, or a program that holds it."""
    arguments = list(map(str, arguments))
    if program:
        how = {"text": True, "errors": "replace", "timeout": timeout}
        return subprocess.run([*program, *arguments], capture_output=True, **how)
    said = {"stdout": io.StringIO(), "stderr": io.StringIO()}
    with contextlib.redirect_stdout(said["stdout"]), contextlib.redirect_stderr(said["stderr"]):
        status = main(arguments)
    return SimpleNamespace(returncode=status, **{name: s.getvalue() for name, s in said.items()})


def train(*arguments, status=0, **settings):
    done = run("train", *(OF_ANY if "--model" in arguments else SETTINGS), *arguments, **settings)
    assert done.returncode == status, done.stderr
    assert "Traceback" not in done.stderr
    return done


def refused(*arguments, says, status=2):
    """Require that a command ends with one line."""
    done = run(*arguments)
    assert done.returncode == status, done.stdout + done.stderr
    assert says in done.stderr
    assert len(done.stderr.splitlines()) == 1
    return done


def start(*arguments):
    """Start the training of a run without an end, and wait for its third step."""
    process = subprocess.Popen(
        [*PROGRAM, "train", *SETTINGS, "--steps", "1000000", "--log-every", "1", *arguments],
        stdout=subprocess.PIPE,
        text=True,
    )
    while "step 3" not in process.stdout.readline():
        assert process.poll() is None
    return process


# Names.


@pytest.mark.parametrize("name", ["a [run]", "run/../run", "link"])
def test_a_name_is_taken_as_it_is(name):
    train("--out", "run", "--steps", "1")
    Path("link").symlink_to("run")
    if name == "a [run]":
        train("--out", name, "--steps", "1")
    before = sorted(Path().iterdir())
    train("--out", name, "--overwrite", "--steps", "2")
    assert sorted(Path().iterdir()) == before
    assert len(read_metrics(Path(name, "metrics.jsonl"))) == 2


@pytest.mark.skipif(not shutil.which("unshare"), reason="needs unshare")
def test_process_one_cleans_up_after_process_one():
    """In a container each process has the same id."""
    kill = "import os\nfrom functional_lm import files\nreal, made = os.replace, []\n"
    kill += "def replace(*names):\n    real(*names)\n    made.append(1)\n"
    kill += "    len(made) == 2 and os._exit(9)\nos.replace = replace\n"
    unshare = ["unshare", "--pid", "--fork", "--kill-child", sys.executable, "-c"]
    if run("pass", program=unshare).returncode:
        pytest.skip("no namespace of processes can be made here")
    done = run("train", *SETTINGS, "--out", "c", program=[*unshare, kill + MAIN])
    assert done.returncode == 9, done.stderr
    assert any(path.name.startswith(".c") for path in Path().iterdir())
    done = run("train", *SETTINGS, "--out", "c", "--steps", "1", program=[*unshare, MAIN])
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in Path().iterdir()) == ["c", "text.txt"]


def test_a_new_run_is_on_the_disk_with_its_name():
    """The folder that holds it is synced after the rename."""
    log = "import os\nreal, rename, made = os.fsync, os.rename, []\n"
    log += "def fsync(f):\n    made.append(os.readlink(f'/proc/self/fd/{f}'))\n    real(f)\n"
    log += "def renamed(*names):\n    rename(*names)\n    made.append('renamed')\n"
    log += "os.fsync, os.rename = fsync, renamed\nimport atexit, json\n"
    log += "atexit.register(lambda: open('made', 'w').write(json.dumps(made)))\n"
    if not Path("/proc/self/fd").exists():
        pytest.skip("needs /proc")
    train("--out", "run", "--steps", "1", program=[sys.executable, "-c", log + MAIN])
    made = json.loads(Path("made").read_text())
    assert made[made.index("renamed") + 1] == str(Path().resolve())


# Steps.


def test_a_write_that_fails_inside_a_step_changes_nothing():
    every = ["--checkpoint-every", "5", "--eval-every", "2", "--sample-every", "8"]
    train("--out", "straight", "--steps", "8", *every)
    process = [*PROGRAM[:2], f"import os, signal\n{STOP_AT_4}{MAIN}"]
    train("--out", "run", "--steps", "8", *every, program=process, status=143)
    Path("run/sample.txt").mkdir()
    resume = ["train", "--resume", "run", "--checkpoint-every=5", "--eval-every=2"]
    resume += ["--sample-every=8"]
    assert run(*resume).returncode == 1
    Path("run/sample.txt").rmdir()
    assert run(*resume).returncode == 0
    for name in ("last.safetensors", "model.safetensors", "sample.txt"):
        assert Path("run", name).read_bytes() == Path("straight", name).read_bytes()


STOP_AT_4 = """
from functional_lm.training import Experiment
batch_at = Experiment.batch_at
def stopping(self, step):
    if step == 3:
        os.kill(os.getpid(), signal.SIGTERM)
    return batch_at(self, step)
Experiment.batch_at = stopping
"""


@pytest.mark.parametrize("kind", ["symbolic", "hard", "pipe"])
def test_a_lock_that_leads_elsewhere_empties_nothing(kind):
    train("--out", "run", "--steps", "1")
    Path("thesis.txt").write_text("mine")
    lock = Path("run/.lock")
    lock.unlink()
    if kind == "symbolic":
        lock.symlink_to(Path("thesis.txt").resolve())
    elif kind == "hard":
        lock.hardlink_to("thesis.txt")
    else:
        os.mkfifo(lock)
    for command in (["--resume", "run"], [*SETTINGS, "--out", "run", "--overwrite"]):
        done = run("train", *command)
        assert done.returncode == 2
        assert kind == "pipe" or "run/.lock must be a regular file" in done.stderr
    assert Path("thesis.txt").read_text() == "mine"


@pytest.mark.parametrize("closed", ["0", "12", "012"])
def test_with_closed_streams_nothing_else_gets_their_words(closed):
    close = "".join(f"import os; os.close({number})\n" for number in closed)
    again = "import os, sys\nos.execv(sys.executable, [sys.executable, '-c', *sys.argv[1:]])\n"
    program = [sys.executable, "-c", close + again, MAIN]
    process = subprocess.Popen(
        [*program, "train", *SETTINGS, "--steps", "1000000", "--out", "run"],
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    metrics = Path("run/metrics.jsonl")
    while not (metrics.exists() and metrics.stat().st_size):
        assert process.poll() is None
        time.sleep(0.05)
    lock = Path("run/.lock").read_text()
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 143
    assert Path("run/.lock").read_text() == lock
    steps = [record["step"] for record in read_metrics(metrics)]
    assert steps == list(range(1, len(steps) + 1))
    assert not list(Path("run").glob("*.damaged"))


# What is written can be read again.


def test_a_file_whose_name_is_not_unicode():
    os.rename(b"text.txt", b"t\xff.txt")
    settings = ["--text-file", os.fsdecode(b"t\xff.txt"), *SETTINGS[2:]]
    done = run("train", *settings, "--out", "run", "--steps", "1")
    assert done.returncode == 2
    assert "rename the file" in done.stderr
    assert not Path("run").exists()


@pytest.mark.parametrize("folder", ["a:b", "a.py:b", "a b"])
def test_a_model_whose_path_has_a_colon(folder):
    write_model(Path(folder))
    train("--model", f"{folder}/net.py:model", "--out", f"{folder}/run", "--steps", "1")
    assert run("train", "--resume", f"{folder}/run", "--steps", "2").returncode == 0
    assert run("generate", f"{folder}/run", "--max-new-tokens", "3").returncode == 0


def test_a_deep_tree_of_parameters():
    """It is refused before anything is written, or it can be resumed."""
    nested = "for _ in range(DEPTH):\n    model = serial(inner=model)\n"
    for depth, status in (("40", 0), ("300", 2)):
        write_model(Path(depth), MODEL + nested.replace("DEPTH", depth))
        done = run("train", *OF_ANY, "--model", f"{depth}/net.py:model", "--out", f"{depth}/run",
                   "--steps", "1")  # fmt: skip
        assert done.returncode == status, done.stderr
        assert Path(depth, "run").exists() == (status == 0)
    done = run("train", "--resume", "40/run", "--steps", "2")
    assert done.returncode == 0, done.stderr
    assert not list(Path("40").rglob("*.damaged"))


def test_one_bad_byte_in_the_metrics_costs_one_line():
    train("--out", "run", "--steps", "6")
    metrics = Path("run/metrics.jsonl")
    lines = metrics.read_bytes().splitlines(keepends=True)
    lines[2] = b"\xff" + lines[2]
    metrics.write_bytes(b"".join(lines))
    done = run("train", "--resume", "run", "--steps", "8")
    assert "they are kept in metrics.jsonl.damaged" in done.stderr
    assert [record["step"] for record in read_metrics(metrics)] == [1, 2, 4, 5, 6, 7, 8]
    assert Path("run/metrics.jsonl.damaged").read_bytes() == lines[2]


# A model's code.


def write_model(folder, text=MODEL):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "net.py").write_text(text)
    (folder / "helper.py").write_text(HELPER)


def ran(home):
    """Tell whether the code of a model ran since this was asked last."""
    found = (home / "mark").exists()
    (home / "mark").unlink(missing_ok=True)
    return found


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A run with a custom model, and the state folder of who made it."""
    folder = tmp_path_factory.mktemp("made")
    write_model(folder / "mine")
    (folder / "text.txt").write_text(TEXT)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(folder / "state"))
        patch.setenv("MARK", str(folder / "mark"))
        patch.chdir(folder)
        train("--model", "mine/net.py:model", "--out", "run", "--steps", "2")
    return folder


@pytest.fixture
def own(home, made):
    """A copy of that run, for the same user."""
    for name in ("run", "text.txt"):
        (shutil.copytree if name == "run" else shutil.copy)(made / name, name)
    shutil.copytree(made / "state", home / "state")
    return Path("run")


COMMANDS = {
    "generate": ["generate", "RUN", "--max-new-tokens", "3"],
    "evaluate": ["evaluate", "RUN"],
    "info": ["info", "RUN"],
    "resume": ["train", "--resume", "RUN", "--steps", "3"],
    "config": ["train", "--config", "RUN/config.json", "--dry-run"],
    "sweep": ["sweep", "--config", "RUN/config.json", "--lr", "1e-3", "--steps", "2"],
    "find-lr": ["find-lr", "--config", "RUN/config.json", "--test-steps", "20"],
}


def command(name, folder):
    return [part.replace("RUN", str(folder)) for part in COMMANDS[name]]


@pytest.mark.parametrize("name", COMMANDS)
def test_code_runs_where_it_was_made_and_else_only_if_it_is_trusted(own, home, monkeypatch, name):
    own.rename("moved")
    done = run(*command(name, "moved"))
    assert (done.returncode, ran(home)) == (0, True), done.stderr
    monkeypatch.setenv("XDG_STATE_HOME", str(home / "another user"))
    done = refused(*command(name, "moved"), says="pass --trust-model")
    assert "moved/model.py was not made by you on this machine" in done.stderr
    assert not ran(home)
    done = run(*command(name, "moved"), "--trust-model")
    assert (done.returncode, ran(home)) == (0, True), done.stderr


@pytest.mark.parametrize("name", ["diagnose", "report", "plot"])
def test_what_only_reads_records_runs_no_code(own, home, name):
    assert run(name, "run").returncode == 0
    assert not ran(home)


EVIL = HELPER + "\nmark()\n"
UNCHECKED = py_compile.PycInvalidationMode.UNCHECKED_HASH


def forge(how, own):
    """Change a run of the user's as somebody else could."""
    config = own / "config.json"
    content = json.loads(config.read_text())
    if how == "model":
        (own / "model.py").write_text(EVIL + MODEL)
    elif how == "neighbour":
        (own / "helper.py").write_text(EVIL)
    elif how == "listed":  # with the true hash of the new code
        (own / "helper.py").write_text(EVIL)
        digest = hashlib.sha256(EVIL.encode()).hexdigest()
        content["model_file"]["files"]["helper.py"] = digest
    elif how == "link":
        Path("evil.py").write_text(EVIL + MODEL)
        (own / "model.py").unlink()
        (own / "model.py").symlink_to(Path("evil.py").resolve())
    elif how == "name":
        content["model_file"]["name"] = "helper"
    elif how == "architecture":
        Path("evil.py").write_text(EVIL + MODEL)
        del content["model_file"]
        content["architecture"] = str(Path("evil.py:model").resolve())
    elif how == "table":
        Path("evil.py").write_text(EVIL + MODEL)
        del content["model_file"]
        content["text"]["model"] = str(Path("evil.py:model").resolve())
    elif how == "beside":
        Path(own, "evil.py").write_text(EVIL + MODEL)
        del content["model_file"]
        content["architecture"] = "evil.py:model"
    config.write_text(json.dumps(content))


FORGED = [(how, "generate") for how in ("model", "neighbour", "listed", "link", "name")]
FORGED += [(how, name) for how in ("architecture", "table") for name in ("generate", "config")]
FORGED += [("model", "resume"), ("beside", "config"), ("listed", "config")]


@pytest.mark.parametrize(("how", "name"), FORGED)
def test_forged_code_does_not_run(own, home, how, name):
    forge(how, own)
    done = run(*command(name, own))
    assert done.returncode == 2, done.stdout
    assert len(done.stderr.splitlines()) == 1
    assert not ran(home)


def test_code_that_is_not_listed_is_not_found(own, home):
    """Neither a compiled file, nor a module of a name that the model imports from elsewhere."""
    Path("evil.py").write_text(EVIL + "raise SystemExit")
    for stem in ("model", "helper"):
        code = py_compile.compile("evil.py", invalidation_mode=UNCHECKED)
        cached = own / "__pycache__" / f"{stem}.{sys.implementation.cache_tag}.pyc"
        cached.parent.mkdir(exist_ok=True)
        shutil.copy(code, cached)
    for module in ("functional_lm", "statistics", "colorsys"):
        (own / f"{module}.py").write_text(EVIL + "raise SystemExit")
    done = run("generate", own, "--max-new-tokens", "3")
    assert done.returncode == 0, done.stderr
    assert (home / "mark").read_text() == "x"  # by the model itself, once


def test_a_config_file_sets_no_folder():
    train("--out", "run", "--steps", "1")
    for setting in ('out = "other"', 'resume = "run"', "overwrite = true", 'folder = "run"'):
        Path("my.toml").write_text(setting)
        refused("train", *SETTINGS, "--config", "my.toml", says="my.toml cannot set")
    write_model(Path("sub"))
    Path("sub/my.toml").write_text('model = "net.py:model"')
    flags = ["train", *OF_ANY, "--steps", "1", "--config", "sub/my.toml"]
    refused(*flags, says="net.py is named by sub/my.toml, not by you")
    assert run(*flags, "--trust-model").returncode == 0


def test_a_home_that_cannot_be_written(home, monkeypatch):
    (home / "file").touch()
    monkeypatch.setenv("XDG_STATE_HOME", str(home / "file"))
    write_model(Path("mine"))
    train("--model", "mine/net.py:model", "--out", "run", "--steps", "1")
    refused("generate", "run", says="pass --trust-model")
    assert run("generate", "run", "--max-new-tokens", "3", "--trust-model").returncode == 0


# Files of somebody else's.


def test_forged_records_and_metadata():
    train("--out", "run", "--steps", "2")
    Path("run/metrics.jsonl").write_text('{"step": 1}\n{"step": 2, "val_loss": "low"}\n')
    done = run("train", "--resume", "run", "--steps", "3")
    assert (done.returncode, done.stderr.count("Traceback")) == (0, 0), done.stderr
    path = Path("run/checkpoints/step-00000003.safetensors")
    tree, metadata = load_checkpoint(path)
    del metadata["best_step"]
    save_checkpoint(path, tree, metadata=metadata)
    refused("train", "--resume", "run", says="is not of a run")


@pytest.fixture
def impatient():
    """End a test that takes a minute."""

    def stop(*_):
        raise AssertionError("it waits")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(60)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.mark.usefixtures("impatient")
def test_no_pipe_is_waited_for():
    train("--out", "run", "--steps", "1")
    commands = {"last.safetensors": "report", "metrics.jsonl": "diagnose"}
    commands |= {"config.json": "generate", "model.safetensors": "generate"}
    for name, command in commands.items():
        path = Path("run", name)
        path.rename("aside")
        os.mkfifo(path)
        assert "Traceback" not in run(command, "run").stderr
        path.unlink()
        Path("aside").rename(path)


def test_no_control_character_of_a_file_reaches_a_terminal():
    hostile = "\x1b]0;owned\x07"
    train("--out", "run", "--steps", "2")
    path = Path("run/metrics.jsonl")
    records = read_metrics(path)
    for record in records:
        leaf = {"blocks.0" + hostile: 0.0}
        record["statistics"] = {"grad_norm": leaf, "update_ratio": leaf, "zero_share": leaf}
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    config = json.loads(Path("run/config.json").read_text())
    config["text"]["text_file"] = hostile
    Path("run/config.json").write_text(json.dumps(config))
    for command in (["diagnose", "run"], ["train", "--resume", "run"], ["evaluate", "run"]):
        done = run(*command)
        assert "Traceback" not in done.stderr
        assert "\x1b" not in done.stdout + done.stderr
    assert "owned" in done.stderr


def test_slips_of_the_keyboard():
    refused("train", *SETTINGS, "--seed", 2**64, says="seed must be at most 18,446,744,073,709,551")
    refused("train", *SETTINGS, "--n-layers", "1000000", says="n_layers must be at most 10,000")
    done = run("train", *SETTINGS, "--lr", "1e38", "--steps", "40", "--out", "hot")
    assert done.returncode == 1
    said = "the last update spoiled the weights" in done.stderr
    finite = "the weights before are in hot/last.safetensors" in done.stderr
    assert said != finite
    weights = pytree.leaves(load_checkpoint("hot/last.safetensors").tree)
    assert all(np.isfinite(leaf).all() for leaf in weights) == finite


def test_a_diagnosis_while_it_trains():
    process = start("--out", "run")
    try:
        while not Path("run/metrics.jsonl").stat().st_size:
            time.sleep(0.05)
        for _ in range(3):
            done = run("diagnose", "run")
            assert done.returncode == 0, done.stderr
    finally:
        process.kill()
        process.communicate()
