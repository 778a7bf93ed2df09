"""A small text and a small run for the commands."""

import pytest

from functional_lm.cli.main import main

TEXT = "the quick brown fox jumps over the lazy dog.\n" * 40
SMALL = ["--batch-size", "4", "--seq-len", "16", "--d-model", "16", "--n-heads", "2"]

MODEL = """
from functional_lm.compose import bind, residual, serial
from functional_lm.layers import embedding, linear, rms_norm, unembedding
from functional_lm.models import self_attention

attend = serial(norm=rms_norm, attention=bind(self_attention, n_heads=2))
model = serial(embedding=embedding, attend=residual(attend), unembedding=unembedding)
with_loss = serial(embedding=embedding, collapse=bind(linear, d_in=16, d_out=3))


class Half:
    init = forward = staticmethod(lambda *arguments: None)


half = Half()
"""


@pytest.fixture
def text(tmp_path):
    path = tmp_path / "text.txt"
    path.write_text(TEXT)
    return path


@pytest.fixture
def model_file(tmp_path):
    path = tmp_path / "my_model.py"
    path.write_text(MODEL)
    return path


@pytest.fixture
def train(text):
    """Return a function that trains a small model and returns the exit status."""

    def run(out, *more, steps=20):
        settings = ["--text-file", str(text), "--out", str(out), *SMALL]
        if steps is not None:
            settings += ["--steps", str(steps)]
        return main(["train", *settings, *more])

    return run


@pytest.fixture
def run_folder(train, tmp_path, capsys):
    assert train(tmp_path / "run") == 0
    capsys.readouterr()
    return tmp_path / "run"
