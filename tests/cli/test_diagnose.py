import json
import math

import pytest

from functional_lm.cli.main import main


@pytest.fixture
def write(tmp_path):
    """Return a function that writes the records of a run that falls from ln 65 to 2."""

    def make(changes=None):
        records = []
        for step in range(1, 301):
            loss = 2 + (math.log(65) - 2) * math.exp(-step / 80)
            record = {"step": step, "loss": loss, "lr": 3e-3, "grad_norm": 0.8}
            records.append(json.dumps(record | (changes or {}).get(step, {})))
        folder = tmp_path / "made"
        folder.mkdir()
        (folder / "config.json").write_text(json.dumps({"model": {"vocab_size": 65}}))
        (folder / "metrics.jsonl").write_text("\n".join(records) + "\n")
        return folder

    return make


def test_a_healthy_run(write, run_folder, capsys):
    assert main(["diagnose", str(write())]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "300 steps, loss 4.147 to 2.071 (mean of the last 50) nothing found" in said
    assert "looked for divergence, corrupted data" in said
    assert "no record has statistics" in said
    assert "not for overfitting: no record has val_loss" in said
    assert main(["diagnose", str(run_folder)]) == 0
    assert "nothing found" in capsys.readouterr().out


def test_findings_for_people_and_for_machines(write, capsys):
    changes = {step: {"loss": 6.0} for step in range(150, 170)}
    folder = write(changes | {5: {"loss": None, "fault": "the loss is nan"}})
    assert main(["diagnose", str(folder)]) == 0
    said = capsys.readouterr().out
    assert "warning  corrupted data, steps 150 to 169\n" in said
    assert "warning  skipped updates, step 5\n" in said
    assert "At step 150 the loss jumped from 2.3" in said
    assert said.count("Remedy: ") == 2
    assert max(map(len, said.splitlines()[1:])) <= 80
    assert "nothing found" not in said
    assert main(["diagnose", str(folder), "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert list(said) == ["steps", "findings", "looked_for", "not_looked_for"]
    assert said["steps"] == 300
    first, second = said["findings"]
    assert set(first) == {"name", "severity", "steps", "evidence", "remedy"}
    assert (first["name"], first["steps"]) == ("corrupted data", [150, 169])
    assert second["name"] == "skipped updates"
    assert not set(said["looked_for"]) & set(said["not_looked_for"])


@pytest.mark.parametrize(
    ("file", "content", "says"),
    [
        ("config.json", None, "must hold config.json"),
        ("metrics.jsonl", None, "must hold metrics.jsonl"),
        ("config.json", "[]", "is not the config of a run"),
        ("metrics.jsonl", "", "must have made a step"),
        ("metrics.jsonl", "no\n", "line 1"),
    ],
)
def test_damaged_runs_are_named(write, capsys, file, content, says):
    path = write() / file
    path.unlink() if content is None else path.write_text(content)
    assert main(["diagnose", str(path.parent)]) == 2
    assert says in capsys.readouterr().err
