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


MINE = """
import numpy as np

class product:
    def forward(params, x, *, factor=1.0):
        return factor * x["left"] @ params["weight"], (params["weight"], x, factor)

    def vjp(residuals, g):
        weight, x, factor = residuals
        d_weight = np.einsum("btd,bte->de", x["left"], SIGN * factor * g)
        return {"weight": d_weight}, {"left": factor * g @ weight.T}

def reference(params, x, *, factor=1.0):
    return factor * x["left"] @ params["weight"]
"""


@pytest.mark.parametrize(("sign", "code"), [("1", 0), ("-1", 1)])
def test_a_layer_in_a_file_is_checked(sign, code, tmp_path, capsys):
    file, record = tmp_path / "mine.py", tmp_path / "record.json"
    file.write_text(MINE.replace("SIGN", sign))
    shape = ["--shape", "x.left=2,3,5", "weight=5,7", "--set", "factor=3.0"]
    arguments = ["check", f"{file}:product", *shape, "--json", str(record), "--dtype", "float64"]
    assert main([*arguments, "--reference", f"{file}:reference"]) == code
    shown = capsys.readouterr().out
    assert "params.weight" in shown
    assert ("compared with jax.vjp of the reference" in shown) == (not code)
    assert ("likely cause: sign" in shown) == bool(code)
    assert json.loads(record.read_text())["ok"] == (not code)


def test_without_a_reference_a_file_is_compared_with_differences(tmp_path, capsys):
    (tmp_path / "mine.py").write_text(
        "def forward(params, x): return params['table'][x], (params, x)\n"
        "def vjp(r, g):\n"
        "    import numpy as np\n"
        "    d = np.zeros_like(r[0]['table']); np.add.at(d, r[1], g)\n"
        "    return {'table': d}, None\n"
    )
    assert main(["check", str(tmp_path / "mine.py"), "--shape", "x=2,3:11", "table=11,5"]) == 0
    assert "of the layer's own forward" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["silu", "--shape", "x=2"], "are for a layer of yours: got silu; give FILE.py:NAME"),
        (["none.py:layer", "--shape", "x=2"], "none.py does not exist; check the path"),
        (["{}:other", "--shape", "x=2"], "must define other"),
        (["{}:product"], "--shape must give the shape of x: add --shape x=2,3,5"),
        (["{}:product", "--shape", "x=a"], "a shape must be integers: got x=a"),
        (["{}:product", "silu"], "check one FILE.py:NAME at a time"),
        (["{}:product", "--shape", "x=2", "--reference", "{}:no"], "must define no"),
    ],
)
def test_a_file_that_cannot_be_checked_is_an_error(arguments, says, tmp_path, capsys):
    file = tmp_path / "mine.py"
    file.write_text(MINE.replace("SIGN", "1"))
    assert main(["check", *(text.format(file) for text in arguments)]) == 2
    assert says in capsys.readouterr().err
