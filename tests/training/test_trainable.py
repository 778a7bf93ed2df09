"""What is frozen costs nothing that can be avoided, and what is trained is as if all were."""

import chex
import numpy as np
import pytest

from functional_lm import prng, pytree, value_and_grad
from functional_lm.compose import Frozen, bind, residual, serial
from functional_lm.layers import embedding, linear, rms_norm, unembedding
from functional_lm.models import build, mlp, transformer_block
from functional_lm.models.loading import of_config, resolve
from functional_lm.runs import Session
from functional_lm.training import Experiment, TrainConfig, statistics_of

SIZES = {"vocab_size": 13, "d_model": 24, "n_heads": 6, "n_layers": 3, "max_seq_len": 8}
TOKENS = prng.integers((1,), (3, 9), low=0, high=13)
X, Y = TOKENS[:, :-1], TOKENS[:, 1:]

CHOICES = {
    "norms": lambda path: path.endswith("scale"),
    "last block": lambda path: path.startswith("blocks.2"),
    "one projection": lambda path: "blocks.1.mixer.qkv" in path,
    "head": lambda path: path.startswith(("norm", "unembedding")),
    "embedding": lambda path: path.startswith("embedding"),
    "all": lambda path: True,
}


@pytest.mark.parametrize("choice", CHOICES)
@pytest.mark.parametrize(
    "settings", [{}, {"tie_embeddings": False}, {"remat": True}, {"architecture": "gpt2"}], ids=str
)
def test_the_gradient_of_what_is_trained_is_that_of_the_whole(choice, settings):
    trainable = CHOICES[choice]
    settings = dict(settings)
    model = build(settings.pop("architecture", "llama"), **SIZES, **settings)
    params = model.init((0,), dtype=np.float64)
    loss, whole = value_and_grad(model, params, X, targets=Y)
    frozen = model.freeze(params, trainable)
    same, grads = value_and_grad(frozen, params, X, targets=Y)
    assert same == loss
    expected, _ = pytree.partition(whole, trainable)
    found, _ = pytree.partition(grads, trainable)
    chex.assert_trees_all_equal(found, expected)


def test_no_backward_runs_below_the_first_leaf_that_is_trained(monkeypatch):
    ran = []
    vjp = transformer_block.vjp
    monkeypatch.setattr(
        transformer_block, "vjp", lambda residuals, g: ran.append(1) or vjp(residuals, g)
    )
    model = build("llama", **SIZES)
    params = model.init((0,))
    frozen = model.freeze(params, CHOICES["last block"])
    value_and_grad(frozen, params, X, targets=Y)
    assert len(ran) == 1


def test_a_frozen_projection_computes_no_cotangent_of_its_weight(monkeypatch):
    params = mlp.init((0,), d_model=24, d_ff=7)
    layer = build("llama", **SIZES).freeze(
        build("llama", **SIZES).init((0,)), lambda path: path.endswith("up.weight")
    )
    block = layer.model.blocks[0]
    assert isinstance(block.mlp.settings["down"], Frozen)
    assert block.mlp.settings["up"] is linear
    y, residuals = block.mlp.forward(params, np.ones((2, 3, 24), np.float32))
    monkeypatch.delattr(linear, "vjp")
    with pytest.raises(AttributeError):  # of the projection that is trained
        block.mlp.vjp(residuals, np.ones_like(y))
    assert linear.input_vjp(residuals.down, np.ones_like(y)).shape == (2, 3, 7)


@pytest.mark.parametrize("tied", [True, False])
def test_a_frozen_table_gets_no_gradient_from_the_loss(tied):
    model = build("llama", **SIZES, tie_embeddings=tied)
    params = model.init((0,), dtype=np.float64)
    table = "embedding" if tied else "unembedding"
    _, residuals = model.forward(params, X, targets=Y)
    assert residuals.inner.unembedding.d_weight.shape == (13, 24)
    frozen = model.freeze(params, lambda path: not path.startswith(table))
    _, residuals = frozen.forward(params, X, targets=Y)
    assert residuals.inner.unembedding.d_weight is None
    grads, _ = frozen.vjp(residuals, 1.0)
    assert grads[table] == {"weight": None}


def test_a_custom_model_is_frozen_layer_by_layer():
    think = serial(norm=rms_norm, up=bind(linear, d_in=24, d_out=24))
    layer = serial(embedding=embedding, think=residual(think), unembedding=unembedding)
    model = of_config(*resolve(layer), SIZES)
    params = model.init((0,), dtype=np.float64)
    frozen = model.freeze(params, lambda path: path == "think.norm.scale")
    _, whole = value_and_grad(model, params, X, targets=Y)
    _, grads = value_and_grad(frozen, params, X, targets=Y)
    assert [path for path, _ in pytree.leaves_with_path(grads)] == ["think.norm.scale"]
    chex.assert_trees_all_equal(grads["think"]["norm"], whole["think"]["norm"])


@pytest.mark.parametrize("shards", [1, 2])
def test_a_run_trains_what_was_chosen_and_leaves_the_rest(shards):
    experiment = Experiment.build(
        "the quick brown fox jumps over the lazy dog. " * 60,
        TrainConfig(steps=3, batch_size=4, seq_len=8, shards=shards),
        sizes={"d_model": 24, "n_heads": 2, "n_layers": 2},
        trainable=CHOICES["norms"],
    )
    first = experiment.init_state()
    moments = [leaf for leaf in pytree.leaves(first.optimizer_state) if leaf.ndim]
    assert sum(leaf.size for leaf in moments) == 2 * 5 * 24
    inspected = []

    def inspect(number, params, grads, updates, tokens):
        inspected.append(statistics_of(experiment.model, params, grads, updates, tokens))

    *_, last = experiment.run(first, inspect=inspect)
    assert all(leaf.endswith("scale") for leaf in inspected[-1]["grad_norm"])
    assert len(inspected[-1]["update_ratio"]) == 5
    for path, before, after in pytree.zip_with_path(first.params, last.state.params):
        assert (before is after) != path.endswith("scale")


def test_a_resumed_run_trains_the_same_leaves_or_is_refused(tmp_path):
    def experiment(choice):
        return Experiment.build(
            "the quick brown fox jumps over the lazy dog. " * 60,
            TrainConfig(steps=2, batch_size=4, seq_len=8, shards=1),
            sizes={"d_model": 24, "n_heads": 2, "n_layers": 1},
            trainable=CHOICES[choice] if choice else None,
        )

    with Session.start(tmp_path / "run", experiment("norms")) as session:
        list(session.train())
    with Session.resume(tmp_path / "run", experiment("norms")) as session:
        assert session.state.step == 2
    for other in (None, "head"):
        with pytest.raises(ValueError, match=r"trained was blocks\.0\.norm1\.scale, blocks"):
            Session.resume(tmp_path / "run", experiment(other))
