import json
import os

import pytest

from functional_lm.files import FileFormatError
from functional_lm.runs import MetricsFile, read_metrics, record_of
from functional_lm.training import TrainState, TrainStep

STEP = TrainStep(TrainState(7, {}, ()), loss=2.5, grad_norm=0.5, seconds=0.02)


def test_a_record():
    assert record_of(STEP, lr=1e-3, tokens=1000) == {
        "step": 7,
        "loss": 2.5,
        "lr": 1e-3,
        "grad_norm": 0.5,
        "step_ms": 20.0,
        "tokens_per_second": 50_000,
    }


def test_a_record_of_a_step_that_was_left_out():
    step = STEP._replace(loss=float("nan"), fault="step 7, batch 6: the loss is nan", inspected={})
    record = record_of(step, lr=1e-3, tokens=1000)
    assert record["fault"] == "step 7, batch 6: the loss is nan"
    assert record["statistics"] == {}


def test_a_file_grows_line_by_line(tmp_path):
    path = tmp_path / "metrics.jsonl"
    metrics = MetricsFile(path)
    assert path.read_text() == ""
    metrics.append({"step": 1, "loss": 2.0}, flush=True)
    assert read_metrics(path) == [{"step": 1, "loss": 2.0}]
    record = {"step": 2, "loss": float("nan"), "of": {"leaf": [float("inf"), 1.5]}}
    written = {"step": 2, "loss": None, "of": {"leaf": [None, 1.5]}}
    assert metrics.append(record, flush=False) == written
    metrics.close()
    assert read_metrics(path)[1] == written
    assert all(json.loads(line) for line in path.read_text().splitlines())


@pytest.mark.parametrize(
    ("lines", "kept", "damaged"),
    [
        ([], [1, 2], ""),
        (['{"step": 3, "lo'], [1, 2], ""),
        (['{"step": 3}\n', '{"step": 4}\n'], [1, 2, 3], ""),
        (['{"step": 2, "again": 1}\n', '{"step": 3}'], [1, 2, 3], ""),
        (["\0\n", '{"step": 3}\n', "[]\n"], [1, 2, 3], "\0\n[]\n"),
        (['{"step": "3"}\n', '{"step": 0}\n'], [1, 2], '{"step": "3"}\n{"step": 0}\n'),
    ],
)
def test_a_file_goes_on_after_a_step(tmp_path, lines, kept, damaged):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\n{"step": 2}\n' + "".join(lines))
    metrics = MetricsFile(path, keep=3)
    assert [record["step"] for record in metrics.records] == kept
    metrics.append({"step": 4}, flush=True)
    metrics.sync()
    metrics.close()
    assert [record["step"] for record in read_metrics(path)] == [*kept, 4]
    assert (metrics.damaged is None) == (damaged == "")
    if damaged:
        assert metrics.damaged.read_text() == damaged


def test_a_record_that_cannot_be_written_leaves_no_part(tmp_path, monkeypatch):
    metrics = MetricsFile(tmp_path / "metrics.jsonl")
    metrics.append({"step": 1}, flush=False)
    write = os.write

    def full(descriptor, data):
        monkeypatch.setattr(os, "write", fail)
        return write(descriptor, data[:5])

    def fail(descriptor, data):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(OSError, match="No space"):
        metrics.append({"step": 2}, flush=True)
    assert (tmp_path / "metrics.jsonl").read_bytes() == b""
    monkeypatch.undo()
    metrics.close()
    assert read_metrics(tmp_path / "metrics.jsonl") == [{"step": 1}]


def test_a_torn_last_line_is_left_out_and_any_other_is_named(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\n{"step": ')
    assert read_metrics(path) == [{"step": 1}]
    path.write_text('{"step": 1}\n{"step": \n')
    with pytest.raises(FileFormatError, match=r"metrics\.jsonl line 2 must hold JSON"):
        read_metrics(path)
    path.write_text('{"step": 1}\n5\n')
    with pytest.raises(FileFormatError, match=r"metrics\.jsonl line 2 is no record"):
        read_metrics(path)
