import json
import math
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from functional_lm import pytree
from functional_lm.compose import serial
from functional_lm.files import FileFormatError
from functional_lm.layers import embedding, unembedding
from functional_lm.runs import (
    Intervals,
    MetricsFile,
    RunLockedError,
    Session,
    load_checkpoint,
    open_run,
    read_metrics,
)
from functional_lm.runs import folder as module_of_folder
from functional_lm.runs import session as module_of_session
from functional_lm.runs.background import BackgroundWriter
from functional_lm.runs.identity import expect_same_run, identity
from functional_lm.training import Experiment, TrainConfig

TEXT = "the quick brown fox jumps over the lazy dog.\n" * 40
SIZES = {"d_model": 16, "n_heads": 2, "n_layers": 1, "dropout": 0.1}
SETTINGS = {"steps": 12, "batch_size": 4, "seq_len": 16, "shards": 2}
INTERVALS = Intervals(eval_every=5, checkpoint_every=3, statistics_every=4, sample_every=6)
TIMES = ("step_ms", "tokens_per_second")


def build(text=TEXT, sizes=SIZES, **changes):
    return Experiment.build(text, TrainConfig(**SETTINGS | changes), sizes=sizes)


def start(folder, **changes):
    return Session.start(folder, build(**changes), intervals=INTERVALS)


def resume(folder, **changes):
    return Session.resume(folder, build(**changes), intervals=INTERVALS)


def train(session, until=math.inf):
    with session:
        for record in session.train():
            if record["step"] >= until:
                break
    return session


def content(folder):
    """Return the bytes of every file, the metrics without their times."""
    found = {}
    for path in folder.rglob("*"):
        if path.is_file() and path.name not in (".lock", "metrics.jsonl"):
            found[str(path.relative_to(folder))] = path.read_bytes()
    records = read_metrics(folder / "metrics.jsonl")
    found["metrics"] = [{k: v for k, v in r.items() if k not in TIMES} for r in records]
    return found


