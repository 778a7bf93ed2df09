import json
import math

import pytest

from functional_lm.cli.main import main


def write(folder, changes=None, steps=300):
    """Leave the records of a run that falls from ln 65 to 2, with changes by step."""
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"model": {"vocab_size": 65}}))
    records = []
    for step in range(1, steps + 1):
        loss = 2 + (math.log(65) - 2) * math.exp(-step / 80)
        record = {"step": step, "loss": loss, "lr": 3e-3, "grad_norm": 0.8}
        records.append(json.dumps(record | (changes or {}).get(step, {})))
    (folder / "metrics.jsonl").write_text("\n".join(records) + "\n")
    return folder


@pytest.fixture
def spoiled(tmp_path):
    changes = {step: {"loss": 6.0} for step in range(150, 170)}
    return write(tmp_path / "spoiled", changes | {5: {"loss": None, "fault": "the loss is nan"}})


def test_a_run_in_order(tmp_path, capsys):
    assert main(["diagnose", str(write(tmp_path / "run"))]) == 0
    said = capsys.readouterr().out
    assert "300 steps, loss 4.147 to 2.051" in said
    assert "nothing found" in said
    assert "looked   for divergence, corrupted data" in said
    assert "no record has statistics" in " ".join(said.split())
    assert "not      for overfitting: no record has val_loss" in said


def test_findings_have_evidence_and_remedies(spoiled, capsys):
    assert main(["diagnose", str(spoiled)]) == 0
    said = capsys.readouterr().out
    assert "warning  corrupted data, steps 150 to 169\n" in said
    assert "warning  skipped updates, step 5\n" in said
    assert "At step 150 the loss jumped from 2.3" in said
    assert said.count("Remedy: ") == 2
    lines = said.splitlines()
    assert max(map(len, lines[1:])) <= 80
    assert "nothing found" not in said


def test_for_machines(spoiled, capsys):
    assert main(["diagnose", str(spoiled), "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert list(said) == ["steps", "findings", "looked_for", "not_looked_for"]
    assert said["steps"] == 300
    names = [finding["name"] for finding in said["findings"]]
    assert names == ["corrupted data", "skipped updates"]
    assert said["findings"][0]["steps"] == [150, 169]
    assert set(said["findings"][0]) == {"name", "severity", "steps", "evidence", "remedy"}
    assert not set(said["looked_for"]) & set(said["not_looked_for"])


def test_a_real_run(run_folder, capsys):
    assert main(["diagnose", str(run_folder)]) == 0
    assert "nothing found" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda folder: (folder / "config.json").unlink(), "must hold config.json"),
        (lambda folder: (folder / "metrics.jsonl").unlink(), "must hold metrics.jsonl"),
        (lambda folder: (folder / "config.json").write_text("[]"), "is not the config of a run"),
        (lambda folder: (folder / "metrics.jsonl").write_text(""), "must have made a step"),
        (lambda folder: (folder / "metrics.jsonl").write_text("no\n"), "line 1"),
    ],
)
def test_what_is_no_run_is_named(tmp_path, capsys, damage, says):
    folder = write(tmp_path / "run")
    damage(folder)
    assert main(["diagnose", str(folder)]) == 2
    assert says in capsys.readouterr().err
