import pytest

from functional_lm.cli.main import main
from functional_lm.models.transformer import PRESETS, Config
from functional_lm.training import costs


def test_it_names_versions_and_costs(capsys, monkeypatch):
    monkeypatch.setenv("OPENBLAS_CORETYPE", "Haswell")
    assert main(["info", "--preset", "tiny"]) == 0
    said = capsys.readouterr().out
    for part in ("NumPy", "BLAS", "held to the kernel Haswell", "763,136 parameters"):
        assert part in said


def test_it_describes_a_run(run_folder, capsys):
    assert main(["info", str(run_folder)]) == 0
    assert "width 16, 2 heads" in capsys.readouterr().out


def test_the_costs_of_tiny():
    cost = costs(Config(65, **PRESETS["tiny"]), 64)
    matrices = 763_136 - 9 * 128  # all but the norms; the tied table is the unembedding
    forward = 2 * matrices + 4 * 64 * 128 * 4
    assert cost.parameters == 763_136
    assert cost.inference_flops == forward
    assert cost.training_flops == 3 * forward
    assert cost.inference_bytes == 4 * 2 * 4 * 128
    # Per token and block: two norms, qkv, rotation, attention, two MLP slopes, hidden and inputs.
    assert 4 * 4 * 2000 < cost.training_bytes < 4 * 4 * 4000


def test_untied_embeddings_cost_the_same_arithmetic():
    tied = costs(Config(65, **PRESETS["tiny"]), 64)
    untied = costs(Config(65, **PRESETS["tiny"], tie_embeddings=False), 64)
    assert untied.parameters == tied.parameters + 65 * 128
    assert untied.inference_flops == tied.inference_flops


@pytest.mark.parametrize("arguments", [["--seq-len", "0"], ["--vocab-size", "-1"]])
def test_bad_sizes(arguments, capsys):
    assert main(["info", *arguments]) == 2
    assert "must be at least 1" in capsys.readouterr().err
