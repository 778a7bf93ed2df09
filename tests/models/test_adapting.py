import numpy as np
import pytest

from functional_lm import pytree, value_and_grad
from functional_lm.compose import bind, residual, serial
from functional_lm.generation import Decoder
from functional_lm.layers import embedding, rms_norm, unembedding
from functional_lm.models import build, hybrid, mlp, self_attention
from functional_lm.models.adapting import (
    AdapterConfig,
    adapt,
    adapters_of,
    merge,
    plain,
    trained,
    unmerge,
    with_adapters,
    with_leaves,
)
from functional_lm.models.loading import CustomArchitecture, of_config

SIZES = {"d_model": 12, "n_heads": 2, "n_layers": 2, "d_ff": 10, "max_seq_len": 6}
TOKENS = np.array([[1, 3, 5, 2, 0], [4, 4, 1, 2, 3]])
KINDS = {
    "lora": AdapterConfig(lora_rank=2),
    "parts": AdapterConfig(
        lora_rank=2, lora_targets="qkv.q,mixer.qkv.v,blocks.1.mlp.up", rslora=True
    ),
    "dora": AdapterConfig(lora_rank=2, lora_alpha=1.0, dora=True),
    "bottleneck": AdapterConfig(adapter="bottleneck", adapter_size=3),
    "prefix": AdapterConfig(adapter="prefix", adapter_size=3),
    "prompt": AdapterConfig(adapter="prompt", adapter_size=3),
}
LOW_RANK = ("lora", "parts", "dora")
each_kind = pytest.mark.parametrize("kind", KINDS)


def moved(tree, seed=0):
    random = np.random.default_rng(seed)
    return pytree.map(lambda leaf: leaf + 0.3 * random.standard_normal(leaf.shape), tree)


def tuned(kind, name="llama", **sizes):
    """Return a model, its parameters, the model with adapters, and their parameters, moved."""
    model = build(name, vocab_size=7, **SIZES | sizes)
    base = moved(model.init((0,), dtype=np.float64))
    adapted = with_adapters(model, KINDS[kind])
    params = adapt(adapted, base, (1,))
    own = adapters_of(adapted, params)
    leaves = dict(zip(own, moved(list(own.values())), strict=True))
    return model, base, adapted, with_leaves(params, leaves)


def logits(model, params):
    return model.logits(params, TOKENS)[0]


def custom():
    attend = serial(norm=rms_norm, attention=bind(self_attention, n_heads=2))
    think = serial(norm=rms_norm, mlp=bind(mlp, d_ff=10))
    model = serial(
        embedding=embedding,
        attend=residual(attend),
        think=residual(think),
        norm=rms_norm,
        unembedding=unembedding,
    )
    return of_config("custom", CustomArchitecture(model), {"vocab_size": 7, **SIZES})


@pytest.mark.parametrize("kind", ["lora", "parts", "dora", "bottleneck"])
@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_starts_as_its_base(kind, name):
    model = build(name, vocab_size=7, **SIZES)
    base = moved(model.init((0,), dtype=np.float64))
    adapted = with_adapters(model, KINDS[kind])
    params = adapt(adapted, base, (1,))
    np.testing.assert_allclose(logits(adapted, params), logits(model, base), rtol=1e-11)
    assert pytree.structure(params) == pytree.structure(adapted.init((0,)))


@each_kind
@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_only_adapters_get_a_gradient(kind, name):
    _, _, adapted, params = tuned(kind, name)
    is_trained = trained(adapted)
    frozen = adapted.freeze(params, is_trained)
    _, grads = value_and_grad(frozen, params, TOKENS, targets=TOKENS)
    _, whole = value_and_grad(adapted, params, TOKENS, targets=TOKENS)
    expected = adapters_of(adapted, whole)
    assert expected
    for path, _, grad in pytree.zip_with_path(params, grads):
        if path in expected:
            np.testing.assert_allclose(grad, expected[path], rtol=1e-9, atol=1e-12)
        else:
            assert grad is None, path


