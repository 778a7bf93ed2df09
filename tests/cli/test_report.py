import re
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

pytest.importorskip("matplotlib")

from functional_lm.cli.main import main


def test_a_trained_run_has_a_page(run_folder, capsys):
    for _ in range(2):  # an earlier page is replaced
        assert main(["report", str(run_folder)]) == 0
    said = capsys.readouterr()
    page = run_folder / "report.html"
    assert said.out.splitlines()[-1] == f"written to {page}"
    assert said.err == ""
    text = page.read_text(encoding="utf-8")
    assert "<h1>run</h1>" in text
    assert "<th>d_model</th><td>16</td>" in text
    assert re.search(r"<dt>parameters</dt><dd>[\d,]+ ", text)
    sample = (run_folder / "sample.txt").read_text().partition("\n")[2].strip()
    assert "<summary>Step 20</summary>" in text
    assert sample.splitlines()[0] in text


def test_a_folder_with_nothing_but_records_has_a_page(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("metrics.jsonl").write_text('{"step": 1, "loss": 4.0}\n')
    assert main(["report", ".", "--out", "page.html"]) == 0
    text = Path("page.html").read_text(encoding="utf-8")
    assert "No settings were recorded." in text
    assert "No samples were recorded." in text


def test_samples_are_those_of_the_records_or_else_of_the_file(tmp_path):
    (tmp_path / "sample.txt").write_text("--- step 7\nfrom\nthe file\n\n--- step 1,0\n")
    expected = {
        '{"step": 1}': 'Step 7</summary><pre dir="auto">from\nthe file',
        '{"step": 1, "sample": "its own"}': 'Step 1</summary><pre dir="auto">its own',
    }
    for record, shown in expected.items():
        (tmp_path / "metrics.jsonl").write_text(record + "\n")
        assert main(["report", str(tmp_path)]) == 0
        assert shown in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_damaged_weights_do_not_matter(run_folder):
    (run_folder / "last.safetensors").write_bytes(b"damaged")
    assert main(["report", str(run_folder)]) == 0
    text = (run_folder / "report.html").read_text(encoding="utf-8")
    assert "<dt>parameters" not in text


def test_the_diagnosis_is_asked_with_the_vocabulary(run_folder, monkeypatch):
    asked = []

    def diagnose(records, *, vocab_size):
        asked.append((len(records), vocab_size))
        words = {"name": "too fast", "evidence": "it jumps", "remedy": "slow down"}
        return [SimpleNamespace(severity="error", steps=(1, 9), **words)]

    module = SimpleNamespace(diagnose=diagnose)
    monkeypatch.setitem(sys.modules, "functional_lm.health", module)
    assert main(["report", str(run_folder)]) == 0
    assert asked == [(20, 29)]
    text = (run_folder / "report.html").read_text(encoding="utf-8")
    assert "<b>error</b> too fast <small>steps 1 to 9</small>" in text
    assert "it jumps" in text
    assert "slow down" in text
