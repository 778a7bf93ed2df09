"""A small text and a small run for the commands."""

import json
import shutil

import pytest

from functional_lm.cli.main import main

TEXT = "the quick brown fox jumps over the lazy dog.\n" * 40
SIZES = ["--batch-size", "4", "--seq-len", "16", "--d-model", "16"]
SMALL = [*SIZES, "--n-heads", "2"]

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
        custom = any(".py" in argument for argument in more)  # has its own number of heads
        settings = ["--text-file", str(text), "--out", str(out), *(SIZES if custom else SMALL)]
        if steps is not None:
            settings += ["--steps", str(steps)]
        return main(["train", *settings, *more])

    return run


@pytest.fixture(scope="session")
def trained(tmp_path_factory):
    """A run to copy."""
    folder = tmp_path_factory.mktemp("trained")
    (folder / "text.txt").write_text(TEXT)
    settings = ["--text-file", str(folder / "text.txt"), "--out", str(folder / "run"), *SMALL]
    assert main(["train", *settings, "--steps", "20"]) == 0
    return folder / "run"


@pytest.fixture
def run_folder(trained, text, tmp_path):
    """A run of 20 steps on the small text, in the folder of the test."""
    return copy_run(trained, tmp_path / "run", text)


def copy_run(run, to, text):
    """Copy a run, and say that it was trained on a text elsewhere."""
    shutil.copytree(run, to)
    config = json.loads((to / "config.json").read_text())
    config["text"]["text_file"] = str(text)
    (to / "config.json").write_text(json.dumps(config))
    return to
