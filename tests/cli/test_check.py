import json

import pytest

from functional_lm.cli.main import main
from functional_lm.layers import silu


def test_the_table_and_the_figures(tmp_path, capsys):
    path = tmp_path / "checks.json"
    assert main(["check", "rms_norm", "silu", "--json", str(path)]) == 0
    shown = capsys.readouterr().out
    assert "rms_norm, 10 cases" in shown
    assert "  params.scale" in shown
    assert "2 layers, all 17 cases ok" in shown
    record = json.loads(path.read_text())
    assert record["ok"] is True
    (first, *rest) = record["layers"]["rms_norm"]
    assert len(rest) == 9
    assert first["residual_bytes"] > 0
    assert first["leaves"]["x"]["float64_error"] < 1e-14
    assert 0 < first["leaves"]["x"]["over_xla"] < 4


def test_one_dtype(capsys):
    assert main(["check", "silu", "--dtype", "float64", "--seed", "3"]) == 0
    (row,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("  x ")]
    assert row.split()[2:5] == ["-", "-", "-"]


def test_a_failure_is_printed_in_full_and_exits_with_one(monkeypatch, capsys, tmp_path):
    right = silu.vjp
    monkeypatch.setattr(silu, "vjp", lambda residuals, g: ({}, -right(residuals, g)[1]))
    assert main(["check", "silu", "--json", str(tmp_path / "c.json")]) == 1
    shown = capsys.readouterr().out
    assert "WRONG" in shown
    assert "likely cause: sign: it is exactly −1 times what it should be" in shown
    assert "reproduce: check_layer('silu', 'primes', seed=0)" in shown
    record = json.loads((tmp_path / "c.json").read_text())
    assert record["ok"] is False
    assert record["layers"]["silu"][0]["findings"][0]["cause"] == "sign"


def test_without_jax_the_extra_is_named(monkeypatch, capsys):
    def missing(name):
        raise ImportError("the twins need jax and optax: pip install 'functional-lm[jax]'")

    monkeypatch.setattr("functional_lm.cli.check.modules", missing)
    assert main(["check", "silu"]) == 2
    said = capsys.readouterr()
    assert "pip install 'functional-lm[jax]'" in said.err
    assert not said.out


def test_a_golden_file_is_written(tmp_path, capsys):
    path = tmp_path / "attention.safetensors"
    arguments = ["golden", "attention", "--shape", "T=3", "K=2", "--set", "causal=true"]
    assert main([*arguments, "--out", str(path)]) == 0
    assert path.stat().st_size > 1000
    shown = capsys.readouterr().out
    assert "float64.x.q" in shown
    assert f"attention at B=2 T=3 S=3 H=6 G=2 K=2, written to {path}" in shown


def test_a_golden_file_is_replaced_only_with_overwrite(tmp_path, capsys):
    path = tmp_path / "silu.safetensors"
    path.write_bytes(b"mine")
    assert main(["golden", "silu", "--out", str(path)]) == 2
    assert "exists; add --overwrite" in capsys.readouterr().err
    assert path.read_bytes() == b"mine"
    assert main(["golden", "silu", "--out", str(path), "--overwrite"]) == 0
    assert path.stat().st_size > 1000


@pytest.mark.parametrize("command", ["check", "golden"])
@pytest.mark.parametrize("terminal", [False, True])
def test_a_terminal_shows_progress(command, terminal, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("TTY_COMPATIBLE", str(int(terminal)))
    out = ["--out", str(tmp_path / "g")] if command == "golden" else ["--dtype", "float64"]
    assert main([command, "silu", *out]) == 0
    said = capsys.readouterr()
    assert ("100%" in said.err) == terminal
    assert "100%" not in said.out
