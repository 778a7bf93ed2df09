"""Runs that are stopped, killed and resumed from the command line, in processes of their own."""

import importlib.util
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from functional_lm.cli.main import main
from functional_lm.runs import load_checkpoint, open_run, read_metrics

pytestmark = pytest.mark.skipif(os.name != "posix", reason="needs POSIX signals")

COMMAND = Path(sys.executable).with_name("functional-lm")


@pytest.fixture
def endless(text, tmp_path):
    """A run that would never end, after its third step; killed when the test is over."""
    arguments = ["--text-file", text, "--out", tmp_path / "run", "--steps", "1000000"]
    arguments += ["--log-every", "1", "--seq-len", "16", "--d-model", "16", "--n-heads", "2"]
    with subprocess.Popen(
        [COMMAND, "train", *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        while "step 3" not in process.stdout.readline():
            assert process.poll() is None
        yield process
        process.kill()


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_the_first_signal_ends_the_step_and_saves(endless, tmp_path, number, status):
    endless.send_signal(number)
    said, complaint = endless.communicate(timeout=300)
    assert endless.returncode == status
    assert complaint.strip() == f"{number.name}: stops after this step; a second one stops at once"
    step = int(said.split("interrupted: step ")[1].split(" ")[0].replace(",", ""))
    newest = max((tmp_path / "run" / "checkpoints").iterdir())
    assert load_checkpoint(newest).metadata["step"] == step
    assert len(read_metrics(tmp_path / "run" / "metrics.jsonl")) == step
    assert f"functional-lm train --resume {tmp_path / 'run'}" in said
    params = open_run(tmp_path / "run").params
    assert params["norm"]["scale"].any()


def test_a_signal_during_the_final_validation_leaves_a_complete_run(text, tmp_path):
    text.write_text(text.read_text() * 1000)
    arguments = ["--text-file", text, "--out", tmp_path / "run", "--steps", "20", "--seq-len", "4"]
    arguments += ["--d-model", "8", "--n-heads", "2", "--n-layers", "1", "--eval-tokens", "9999"]
    with subprocess.Popen(
        [COMMAND, "train", *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        while "saved in" not in process.stdout.readline():
            assert process.poll() is None
        process.send_signal(signal.SIGINT)
        said, complaint = process.communicate(timeout=300)
    assert process.returncode == 130
    assert complaint.strip() == (
        "SIGINT: ends the validation; the run is complete; a second one stops at once"
    )
    assert said.startswith(f"not validated; functional-lm evaluate {tmp_path / 'run'} does it")
    assert not (tmp_path / "run" / "evaluation.json").exists()
    assert len(read_metrics(tmp_path / "run" / "metrics.jsonl")) == 20
    assert main(["generate", str(tmp_path / "run"), "--max-new-tokens", "1"]) == 0


def test_the_second_signal_ends_at_once_and_the_last_checkpoint_is_whole(endless, tmp_path):
    endless.send_signal(signal.SIGSTOP)  # so that both are there when it goes on
    endless.send_signal(signal.SIGINT)
    endless.send_signal(signal.SIGTERM)
    endless.send_signal(signal.SIGCONT)
    said, complaint = endless.communicate(timeout=300)
    assert endless.returncode in (130, 143)
    assert "stopped at once; the last checkpoint is intact" in complaint
    assert "saved" not in said
    for path in (tmp_path / "run" / "checkpoints").iterdir():
        load_checkpoint(path)


def test_a_second_run_on_a_folder_is_told_who_is_there(endless, tmp_path):
    done = subprocess.run(
        [COMMAND, "train", "--resume", tmp_path / "run"], capture_output=True, text=True
    )
    assert done.returncode == 2
    assert f"is held by process {endless.pid} on " in done.stderr
    assert done.stdout == ""  # before the text was read
    done = subprocess.run(
        [COMMAND, "train", "--overwrite", "--out", tmp_path / "run"], capture_output=True, text=True
    )
    assert f"is held by process {endless.pid} on " in done.stderr
    endless.kill()
    endless.wait()
    assert main(["train", "--resume", str(tmp_path / "run"), "--steps", "1"]) == 0  # it is free


def test_a_run_is_made_longer(train, tmp_path, capsys):
    assert train(tmp_path / "run") == 0
    capsys.readouterr()
    assert main(["train", "--resume", str(tmp_path / "run")]) == 0
    assert "after step 20, its last; extend it with --steps" in capsys.readouterr().out
    assert main(["train", "--resume", str(tmp_path / "run"), "--steps", "25"]) == 0
    said = capsys.readouterr()
    assert "warning: steps was 20 and is 25" in said.err
    assert "5 steps in" in said.out
    assert len(read_metrics(tmp_path / "run" / "metrics.jsonl")) == 25


def test_a_full_disk_ends_the_run_and_the_checkpoint_before_stays(text, tmp_path):
    """A file may grow to 30 kB only: less than metrics.jsonl will need, more than a checkpoint."""
    out = tmp_path / "run"
    arguments = ["--text-file", text, "--out", out, "--steps", "100000", "--seq-len", "4"]
    arguments += ["--batch-size", "1", "--d-model", "8", "--n-heads", "1", "--n-layers", "1"]
    arguments += ["--statistics-every", "0", "--eval-every", "100000"]

    limit = (
        "import os, resource, signal, sys\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, 30_000))\n"
        "os.execv(sys.argv[1], sys.argv[1:])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", limit, COMMAND, "train", *arguments], capture_output=True, text=True
    )
    assert done.returncode == 1
    assert "cannot save: [Errno 27] File too large" in done.stderr
    assert f"functional-lm train --resume {out}" in done.stderr
    assert "Traceback" not in done.stderr
    for path in (out / "checkpoints").iterdir():
        load_checkpoint(path)
    steps = load_checkpoint(max((out / "checkpoints").iterdir())).metadata["step"]
    done = subprocess.run(
        [COMMAND, "train", "--resume", out, "--steps", str(steps + 2)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert f"resumed     after step {steps:,}" in done.stdout
    assert len(read_metrics(out / "metrics.jsonl")) == steps + 2


def test_a_run_on_a_full_file_system(train, small_disk, capsys):
    disk = small_disk("400k")
    out = disk / "run"
    settings = ["--d-model", "24", "--n-layers", "1", "--checkpoint-every", "1"]
    (disk / "ballast").write_bytes(bytes(360_000))
    assert train(out, *settings) == 2
    assert "No space left on device" in capsys.readouterr().err
    assert [path.name for path in disk.iterdir()] == ["ballast"]  # it was not begun
    (disk / "ballast").write_bytes(bytes(120_000))  # room for two checkpoints
    assert train(out, *settings) == 1
    said = capsys.readouterr().err
    assert "cannot save: [Errno 28] No space left on device" in said
    assert f"functional-lm train --resume {out}" in said
    (disk / "ballast").unlink()
    newest = max((out / "checkpoints").iterdir())
    step = load_checkpoint(newest).metadata["step"]
    assert [path for path in out.rglob(".*") if path.name != ".lock"] == []
    assert main(["train", "--resume", str(out), "--steps", str(step + 1)]) == 0
    assert f"resumed     after step {step}" in capsys.readouterr().out


def test_a_model_of_ones_own_is_resumed_from_its_copy(train, model_file, tmp_path, capsys):
    assert train(tmp_path / "run", "--model", f"{model_file}:model") == 0
    model_file.unlink()
    assert main(["train", "--resume", str(tmp_path / "run"), "--steps=22"]) == 0
    assert "resumed     after step 20" in capsys.readouterr().out


@pytest.mark.skipif(not importlib.util.find_spec("tensorboardX"), reason="needs tensorboardX")
def test_event_files_go_on_in_a_resumed_run(train, tmp_path):
    run = tmp_path / "run"
    assert train(run, "--tensorboard") == 0
    assert main(["train", "--resume", str(run), "--steps", "22", "--tensorboard"]) == 0
    assert len(list((run / "tensorboard").iterdir())) == 2
