import json

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


@pytest.mark.parametrize("tail", ["", '{"step": 3, "lo', '{"step": 3}\n{"step": 4}\n', "\0\n"])
def test_a_file_goes_on_after_a_step(tmp_path, tail):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\n{"step": 2}\n' + tail)
    metrics = MetricsFile(path, keep=2)
    assert metrics.kept == [{"step": 1}, {"step": 2}]
    metrics.append({"step": 3}, flush=True)
    metrics.sync()
    metrics.close()
    assert path.read_text() == '{"step": 1}\n{"step": 2}\n{"step": 3}\n'


@pytest.mark.parametrize(
    "lines", ['{"step": 1}\n{"step": 3}\n', '{"step": 1}\n[]\n', '{"step": 1}']
)
def test_only_steps_without_a_gap_are_kept(tmp_path, lines):
    path = tmp_path / "metrics.jsonl"
    path.write_text(lines)
    metrics = MetricsFile(path, keep=3)
    metrics.close()
    assert metrics.kept == [{"step": 1}]
    assert path.read_text() == '{"step": 1}\n'


def test_a_torn_last_line_is_left_out_and_any_other_is_named(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\n{"step": ')
    assert read_metrics(path) == [{"step": 1}]
    path.write_text('{"step": 1}\n{"step": \n')
    with pytest.raises(FileFormatError, match=r"metrics\.jsonl line 2 is damaged: it is not JSON"):
        read_metrics(path)
    path.write_text('{"step": 1}\n5\n')
    with pytest.raises(FileFormatError, match=r"metrics\.jsonl line 2 is no record"):
        read_metrics(path)
