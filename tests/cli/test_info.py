from functional_lm.cli.main import main
from functional_lm.speed import runtime


def test_it_names_versions_and_costs(capsys, monkeypatch):
    monkeypatch.setenv("OPENBLAS_CORETYPE", "Haswell")
    assert main(["info", "--preset", "tiny"]) == 0
    said = capsys.readouterr().out
    assert "4,096 bytes of cache" in said
    for part in ("NumPy", "BLAS", "held by OPENBLAS_CORETYPE=Haswell", "763,136 parameters"):
        assert part in said


def test_it_says_what_keeps_memory(capsys, monkeypatch):
    monkeypatch.setattr(runtime, "tune", lambda: False)
    monkeypatch.setattr(runtime, "_tuned", False)
    assert main(["info"]) == 0
    assert "allocator      returns freed memory\n" in capsys.readouterr().out


def test_it_describes_a_run(run_folder, capsys):
    assert main(["info", str(run_folder)]) == 0
    assert "d_model 16, n_heads 2" in capsys.readouterr().out
