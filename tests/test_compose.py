import chex
import numpy as np
import pytest

from functional_lm import prng, pytree
from functional_lm.compose import bind, remat, repeat, residual, serial
from functional_lm.layers import dropout, embedding, linear, rms_norm, silu, unembedding
from functional_lm.losses import cross_entropy
from functional_lm.models import language_model, llama, mlp, self_attention, transformer
from functional_lm.testing import check_vjp

CONFIG = llama.Config(
    13, d_model=24, n_heads=6, n_kv_heads=2, n_layers=2, d_ff=7, tie_embeddings=False
)
MODEL = llama.architecture(CONFIG)
TOKENS = prng.integers((1,), (3, 8), low=0, high=13)
X, Y = TOKENS[:, :-1], TOKENS[:, 1:]


def sketch(wrap=lambda layer: layer):
    """Return the transformer with a loss, made of combinators."""
    block = serial(
        residual(serial(norm1=rms_norm, mixer=bind(self_attention, n_heads=6, n_kv_heads=2))),
        residual(serial(norm2=rms_norm, mlp=mlp)),
    )
    return serial(
        embedding=embedding,
        blocks=repeat(wrap(block), 2),
        norm=rms_norm,
        unembedding=unembedding,
        loss=cross_entropy,
    )


def rearrange(params):
    """Return the params of the written-out model in the structure of the sketch."""
    blocks = tuple(
        (
            {"norm1": block["norm1"], "mixer": block["mixer"]},
            {"norm2": block["norm2"], "mlp": block["mlp"]},
        )
        for block in params["blocks"]
    )
    return {**params, "blocks": blocks, "loss": {}}


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("wrap", [lambda layer: layer, remat], ids=["plain", "remat"])
def test_combinators_equal_the_written_out_model_bit_for_bit(dtype, wrap):
    params = language_model.init((0,), model=MODEL, dtype=dtype)
    loss, residuals = language_model.forward(params, X, targets=Y, model=MODEL)
    d_params, _ = language_model.vjp(residuals, np.ones_like(loss))

    model = sketch(wrap)
    side = {"targets": Y, "positions": np.arange(7)}
    sketch_loss, sketch_residuals = model.forward(rearrange(params), X, **side)
    d_sketch, d_tokens = model.vjp(sketch_residuals, np.ones_like(loss))
    assert sketch_loss == loss
    assert d_tokens is None
    chex.assert_trees_all_equal(d_sketch, rearrange(d_params))
    t_loss = language_model.jvp(residuals, (params, None))
    t_params = {**rearrange(params), "loss": {}}
    assert model.jvp(sketch_residuals, (t_params, None)) == pytest.approx(t_loss, rel=1e-6)


def test_init_sends_each_size_to_the_layers_that_name_it():
    sizes = {"vocab_size": 13, "d_model": 24, "d_ff": 7}
    params = sketch().init((0,), **sizes, dtype=np.float64)
    written = rearrange(transformer.init((0,), model=MODEL, dtype=np.float64))
    shapes = pytree.map(lambda leaf: leaf.shape, {k: params[k] for k in written})
    assert shapes["unembedding"] == {"weight": (13, 24)}
    assert shapes["blocks"][1][1]["mlp"]["up"] == {"weight": (24, 14)}
    first, second = (block[1]["mlp"]["down"]["weight"] for block in params["blocks"])
    assert (first != second).any()


def test_remat_keeps_the_inputs_only():
    x = np.ones((2, 3, 24))
    block = serial(bind(linear, d_in=24, d_out=24), silu)
    params = block.init((0,), dtype=np.float64)
    y, kept = remat(block).forward(params, x)
    expected, residuals = block.forward(params, x)
    np.testing.assert_array_equal(y, expected)
    arrays = pytree.leaves(kept)
    assert {id(a) for a in arrays} == {id(x), id(params[0]["weight"])}
    g = np.ones_like(y)
    chex.assert_trees_all_equal(remat(block).vjp(kept, g), block.vjp(residuals, g))


def test_the_gradient_of_a_sketch_is_the_difference_quotient():
    params = sketch().init((0,), vocab_size=13, d_model=24, d_ff=7, dtype=np.float64)
    side = {"targets": Y, "positions": np.arange(7)}
    report = check_vjp(sketch(), params, X, dtypes=("float64",), own_inputs=False, **side)
    report.raise_if_failed()
    assert len(report.leaves) == 15


def test_a_key_is_split_between_layers():
    model = serial(bind(dropout, rate=0.5), bind(dropout, rate=0.5))
    y, residuals = model.forward(({}, {}), np.ones((5, 7)), key=(3,))
    first, second = (r.multiplier for r in residuals)
    expected, _ = dropout.forward({}, np.ones((5, 7)), rate=0.5, key=(3, 0))
    np.testing.assert_array_equal(first, expected)
    assert (first != second).any()
    np.testing.assert_array_equal(y, first * second)
    same, _ = model.forward(({}, {}), np.ones((5, 7)))
    np.testing.assert_array_equal(same, np.ones((5, 7)))


def test_positional_and_named_layers():
    params = serial(bind(linear, d_in=3, d_out=5), silu).init((0,))
    assert isinstance(params, tuple)
    params = serial(a=bind(linear, d_in=3, d_out=5), b=silu).init((0,))
    assert list(params) == ["a", "b"]
    for layers, named in (((), {}), ((silu,), {"b": silu})):
        with pytest.raises(TypeError, match="either positional or named"):
            serial(*layers, **named)


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: bind(linear, d_inn=3), "linear takes .*d_in.*: got d_inn"),
        (lambda: serial(silu).init((0,), d_model=3), "got d_model"),
        (lambda: serial(silu).forward(({},), np.ones(3), eps=1), "got eps"),
        (lambda: residual(linear).init((0,), d_in=3, d_out=3, dtpye=1), "got dtpye"),
        (lambda: remat(linear).init((0,), d_in=3, d_out=3, dtpye=1), "got dtpye"),
        (lambda: bind(linear, d_in=3, d_out=3).init((0,), d_in=9), "got d_in"),
        (lambda: bind(dropout, rate=0.5).forward({}, np.ones(3), rate=0.1), "got rate"),
        (lambda: repeat(serial(silu), 2).forward(({}, {}), np.ones(3), eps=1), "got eps"),
    ],
)
def test_keywords_that_no_layer_names_are_refused(call, says):
    with pytest.raises(TypeError, match=says):
        call()


def test_remat_drops_the_same_the_second_time():
    layer = serial(bind(dropout, rate=0.5))
    x = np.ones((5, 7))
    y, residuals = remat(layer).forward(({},), x, key=(3,))
    _, d_x = remat(layer).vjp(residuals, x)
    np.testing.assert_array_equal(d_x, y)


@pytest.mark.parametrize(
    "call",
    [
        lambda: residual(bind(linear, d_in=3, d_out=1)).forward(
            {"weight": np.ones((3, 1))}, np.ones((2, 3))
        ),
        lambda: residual(silu).forward({}, (np.ones(3), np.ones(3))),
    ],
)
def test_residual_never_broadcasts(call):
    with pytest.raises((ValueError, TypeError), match=r"residual needs an array|NumPy array"):
        call()


@pytest.mark.parametrize("params", [({},), [{}, {}], {"a": {}}, None])
def test_params_for_other_layers_are_refused(params):
    with pytest.raises((ValueError, TypeError), match=r"params for its 2 layers"):
        serial(silu, silu).forward(params, np.ones(3))
    with pytest.raises((ValueError, TypeError), match=r"params must"):
        serial(a=silu, b=silu).forward(params, np.ones(3))
