import json

import pytest

from functional_lm.training import MetricsFile, TrainState, TrainStep, read_metrics, record_of

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


def test_a_file_grows_line_by_line(tmp_path):
    path = tmp_path / "metrics.jsonl"
    metrics = MetricsFile(path)
    assert path.read_text() == ""
    metrics.append({"step": 1, "loss": 2.0}, flush=True)
    assert read_metrics(path) == [{"step": 1, "loss": 2.0}]
    metrics.append({"step": 2, "loss": float("nan"), "grad_norm": float("inf")}, flush=False)
    metrics.close()
    assert read_metrics(path)[1] == {"step": 2, "loss": None, "grad_norm": None}
    assert all(json.loads(line) for line in path.read_text().splitlines())


def test_a_line_that_is_no_json_is_named(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\n{"step": \n')
    with pytest.raises(ValueError, match=r"metrics\.jsonl line 2 is not JSON"):
        read_metrics(path)
