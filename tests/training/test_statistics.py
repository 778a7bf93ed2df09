import math
from functools import partial

import numpy as np
import pytest

from functional_lm import prng, pytree
from functional_lm.compose import bind, residual, serial
from functional_lm.layers import embedding, linear, rms_norm, rotary, unembedding
from functional_lm.models import build
from functional_lm.models.loading import of_config, resolve
from functional_lm.numerics import softmax
from functional_lm.training.statistics import activation_statistics, leaf_statistics, statistics_of

SIZES = {"vocab_size": 13, "d_model": 24, "n_heads": 6, "n_kv_heads": 2, "n_layers": 2}
SIZES["max_seq_len"] = 70
TOKENS = prng.integers((1,), (3, 70), low=0, high=13)  # longer than a block of query rows
close = partial(pytest.approx, rel=2e-5)


def model(dtype=np.float64, **changes):
    llama = build("llama", **(SIZES | changes))
    return llama, llama.init((0,), dtype=dtype)


def test_leaves_have_norms_and_ratios():
    params = {"blocks": ({"w": np.array([3.0, 4.0])},), "zero": np.zeros(2), "still": np.zeros(2)}
    grads = {"blocks": ({"w": np.array([6.0, 8.0])},), "zero": np.ones(2), "still": np.ones(2)}
    updates = {"blocks": ({"w": np.array([0.3, 0.4])},), "zero": np.ones(2), "still": np.zeros(2)}
    found = leaf_statistics(params, grads, updates)
    assert found["grad_norm"] == {"blocks.0.w": 10.0, "zero": 1.41421, "still": 1.41421}
    assert found["update_ratio"] == {"blocks.0.w": 0.1, "zero": None, "still": 0.0}


def test_frozen_leaves_are_left_out():
    params = {"w": np.array([3.0, 4.0]), "frozen": np.ones(2)}
    grads, updates = {"w": np.ones(2), "frozen": None}, {"w": np.zeros(2), "frozen": None}
    found = leaf_statistics(params, grads, updates)
    assert found == {"grad_norm": {"w": 1.41421}, "update_ratio": {"w": 0.0}}


def test_what_is_not_finite_is_none():
    params, grads = {"w": np.ones(2)}, {"w": np.array([1.0, np.nan])}
    assert leaf_statistics(params, grads, params)["grad_norm"] == {"w": None}
    llama, params = model()
    params["blocks"][1]["mlp"]["up"]["weight"][0, 0] = np.inf
    found = activation_statistics(llama, params, TOKENS)
    assert found["activation_std"]["blocks.1"] is None
    assert found["zero_share"]["blocks.1.mlp"] is None
    assert found["activation_std"]["blocks.0"] > 0


def test_figures_are_plain_and_short():
    llama, params = model()
    found = statistics_of(llama, params, params, params, TOKENS)
    assert list(found) == [
        "grad_norm",
        "update_ratio",
        "activation_mean",
        "activation_std",
        "zero_share",
        "attention_entropy",
        "attention_uniform",
    ]
    for figures in found.values():
        for figure in figures.values():
            assert type(figure) is float
            assert figure == float(f"{figure:.6g}")


def test_streams_and_hidden_units_are_those_of_the_forward():
    llama, params = model()
    found = activation_statistics(llama, params, TOKENS)
    _, residuals = llama.logits(params, TOKENS)
    streams = [block.norm1.x_hat / block.norm1.rstd for block in residuals.blocks]
    streams.append(residuals.norm.x_hat / residuals.norm.rstd)
    for name, x in zip(("embedding", "blocks.0", "blocks.1"), streams, strict=True):
        assert found["activation_mean"][name] == pytest.approx(x.mean(), abs=1e-6)
        assert found["activation_std"][name] == close(x.std())
    for i, block in enumerate(residuals.blocks):
        assert found["activation_std"][f"blocks.{i}.mlp"] == close(block.mlp.hidden.std())
        assert found["zero_share"][f"blocks.{i}.mlp"] == 0.0


def test_entropy_is_that_of_the_probabilities():
    llama, params = model()
    found = activation_statistics(llama, params, TOKENS)
    block, x = params["blocks"][0], params["embedding"]["weight"][TOKENS]
    h, _ = rms_norm.forward(block["norm1"], x)
    heads = (h @ block["mixer"]["qkv"]["weight"]).reshape(3, 70, 10, 4)
    turned, _ = rotary.forward({}, heads[:, :, :8], positions=np.arange(70))
    q, k = turned[:, :, :6], np.repeat(turned[:, :, 6:], 3, axis=2)
    scores = np.einsum("bthk,bshk->bhts", q, k) / 2.0
    probs = softmax(np.where(np.tri(70, dtype=bool), scores, -1e9))
    entropy = -(probs * np.log(np.maximum(probs, 1e-300))).sum(-1).mean()
    assert found["attention_entropy"]["blocks.0"] == close(entropy)


