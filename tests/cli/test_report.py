import re

import pytest

pytest.importorskip("matplotlib")
pytest.importorskip("jinja2")

from functional_lm.cli.main import main
from functional_lm.reports import page
from functional_lm.reports.plots import figures


def written(folder, *flags):
    """Return the page of a folder."""
    assert main(["report", str(folder), *flags]) == 0
    return (folder / "report.html").read_text(encoding="utf-8")


def test_a_trained_run_has_a_page(run_folder, capsys, monkeypatch):
    # All panels are drawn, but two of them are enough to encode: test_page does it with all.
    monkeypatch.setattr(page, "figures", lambda *a, **k: iter([*figures(*a, **k)][:2]))
    text = written(run_folder)
    said = capsys.readouterr()
    assert said.out.splitlines()[-1] == f"written to {run_folder / 'report.html'}"
    assert said.err == ""
    assert "<h1>llama on text.txt <small>run</small></h1>" in text
    assert "<th>steps</th><td>20</td>" in text
    assert "<th>min_lr</th><td>0.0003</td>" in text
    assert "null" not in text
    assert "<th>d_model</th><td>16</td>" in text
    assert re.search(r"<dt>parameters</dt><dd>[\d,]+ ", text)
    sample = (run_folder / "sample.txt").read_text().partition("\n")[2].strip()
    assert "<summary>Step 20</summary>" in text
    assert sample.splitlines()[0] in text
    (run_folder / "last.safetensors").write_bytes(b"damaged")
    (run_folder / "metrics.jsonl").write_text('{"step": 1, "loss": 4.0}\n')
    assert "<dt>parameters" not in written(run_folder)  # which replaces the earlier page


def test_a_folder_with_nothing_but_records_has_a_page(tmp_path):
    record = '{"step": 1, "loss": 4.0, "fault": "the loss is nan"}\n'
    (tmp_path / "metrics.jsonl").write_text(record)
    text = written(tmp_path)
    assert "No settings were recorded." in text
    assert "No samples were recorded." in text
    assert "skipped updates <small>step 1</small>" in text
    assert "bad initialisation" not in text
    (tmp_path / "config.json").write_text('{"model": {"vocab_size": 2}}')
    assert "bad initialisation <small>step 1</small>" in written(tmp_path)
