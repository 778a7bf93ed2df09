import json
import math
import os
import subprocess
import sys

import numpy as np
import pytest

from functional_lm.compose import serial
from functional_lm.files import FileFormatError
from functional_lm.layers import embedding, unembedding
from functional_lm.runs import (
    Intervals,
    RunLockedError,
    Session,
    load_weights,
    open_run,
    read_metrics,
)
from functional_lm.runs.background import BackgroundWriter
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
    report = runtime.report()._replace(kernel="Prescott", blas_threads=1)
    monkeypatch.setattr(runtime, "report", lambda: report)
    with resume(folder) as session:
        (note,) = session.notes
    assert "BLAS kernel was" in note
    assert "is Prescott" in note
    assert "the last bits differ" in note


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
    from functional_lm.runs import session

    folder = tmp_path / "run"
    train(start(folder), until=2)
    before = content(folder)

    def fail(*arguments, **keywords):
        raise OSError("no space")

    monkeypatch.setattr(session, "save_state", fail)
    with pytest.raises(OSError, match="no space"):
        Session.start(folder, build(), overwrite=True)
    assert content(folder) == before
    assert list(tmp_path.iterdir()) == [folder]


def test_what_killed_starts_left_is_removed(tmp_path):
    gone = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"],
                          capture_output=True, text=True, check=True).stdout.strip()  # fmt: skip
    (tmp_path / f".run.new-{gone}").mkdir()
    (tmp_path / f".run.new-{os.getppid()}").mkdir()  # of a process that lives
    train(start(tmp_path / "run"), until=1)
    assert sorted(path.name for path in tmp_path.iterdir()) == [f".run.new-{os.getppid()}", "run"]


def test_a_run_killed_between_two_renames_gets_its_name_back(tmp_path):
    gone = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"],
                          capture_output=True, text=True, check=True).stdout.strip()  # fmt: skip
    train(start(tmp_path / "run"), until=1)
    (tmp_path / "run").rename(tmp_path / f".run.old-{gone}")
    with pytest.raises(FileExistsError, match="holds one"):
        start(tmp_path / "run")
    with resume(tmp_path / "run") as session:
        assert session.state.step == 1


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
    params = load_weights(tmp_path / "run" / "last.safetensors", session.state.params)
    assert all(np.isfinite(params[name]["weight"]).all() for name in params)
    assert session.state.step == 5


def test_an_error_of_the_disk_ends_the_run_and_the_checkpoints_stay(tmp_path, monkeypatch):
    folder = tmp_path / "run"
    session = start(folder)
    from functional_lm.runs import session as module

    good = module.save_state

    def fail(run, state, **keywords):
        if state.step > 3:
            raise OSError(28, "No space left on device")
        return good(run, state, **keywords)

    monkeypatch.setattr(module, "save_state", fail)
    with pytest.raises(OSError, match="No space left"), session:
        list(session.train())
    monkeypatch.undo()
    with resume(folder) as session:
        assert session.state.step == 3


def test_damaged_settings_or_no_checkpoint(tmp_path):
    folder = tmp_path / "run"
    train(start(folder), until=1)
    for path in (folder / "checkpoints").iterdir():
        path.write_bytes(b"")
    with pytest.raises(FileFormatError, match="has no checkpoint that can be read"):
        resume(folder)


def test_the_best_weights_are_the_models(straight):
    run = open_run(straight)
    assert run.settings["training"]["steps"] == 12
    with pytest.raises(ValueError, match="eval_every must be at least 1"):
        Intervals(eval_every=0)
