import numpy as np
import pytest

from functional_lm import pytree, value_and_grad
from functional_lm.generation import Decoder
from functional_lm.models import build, hybrid

SIZES = {"vocab_size": 11, "d_model": 24, "n_heads": 4, "n_layers": 2, "max_seq_len": 16}
TOKENS = np.arange(26).reshape(2, 13) * 7 % 11

CHOICES = [
    {"norm": "layer_norm"},
    {"norm": "layer_norm_without_bias"},
    {"norm": "rms_norm_offset"},
    *({"mlp": name} for name in hybrid.MLPS if name != "swiglu"),
    {"block": "parallel"},
    {"convolution": 4, "init_scale": 0.8},
    {"convolution": 3, "mixer": "mamba2"},
    {"convolution": 2, "experts": 4, "block": "parallel"},
    {"window": 3},
    {"window": 3, "full_every": 2, "attention_sinks": True},
    {"window": 1, "positions": "alibi"},
    {"positions": "alibi", "n_heads": 6, "n_kv_heads": 2, "attention_sinks": True},
    {"positions": "none", "head_size": 5},
    {"rope_fraction": 0.5, "head_size": 5},
    {"value_size": 5},
    {"qk_norm": True},
    {"attention_soft_cap": 2.0},
    {"gated_attention": True},
    {"attention_dropout": 0.2},
    {"mixer": "multi_latent_attention", "head_size": 5},
    {
        "mixer": "multi_latent_attention",
        "window": 3,
        "attention_sinks": True,
        "attention_soft_cap": 2.0,
    },
    {"mixer": "multi_latent_attention", "kv_rank": 8, "q_rank": 12, "rope_size": 4},
    {"mixer": "linear_attention"},
    {"mixer": "gated_delta_rule"},
    {"mixer": "gated_delta_rule", "full_every": 2, "n_kv_heads": 2},
    {"mixer": "mamba2"},
    {"mixer": "mamba2", "state_size": 3, "expand": 1},
    {"experts": 5},
    {"experts": 3, "experts_per_token": 1, "shared_experts": 2, "block": "parallel"},
    {"experts": 4, "experts_per_token": 4, "mlp": "gelu"},
    {"logit_soft_cap": 0.5},
]
"""Settings that exchange a part, each alone."""


def test_the_defaults_are_a_llama():
    llama, same = build("llama", **SIZES), build("hybrid", **SIZES)
    params = llama.init((0,))
    assert_same(params, same.init((0,)))
    one, other = (value_and_grad(model, params, TOKENS, targets=TOKENS) for model in (llama, same))
    assert one[0] == other[0]
    assert_same(one[1], other[1])
    assert same.model.fast_decoder is not None


def assert_same(tree, other):
    for path, one, two in pytree.zip_with_path(tree, other):
        np.testing.assert_array_equal(one, two, err_msg=path)