def test_equal_scores_have_the_uniform_entropy_and_hard_ones_none():
    llama, params = model()
    qkv = params["blocks"][0]["mixer"]["qkv"]["weight"]
    qkv[:, :32] = 0
    params["blocks"][1]["mixer"]["qkv"]["weight"][:, :32] *= 3
    found = activation_statistics(llama, params, TOKENS)
    uniform = sum(math.log(n) for n in range(1, 71)) / 70
    assert found["attention_uniform"] == {"blocks.0": close(uniform), "blocks.1": close(uniform)}
    assert found["attention_entropy"]["blocks.0"] == close(uniform)
    assert found["attention_entropy"]["blocks.1"] < 0.95 * uniform
    qkv[:, :32] = 1e3 * prng.normal((2,), (24, 32))
    found = activation_statistics(llama, params, TOKENS)
    assert found["attention_entropy"]["blocks.0"] < 0.01


def test_dead_units_are_counted():
    llama, params = model(np.float32)
    params["blocks"][1]["mlp"]["up"]["weight"][:, 60:72] = 0  # of 60
    gate_up = params["blocks"][0]["mlp"]["up"]["weight"].reshape(24, 2, 60)
    gate_up[:, :, :6] *= 1e-3  # h is 1e-6 of the others
    found = activation_statistics(llama, params, TOKENS)
    assert found["zero_share"] == {"blocks.0.mlp": 0.1, "blocks.1.mlp": 0.2}


@pytest.mark.parametrize(
    "setting", [{"attention": "tiled"}, {"remat": True}, {"dropout": 0.5}], ids=str
)
def test_how_the_model_is_run_makes_no_difference(setting):
    llama, params = model()
    other, _ = model(**setting)
    expected = activation_statistics(llama, params, TOKENS)
    assert activation_statistics(other, params, TOKENS) == expected


def test_a_custom_gets_what_its_residuals_show():
    class Relu:
        init = staticmethod(lambda key: {})
        forward = staticmethod(lambda params, x: (np.maximum(x, 0), np.maximum(x, 0)))
        vjp = staticmethod(lambda residuals, g: ({}, g * (residuals > 0)))

    think = serial(
        norm=rms_norm,
        up=bind(linear, d_in=8, d_out=32),
        act=Relu,
        down=bind(linear, d_in=32, d_out=8),
    )
    layer = serial(embedding=embedding, think=residual(think), unembedding=unembedding)
    custom = of_config(*resolve(layer), {"vocab_size": 13, "d_model": 8, "n_heads": 2})
    params = custom.init((0,))
    params["think"]["up"]["weight"][:, :8] = 0
    found = statistics_of(custom, params, params, pytree.zeros_like(params), TOKENS)
    assert found["zero_share"]["think.act"] == 0.25
    assert found["activation_std"]["think.norm.x_hat"] == pytest.approx(1.0, abs=0.05)
    assert "attention_entropy" not in found
    assert found["update_ratio"]["think.down.weight"] == 0.0
    names = set(found["activation_std"])
    assert not any("weight" in name or "scale" in name or "rstd" in name for name in names)


def test_a_custom_may_keep_anything():
    class Odd:
        init = staticmethod(lambda key, *, vocab_size: {"w": np.ones((vocab_size, vocab_size))})
        forward = staticmethod(lambda params, x: (params["w"][x], {0: x, "a.b": object()}))
        vjp = staticmethod(lambda residuals, g: (None, None))

    custom = of_config(*resolve(Odd), {"vocab_size": 13, "d_model": 8, "n_heads": 2})
    assert activation_statistics(custom, custom.init((0,)), TOKENS) == {
        "activation_mean": {},
        "activation_std": {},
        "zero_share": {},
    }


def test_only_some_tokens_are_looked_at():
    llama, params = model(d_model=8, n_heads=2, n_layers=1, max_seq_len=1200)
    tokens = prng.integers((1,), (40, 100), low=0, high=13)
    expected = activation_statistics(llama, params, tokens[:6])
    assert activation_statistics(llama, params, tokens) == expected
    tokens = prng.integers((1,), (2, 1200), low=0, high=13)
    expected = activation_statistics(llama, params, tokens[:1, :1024])
    assert activation_statistics(llama, params, tokens) == expected


def test_the_use_of_experts_is_a_share_of_the_choices():
    mixture = build("hybrid", **SIZES, experts=3)
    params = mixture.init((0,), dtype=np.float64)
    params["blocks"][1]["mlp"]["router"]["weight"][:] = 0.0  # all tied: the first two win
    shares = activation_statistics(mixture, params, TOKENS)["expert_share"]
    assert sum(shares[f"blocks.0.mlp.{e}"] for e in range(3)) == close(1)
    assert [shares[f"blocks.1.mlp.{e}"] for e in range(3)] == [0.5, 0.5, 0.0]