@pytest.fixture(scope="module", autouse=True)
def _nothing_is_left_out():
    """Write at once: in the background, a slow disk leaves some checkpoints out."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(BackgroundWriter, "submit", lambda self, kind, write: write())
        yield


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "straight"
    train(start(folder))
    return folder


def test_what_a_run_leaves(straight):
    assert sorted(str(path.relative_to(straight)) for path in straight.rglob("*")) == [
        ".lock",
        "checkpoints",
        "checkpoints/step-00000010.safetensors",
        "checkpoints/step-00000012.safetensors",
        "config.json",
        "last.safetensors",
        "metrics.jsonl",
        "model.safetensors",
        "sample.txt",
        "tokenizer.json",
    ]
    records = read_metrics(straight / "metrics.jsonl")
    assert [r["step"] for r in records if "val_loss" in r] == [5, 10, 12]
    assert [r["step"] for r in records if "sample" in r] == [6, 12]
    assert [r["step"] for r in records if "statistics" in r] == [1, 4, 8, 12]
    assert (straight / "sample.txt").read_text().startswith("--- step 6\n")


@pytest.mark.parametrize("stops", [[1], [3], [5, 6], [2, 4, 10], [12]])
def test_a_run_that_is_stopped_and_resumed_has_the_bits_of_one_that_is_not(
    straight, tmp_path, stops
):
    folder = tmp_path / "run"
    train(start(folder), until=stops[0])
    for stop in stops[1:]:
        train(resume(folder), until=stop)
    assert train(resume(folder)).notes == []
    assert content(folder) == content(straight)


@pytest.mark.parametrize(
    "settings",
    [
        {"optimizer": "muon", "normuon": True, "ema_decay": 0.8, "lr_schedule": "wsd"},
        {"optimizer": "lion", "gradient_accumulation_steps": 3},
        {"optimizer": "adafactor", "momentum": 0.5},
    ],
    ids=lambda settings: settings["optimizer"],
)
def test_every_optimizer_resumes_with_the_same_bits(tmp_path, settings):
    settings = {**settings, "steps": 7}
    train(start(tmp_path / "straight", **settings))
    train(start(tmp_path / "run", **settings), until=4)
    train(resume(tmp_path / "run", **settings))
    assert content(tmp_path / "run") == content(tmp_path / "straight")


def test_the_average_is_validated_and_saved_as_the_best(tmp_path):
    session = train(start(tmp_path / "run", ema_decay=0.8))
    average, last = session.state.averaged, session.state.params
    (record,) = (r for r in session.records if r["step"] == 12)
    assert record["val_loss"] == session.experiment.validation_loss(average)
    assert record["val_loss"] != session.experiment.validation_loss(last)
    assert session.best_step == 12
    for name, expected in (("model", average), ("last", last)):
        found = load_file(tmp_path / "run" / f"{name}.safetensors")
        for path, leaf in pytree.leaves_with_path(expected):
            np.testing.assert_array_equal(found[path], leaf)


def test_what_was_written_after_the_last_checkpoint_is_made_anew(straight, tmp_path):
    folder = tmp_path / "run"
    train(start(folder), until=9)
    for number in (9, 6):  # as if killed before they were written: back to 5
        path = folder / "checkpoints" / f"step-{number:08}.safetensors"
        if path.exists() and number != 5:
            path.unlink()
    with (folder / "metrics.jsonl").open("a") as file:
        file.write('{"step": 10, "lo')
    session = train(resume(folder))
    assert session.notes == []
    assert content(folder) == content(straight)


def test_a_damaged_checkpoint_gives_way_to_the_one_before(straight, tmp_path):
    folder = tmp_path / "run"
    train(start(folder), until=9)
    path = folder / "checkpoints" / "step-00000009.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    session = train(resume(folder))
    assert "step-00000009.safetensors" in session.notes[0]
    (folder / "checkpoints" / "step-00000009.safetensors.damaged").unlink()
    assert content(folder) == content(straight)


def test_a_kill_between_a_save_and_the_removal_of_older_ones(straight, tmp_path):
    folder = tmp_path / "run"
    train(start(folder), until=9)
    older = (folder / "checkpoints" / "step-00000009.safetensors").read_bytes()
    train(resume(folder))
    (folder / "checkpoints" / "step-00000009.safetensors").write_bytes(older)
    train(resume(folder))
    assert content(folder) == content(straight)


def test_a_run_can_be_made_longer(straight, tmp_path):
    folder = tmp_path / "run"
    train(start(folder))
    session = train(resume(folder, steps=15))
    assert "steps was 12 and is 15" in session.notes[0]
    assert session.state.step == len(read_metrics(folder / "metrics.jsonl")) == 15
    assert json.loads((folder / "config.json").read_text())["training"]["steps"] == 15


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"lr": 1.0}, r"but for steps and epochs: lr was 0.003 and is 1.0"),
        ({"sizes": {**SIZES, "dropout": 0.2}}, "dropout was 0.1 and is 0.2"),
        ({"text": TEXT + "."}, "needs the text that it began with"),
        ({"sizes": {**SIZES, "n_layers": 2}}, "n_layers was 1 and is 2"),
    ],
)
def test_another_run_is_refused_and_nothing_is_changed(straight, changes, says):
    before = content(straight)
    with pytest.raises(ValueError, match=says):
        resume(straight, **changes)
    assert content(straight) == before
    resume(straight).close()  # and the folder is free


def test_other_versions_are_a_note(tmp_path, monkeypatch):
    from functional_lm.speed import runtime

    folder = tmp_path / "run"
    train(start(folder), until=1)
    other = runtime.info()._replace(kernel="Prescott", blas_threads=1)
    monkeypatch.setattr(runtime, "info", lambda: other)
    with resume(folder) as session:
        (note,) = session.notes
    assert "BLAS kernel was" in note
    assert "is Prescott" in note
    assert "the last bits differ" in note


def test_a_setting_that_is_newer_than_the_run_had_its_default():
    before = identity(build())
    del before["settings"]["label_smoothing"], before["config"]["norm_eps"]
    assert expect_same_run(before, build()) == []
    with pytest.raises(ValueError, match=r"label_smoothing was 0\.0 and is 0\.1"):
        expect_same_run(before, build(label_smoothing=0.1))
    other = build(sizes=SIZES | {"norm_eps": 0.1})
    with pytest.raises(ValueError, match=r"norm_eps was 1e-06 and is 0\.1"):
        expect_same_run(before, other)


def test_the_folder_is_taken_until_it_is_closed(tmp_path):
    session = start(tmp_path / "run")
    with pytest.raises(RunLockedError, match=f"held by process {os.getpid()}"):
        resume(tmp_path / "run")
    with pytest.raises(RunLockedError):
        Session.start(tmp_path / "run", build(), overwrite=True)
    session.close()
    resume(tmp_path / "run").close()


def test_a_run_is_overwritten_only_on_demand_and_nothing_else_ever(tmp_path):
    folder = tmp_path / "run"
    train(start(folder), until=2)
    with pytest.raises(FileExistsError, match=r"--resume .* replace it with --overwrite"):
        start(folder)
    train(Session.start(folder, build(seed=1), overwrite=True), until=1)
    assert len(read_metrics(folder / "metrics.jsonl")) == 1
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").touch()
    with pytest.raises(FileExistsError, match="must be new"):
        Session.start(tmp_path / "mine", build(), overwrite=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine", "run"]


def test_a_failed_start_leaves_nothing_and_the_old_run(tmp_path, monkeypatch):
    folder = tmp_path / "run"
    train(start(folder), until=2)
    before = content(folder)

    def fail(*arguments, **keywords):
        raise OSError("no space")

    monkeypatch.setattr(module_of_session, "save_state", fail)
    with pytest.raises(OSError, match="no space"):
        Session.start(folder, build(), overwrite=True)
    assert content(folder) == before
    assert list(tmp_path.iterdir()) == [folder]


@pytest.mark.parametrize("left", ["new", "old", "new and old", "exchanged"])
def test_what_a_killed_start_left_is_cleaned_up(tmp_path, monkeypatch, left):
    """Whatever it left, its process id means nothing: only its lock would."""
    folder = tmp_path / "a [run]"
    train(start(folder), until=1)
    before = content(folder)
    if "new" in left:
        shutil.copytree(folder, tmp_path / ".a [run].new")
        (tmp_path / ".a [run].new" / "config.json").unlink()
    if "old" in left:
        folder.rename(tmp_path / ".a [run].old")
    if left == "exchanged":  # killed before the old run was removed
        shutil.copytree(folder, tmp_path / ".a [run].new")
    (tmp_path / ".a [run].starting").write_text('{"pid": 1, "host": ""}')
    (tmp_path / ".other.starting").touch()
    with pytest.raises(FileExistsError, match="holds one"):
        start(folder)
    assert content(folder) == before
    assert [path.name for path in tmp_path.iterdir()] == ["a [run]"]


def test_every_command_finds_a_run_whose_overwrite_was_killed(tmp_path):
    train(start(tmp_path / "run"), until=1)
    (tmp_path / "run").rename(tmp_path / ".run.old")
    assert open_run(tmp_path / "run").settings["training"]["steps"] == 12
    with resume(tmp_path / "run") as session:
        assert session.state.step == 1


def test_an_overwrite_without_an_exchange_of_names(tmp_path, monkeypatch):
    monkeypatch.setattr(module_of_folder, "_exchange", lambda one, other: False)
    train(start(tmp_path / "run"), until=2)
    train(Session.start(tmp_path / "run", build(), overwrite=True), until=1)
    assert len(read_metrics(tmp_path / "run" / "metrics.jsonl")) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_a_name_that_leads_elsewhere(tmp_path):
    train(start(tmp_path / "run"), until=2)
    (tmp_path / "link").symlink_to(tmp_path / "run")
    train(
        Session.start(tmp_path / "run" / ".." / "link", build(), overwrite=True),
        until=1,
    )
    assert (tmp_path / "link").is_symlink()
    assert len(read_metrics(tmp_path / "run" / "metrics.jsonl")) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link", "run"]


def test_a_folder_that_somebody_else_makes_meanwhile_is_not_touched(tmp_path, monkeypatch):
    def meanwhile(run, state, **keywords):
        (tmp_path / "run").mkdir()
        (tmp_path / "run" / "thesis.txt").touch()

    monkeypatch.setattr(module_of_session, "save_state", meanwhile)
    with pytest.raises(OSError, match=r"not empty|exists"):
        start(tmp_path / "run")
    assert [str(path.relative_to(tmp_path)) for path in sorted(tmp_path.rglob("*"))] == [
        "run",
        "run/thesis.txt",
    ]


@pytest.mark.parametrize("file", [".lock", "metrics.jsonl", "checkpoints"])
def test_no_link_is_followed(tmp_path, file):
    train(start(tmp_path / "run"), until=1)
    (tmp_path / "mine").mkdir()
    target = tmp_path / "mine" / "thesis.txt"
    target.write_text("mine")
    path = tmp_path / "run" / file
    path.rename(tmp_path / "aside")
    path.symlink_to(target.parent if file == "checkpoints" else target)
    with pytest.raises(FileFormatError, match="link"):
        resume(tmp_path / "run")
    assert target.read_text() == "mine"


RACE = """
import os, sys
sys.path.insert(0, sys.argv[1])
import test_session as t
print(t.Session.start(sys.argv[3] or None, t.build(seed=int(sys.argv[2]))).folder, flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize("name", ["", "run"])
def test_starts_at_the_same_moment(tmp_path, name):
    """Each has a run of its own, or with one name the first has it and the others say so."""
    program = [sys.executable, "-c", RACE, str(Path(__file__).parent)]
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    started = [
        subprocess.Popen([*program, str(seed), name], cwd=tmp_path, text=True, **pipes)
        for seed in range(3)
    ]
    folders = [process.stdout.readline().strip() for process in started]
    told = [process.communicate()[1] for process in started]
    got = [(seed, folder) for seed, folder in enumerate(folders) if folder]
    assert len({folder for _, folder in got}) == len(got) == (1 if name else 3), told
    for seed, folder in got:
        assert open_run(tmp_path / folder).settings["training"]["seed"] == seed
        (checkpoint,) = (tmp_path / folder / "checkpoints").iterdir()
        assert load_checkpoint(checkpoint).metadata["run"]["settings"]["seed"] == seed
    for folder, complaint in zip(folders, told, strict=True):
        assert folder or "is held by process" in complaint or "holds one" in complaint
    parent = tmp_path if name else tmp_path / "runs"
    assert len(list(parent.iterdir())) == len(got)


# A step is a transaction.


@pytest.mark.parametrize("fault", [OSError(28, "No space left on device"), KeyboardInterrupt()])
@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("call", ["validation", "sample", "append", "flush", "samples", "save"])
def test_a_step_that_is_interrupted_anywhere_is_made_again(
    straight, tmp_path, monkeypatch, fault, when, call
):
    owner, name = {
        "validation": (Experiment, "validation_loss"),
        "sample": (Experiment, "sample"),
        "append": (MetricsFile, "append"),
        "flush": (MetricsFile, "flush"),
        "samples": (Session, "_write_samples"),
        "save": (Session, "_save"),
    }[call]
    session = start(tmp_path / "run")
    function, calls = getattr(owner, name), 0

    def faulty(*arguments, **keywords):
        nonlocal calls
        calls += 1
        value = function(*arguments, **keywords) if calls != 2 or when == "after" else None
        if calls == 2:
            raise fault
        return value

    monkeypatch.setattr(owner, name, faulty)
    with session:
        with pytest.raises(type(fault)):
            list(session.train())
        if isinstance(fault, KeyboardInterrupt):  # as in a notebook, in the same session
            list(session.train())
    monkeypatch.undo()
    monkeypatch.setattr(BackgroundWriter, "submit", lambda self, kind, write: write())
    train(resume(tmp_path / "run"))
    found, expected = content(tmp_path / "run"), content(straight)
    for steps in (found, expected):  # which of the older ones are kept depends on the interruption
        steps.pop("checkpoints/step-00000010.safetensors", None)
    assert {name: found.get(name) for name in expected} == expected
    assert calls > 2 or isinstance(fault, OSError)


# A model whose gradient is not finite at chosen steps.


class Fragile:
    """An embedding and an unembedding that NaN befalls at some calls."""

    def __init__(self, bad):
        self.bad, self.calls = bad, 0
        self.model = serial(embedding=embedding, unembedding=unembedding)

    def init(self, key, *, vocab_size, d_model):
        return self.model.init(key, vocab_size=vocab_size, d_model=d_model)

    def forward(self, params, tokens):
        logits, residuals = self.model.forward(params, tokens)
        if tokens.shape == (4, 16):  # a batch, no validation
            self.calls += 1
            if self.calls in self.bad:
                logits = logits * np.float32(np.nan)
        return logits, residuals

    def vjp(self, residuals, g):
        return self.model.vjp(residuals, g)


def fragile(folder, *bad, steps=8):
    settings = TrainConfig(steps=steps, batch_size=4, seq_len=16, shards=1)
    experiment = Experiment.build(TEXT, settings, model=Fragile(bad), sizes={"d_model": 16})
    return Session.start(
        folder, experiment, intervals=Intervals(checkpoint_every=1, statistics_every=0)
    )


def test_a_batch_that_is_not_finite_changes_nothing_and_is_named(tmp_path):
    session = fragile(tmp_path / "run", 3, 5, 6)
    states = []
    with session, np.errstate(invalid="ignore"):
        for _ in session.train():
            states.append(session.state)
    for number in (3, 5, 6):
        before, after = states[number - 2], states[number - 1]
        assert after.params is before.params
        assert after.optimizer_state is before.optimizer_state
    assert [state.notfinite_count for state in states] == [0, 0, 1, 0, 1, 2, 0, 0]
    assert states[-1].total_notfinite == 3
    records = read_metrics(tmp_path / "run" / "metrics.jsonl")
    assert [r["step"] for r in records if "fault" in r] == [3, 5, 6]
    third = records[2]
    assert third["loss"] is None
    assert third["fault"].startswith("step 3, batch 2: the loss is nan and in the gradient ")
    assert "embedding.weight has" in third["fault"]
    # The learning rate is that of the updates made.
    schedule = session.experiment.schedule
    assert [r["lr"] for r in records] == [schedule(n) for n in (0, 1, 2, 2, 3, 3, 3, 4)]


def test_the_fourth_in_a_row_ends_the_run_with_a_good_checkpoint(tmp_path):
    session = fragile(tmp_path / "run", 3, 4, 5, 6)
    with (
        pytest.raises(
            FloatingPointError, match=r"4 batches in a row .*: step 6, batch 5: the loss"
        ),
        session,
        np.errstate(invalid="ignore"),
    ):
        list(session.train())
    params = load_checkpoint(tmp_path / "run" / "last.safetensors", like=session.state.params).tree
    assert all(np.isfinite(params[name]["weight"]).all() for name in params)
    assert session.state.step == 5


def test_an_error_of_the_disk_ends_the_run_and_the_checkpoints_stay(tmp_path, monkeypatch):
    folder = tmp_path / "run"
    session = start(folder)
    good = module_of_session.save_state

    def fail(run, state, **keywords):
        if state.step > 3:
            raise OSError(28, "No space left on device")
        return good(run, state, **keywords)

    monkeypatch.setattr(module_of_session, "save_state", fail)
    with pytest.raises(OSError, match="No space left"), session:
        list(session.train())
    monkeypatch.undo()
    with resume(folder) as session:
        assert session.state.step == 3


def test_the_best_weights_are_the_models(straight):
    run = open_run(straight)
    assert run.settings["training"]["steps"] == 12
    with pytest.raises(ValueError, match="eval_every must be at least 1"):
        Intervals(eval_every=0)