@pytest.mark.parametrize("choice", CHOICES, ids=str)
def test_a_model_with_another_part_decodes_as_its_forward(choice):
    model = build("hybrid", **SIZES | choice)
    assert model.model.fast_decoder is None
    params = model.init((0,), dtype=np.float64)
    expected, _ = model.logits(params, TOKENS)
    decoder = Decoder(model, params)
    assert decoder.cached
    for t in range(13):
        logits = decoder.prefill(TOKENS[:, :1]) if t == 0 else decoder.step(TOKENS[:, t])
        np.testing.assert_allclose(logits, expected[:, t], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("choice", CHOICES, ids=str)
def test_a_model_with_another_part_learns(choice):
    model = build("hybrid", **SIZES | choice)
    params = model.init((0,))
    loss, grads = value_and_grad(model, params, TOKENS[:, :-1], targets=TOKENS[:, 1:])
    size = float(np.sqrt(sum((g.astype(float) ** 2).sum() for g in pytree.leaves(grads))))
    params = pytree.map(lambda p, g: p - np.float32(0.002 / size) * g, params, grads)
    after, _ = model.forward(params, TOKENS[:, :-1], targets=TOKENS[:, 1:])
    assert after < loss - 0.001 * size  # half of what the gradient predicts


@pytest.mark.parametrize("choice", [{}, {"experts": 3, "shared_experts": 1}, {"mixer": "mamba2"}])
def test_the_scale_of_new_matrices_can_be_chosen(choice):
    sizes = {**SIZES, "d_model": 96, "n_heads": 8, "init_scale": 0.8}
    params = build("hybrid", **sizes | choice).init((0,))
    for path, leaf in pytree.leaves_with_path(params["blocks"]):
        if leaf.ndim > 1 and "convolution" not in path:
            writes = {"out", "down"} & {*path.split(".")}
            expected = 0.8 / leaf.shape[-2] ** 0.5 * (0.5 if writes else 1.0)
            assert leaf.std() == pytest.approx(expected, rel=0.1), path


def test_an_unknown_part_is_refused():
    with pytest.raises(ValueError, match=r"norm must be 'rms_norm' or .* or 'layer_norm'"):
        build("hybrid", **SIZES, norm="batch_norm")


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"experts_per_token": 2}, "experts_per_token is a setting of experts: got 2 without any"),
        ({"balance_loss": 0.0}, "balance_loss is a setting of experts"),
        ({"experts": 1}, "experts_per_token must be at most experts=1: got 2"),
        ({"experts": 0}, "experts must be at least 1"),
        ({"logit_soft_cap": 0.0}, "logit_soft_cap must be finite and at least"),
        ({"kv_rank": 4}, "kv_rank is a setting of multi_latent_attention: .* leave it out"),
        (
            {"mixer": "multi_latent_attention", "n_kv_heads": 2},
            "n_kv_heads is a setting of attention: got n_kv_heads=2 with mixer='multi",
        ),
        ({"mixer": "mamba2", "window": 4}, "window is a setting of attention and multi_latent_"),
        ({"head_size": 5}, "must be even for rotary positions: got 5"),
        ({"full_every": 2}, "full_every needs attention with a window.*window=None"),
        ({"positions": "none", "rope_fraction": 0.5}, "of rotary positions: got positions='none'"),
        ({"attention_dropout": 1.5}, r"attention_dropout must lie in \[0, 1\]"),
        ({"mixer": "mamba2", "rope_theta": 50.0}, "rope_theta is a setting of attention and "),
        (
            {"mixer": "multi_latent_attention", "full_every": 2, "window": 4},
            "is a setting of attention",
        ),
        (
            {"mixer": "mamba2", "full_every": 2, "window": 4},
            "another mixer without one: .*window=4",
        ),
        ({"mixer": "linear_attention", "full_every": 1}, "full_every must be at least 2"),
        ({"mixer": "linear_attention", "n_kv_heads": 2}, "n_kv_heads is a setting of attention: "),
        ({"mixer": "multi_latent_attention", "rope_size": 3}, "rope_size must be even: .* try 4"),
    ],
)
def test_a_setting_that_does_not_fit_is_refused(settings, says):
    with pytest.raises(ValueError, match=says):
        build("hybrid", **SIZES, **settings)


def test_every_so_many_th_block_sees_the_whole_text():
    model = build("hybrid", **SIZES | {"n_layers": 5}, window=4, full_every=2).model
    windows = [block.mixer.settings["visibility"].window for block in model.blocks]
    assert windows == [4, None, 4, None, 4]
    assert [block.mixer.context_flops(10) for block in model.blocks[:2]] == [384, 960]


@pytest.mark.parametrize("shared", [0, 1])
def test_a_token_takes_as_much_arithmetic_as_in_the_dense_model(shared):
    sizes = {**SIZES, "d_ff": 60}
    dense = build("hybrid", **sizes)
    few, many = (build("hybrid", **sizes, experts=E, shared_experts=shared) for E in (4, 12))
    flops = [model.flops(model.init((0,)), 5) for model in (dense, few, many)]
    routers = [0, *(2 * 2 * 24 * E for E in (4, 12))]
    assert [f - r for f, r in zip(flops, routers, strict=True)] == [flops[0]] * 3
    assert many.n_parameters > 2 * few.n_parameters > 2 * dense.n_parameters


def test_capped_logits_stay_below_the_cap():
    model = build("hybrid", **SIZES, logit_soft_cap=0.01)
    params = pytree.map(lambda leaf: 10 * leaf, model.init((0,)))
    logits, _ = model.logits(params, TOKENS)
    assert 0.009 < np.abs(logits).max() <= np.float32(0.01)