@each_kind
@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_decodes_as_it_computes(kind, name):
    _, _, adapted, params = tuned(kind, name)
    expected = logits(adapted, params)
    decoder = Decoder(adapted, params)
    assert decoder.cached
    for rows in ([0], [0, 1]):  # one text has a quicker way
        got = [decoder.prefill(TOKENS[rows, :2])]
        got += [decoder.step(TOKENS[rows, t]) for t in range(2, 5)]
        np.testing.assert_allclose(np.stack(got, 1), expected[rows, 1:], rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("mixer", [name for name in hybrid.MIXERS if name != "attention"])
def test_any_mixer_has_adapters(mixer):
    _, _, adapted, params = tuned("lora", "hybrid", mixer=mixer, d_model=16, convolution=3)
    decoder = Decoder(adapted, params)
    got = [decoder.prefill(TOKENS[:, :2]), decoder.step(TOKENS[:, 2])]
    expected = logits(adapted, params)
    np.testing.assert_allclose(np.stack(got, 1), expected[:, 1:3], rtol=1e-8, atol=1e-9)


def test_experts_have_no_low_rank_adapters():
    _, _, adapted, params = tuned("lora", "hybrid", experts=4)
    places = {path.split(".", 2)[2] for path in adapted.adapted.layers}
    assert places == {"mixer.qkv", "mixer.out", "mlp.router"}
    frozen = adapted.freeze(params, trained(adapted))
    _, grads = value_and_grad(frozen, params, TOKENS, targets=TOKENS)
    assert grads["blocks"][0]["mlp"]["experts"]["up"] is None


def test_a_prefix_goes_to_attention_only():
    _, _, adapted, params = tuned("prefix", "hybrid", mixer="mamba2", full_every=2)
    assert set(adapters_of(adapted, params)) == {
        "blocks.1.mixer.prefix.keys",
        "blocks.1.mixer.prefix.values",
    }
    model = build("hybrid", vocab_size=7, **SIZES, mixer="mamba2")
    for without in (model, adapted):
        with pytest.raises(
            ValueError, match="a prefix needs self-attention without one yet: hybrid has none"
        ):
            with_adapters(without, KINDS["prefix"])


@pytest.mark.parametrize("kind", LOW_RANK)
@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_merged_weights_compute_the_same(kind, name):
    model, base, adapted, params = tuned(kind, name)
    merged = merge(adapted, params)
    assert pytree.structure(merged) == pytree.structure(base)
    assert np.abs(logits(model, merged) - logits(model, base)).max() > 1e-3
    np.testing.assert_allclose(logits(model, merged), logits(adapted, params), rtol=1e-9)


@pytest.mark.parametrize("kind", ["lora", "parts"])
def test_unmerged_weights_are_those_before(kind):
    _, _, adapted, params = tuned(kind)
    apart = unmerge(adapted, merge(adapted, params), adapters_of(adapted, params))
    for path, leaf, other in pytree.zip_with_path(params, apart):
        np.testing.assert_allclose(other, leaf, rtol=1e-9, atol=1e-12, err_msg=path)


def test_two_adapters_add_up():
    model, base, one, first = tuned("lora")
    both = with_adapters(one, KINDS["parts"])
    second = tuned("parts")[2:]
    params = with_leaves(adapt(both, first, (2,)), adapters_of(*second))
    merged = merge(both, params)
    assert plain(both) is model
    np.testing.assert_allclose(logits(model, merged), logits(both, params), rtol=1e-9)
    for path, leaf, total in pytree.zip_with_path(base, merged):
        parts = [
            dict(pytree.leaves_with_path(merge(*pair)))[path] for pair in ((one, first), second)
        ]
        np.testing.assert_allclose(total - leaf, sum(parts) - 2 * leaf, atol=1e-12, err_msg=path)


@pytest.mark.parametrize("both", [("prefix", "lora"), ("lora", "prefix"), ("prompt", "prefix")])
def test_kinds_stack(both):
    _, _, one, first = tuned(both[0])
    second = with_adapters(one, KINDS[both[1]])
    params = adapt(second, first, (2,))
    own = adapters_of(second, params)
    params = with_leaves(params, dict(zip(own, moved(list(own.values())), strict=True)))
    assert np.abs(logits(second, params) - logits(one, first)).max() > 1e-3
    decoder = Decoder(second, params)
    got = [decoder.prefill(TOKENS[:, :2]), decoder.step(TOKENS[:, 2])]
    expected = logits(second, params)
    np.testing.assert_allclose(np.stack(got, 1), expected[:, 1:3], rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("kind", ["lora", "parts", "bottleneck", "prefix"])
def test_a_custom_model_has_adapters(kind):
    model = custom()
    base = model.init((0,))
    config = KINDS[kind]
    if kind == "parts":
        config = AdapterConfig(lora_rank=2, lora_targets="qkv.v,mlp.down")
    adapted = with_adapters(model, config)
    params = adapt(adapted, base, (1,))
    frozen = adapted.freeze(params, trained(adapted))
    _, grads = value_and_grad(frozen, params, TOKENS, targets=TOKENS)
    assert pytree.leaves(grads)
    if kind != "prefix":
        np.testing.assert_allclose(
            logits(adapted, params), logits(model, base), rtol=1e-4, atol=1e-6
        )


@pytest.mark.parametrize("name", ["llama", "hybrid"])
def test_dropout_follows_the_key(name):
    block = {"block": "parallel"} if name == "hybrid" else {}
    model = build(name, vocab_size=7, **SIZES, **block)
    adapted = with_adapters(model, AdapterConfig(lora_rank=2, lora_dropout=0.5))
    params = moved(adapted.init((0,), dtype=np.float64))
    none, one, again, other = (
        adapted.logits(params, TOKENS, key=key)[0] for key in (None, (3,), (3,), (4,))
    )
    np.testing.assert_array_equal(one, again)
    assert not np.allclose(one, none)
    assert not np.allclose(one, other)
    frozen = adapted.freeze(params, trained(adapted))
    _, grads = value_and_grad(frozen, params, TOKENS, targets=TOKENS, key=(3,))
    qkv = grads["blocks"][0]["mixer"]["qkv"]
    eps, direction = 1e-6, np.sign(qkv["a"])
    losses = [
        frozen.forward(
            with_leaves(
                params, {"blocks.0.mixer.qkv.a": params["blocks"][0]["mixer"]["qkv"]["a"] + shift}
            ),
            TOKENS,
            targets=TOKENS,
            key=(3,),
        )[0]
        for shift in (eps * direction, -eps * direction)
    ]
    np.testing.assert_allclose(
        (losses[0] - losses[1]) / (2 * eps), np.abs(qkv["a"]).sum(), rtol=1e-5
    )


def test_a_pattern_that_fits_nothing_lists_what_there_is():
    model = build("llama", vocab_size=7, **SIZES)
    with pytest.raises(ValueError, match=r"qvk fits none; there are .*mixer\.qkv\.v, .*up\.gate"):
        with_adapters(model, AdapterConfig(lora_rank=2, lora_targets="mlp.*,qvk"))


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"lora_rank": 0}, "lora_rank must be at least 1: got 0"),
        ({"lora_rank": 2, "adapter": "prompt"}, "one kind"),
        ({"lora_rank": 2, "lora_dropout": 1.0}, "lora_dropout must lie in"),
        ({"adapter": "p-tuning"}, "adapter must be"),
    ],
)
def test_bad_settings_are_refused(config, message):
    with pytest.raises(ValueError, match=message):
        AdapterConfig(**config)


@pytest.mark.parametrize("kind", ["bottleneck", "prefix", "prompt"])
def test_what_does_not_merge_says_so(kind):
    _, _, adapted, params = tuned(kind)
    with pytest.raises(ValueError, match=f"lora or dora: got {kind}"):
        merge(adapted, params)
