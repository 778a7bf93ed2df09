"""A custom layer from a file outside the package: checked, composed into a block and trained."""

import importlib.util
import re
from pathlib import Path

import jax
import numpy as np
import pytest

from functional_lm.compose import bind, residual, serial
from functional_lm.layers import embedding, linear, rms_norm, unembedding
from functional_lm.losses import cross_entropy
from functional_lm.models import self_attention
from functional_lm.optimizers import adamw
from functional_lm.testing import check_vjp
from functional_lm.text import batch_at
from functional_lm.training import init_state, train

README = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")
SOURCE = re.search(r"^```python\n(# squared_relu\.py\n.*?)^```", README, re.M | re.S)[1]
X = np.random.default_rng(0).standard_normal((2, 3, 5))
PARAMS = {"scale": np.linspace(-1, 2, 5)}


def twin(params, x):
    return params["scale"] * jax.nn.relu(x) ** 2


def load(source, folder):
    path = folder / "squared_relu.py"
    path.write_text(source, encoding="utf-8")
    spec = importlib.util.spec_from_file_location("squared_relu", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_it_takes_twenty_lines():
    assert len([line for line in SOURCE.splitlines() if line.strip()]) <= 20


def test_it_is_certified(tmp_path):
    layer = load(SOURCE, tmp_path)
    check_vjp(layer, PARAMS, X, reference=twin).raise_if_failed()
    check_vjp(layer, PARAMS, X).raise_if_failed()


@pytest.mark.parametrize(
    ("right", "wrong", "leaf"),
    [("2 * g * scale", "g * scale", "x"), ("sum(axis=0)", "mean(axis=0)", "params.scale")],
)
def test_a_mistake_in_it_is_found(tmp_path, right, wrong, leaf):
    assert right in SOURCE
    report = check_vjp(load(SOURCE.replace(right, wrong), tmp_path), PARAMS, X, reference=twin)
    assert [path for path, row in report.leaves.items() if not row.ok] == [leaf]


def test_it_trains_in_a_block(tmp_path):
    layer = load(SOURCE, tmp_path)
    think = serial(
        norm=rms_norm,
        up=bind(linear, d_in=16, d_out=40),
        act=layer,
        down=bind(linear, d_in=40, d_out=16),
    )
    attend = serial(norm=rms_norm, attention=bind(self_attention, n_heads=2))
    block = serial(attention=residual(attend), mlp=residual(think))
    model = serial(embedding=embedding, block=block, unembedding=unembedding, loss=cross_entropy)
    tokens = np.tile(np.array([3, 1, 4, 1, 5, 2, 6]), 30)
    params = model.init((0,), vocab_size=7, d_model=16, d_ff=40)

    def batch(step):
        x, y = batch_at(tokens, (1,), step, batch_size=4, seq_len=9)
        return x, {"targets": y, "positions": np.arange(9)}

    optimizer = adamw(1e-2)
    steps = list(
        train(model, init_state(params, optimizer), optimizer=optimizer, batch_at=batch, steps=60)
    )
    assert steps[-1].loss < 0.5 * steps[0].loss
    scale = steps[-1].state.params["block"]["mlp"]["act"]["scale"]
    assert scale.dtype == np.float32
    assert (scale != 1).any()
