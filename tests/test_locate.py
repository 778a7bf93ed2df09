"""An error from inside a model says which layer, which file and which line it came from."""

import inspect
import re

import numpy as np
import pytest

from functional_lm import layers, losses, models, prng
from functional_lm.compose import bind, remat, repeat, residual, serial
from functional_lm.layers import dropout, embedding, linear, rms_norm, silu, unembedding
from functional_lm.models import build, llama, mlp, self_attention
from functional_lm.models.loading import of_config, resolve

TOKENS = prng.integers((1,), (2, 5), low=0, high=13)
X = np.ones((2, 5, 8), np.float32)


class Breaks:
    """An activation that fails forward, back, or with an error that is not plain text."""

    def __init__(self, place, error):
        self.place, self.error = place, error

    def init(self, key=(), *, dtype=np.float32):
        return {}

    def forward(self, params, x):
        if self.place == "forward":
            raise self.error
        return x, x

    def vjp(self, residuals, g):
        if self.place == "vjp":
            raise self.error
        return {}, g


LINES = {
    function.__name__: inspect.getsourcelines(function)[1] + 2
    for function in (Breaks.forward, Breaks.vjp)
}


def run(layer, params, x, **side):
    y, residuals = layer.forward(params, x, **side)
    layer.vjp(residuals, y)


def transformer(act, **settings):
    model = llama.architecture(llama.Config(13, d_model=8, n_heads=2, n_layers=2, **settings))
    feed_forward = bind(mlp, d_model=8, d_ff=8, gated=False, activation=act)
    return model._replace(blocks=tuple(b._replace(mlp=feed_forward) for b in model.blocks))


def custom(act):
    block = residual(serial(norm=rms_norm, up=bind(linear, d_in=8, d_out=8), act=act))
    return serial(embedding=embedding, think=repeat(block, 2), unembedding=unembedding)


def in_a_transformer(act):
    model = transformer(act)
    run(model, model.init((0,)), TOKENS)


def rematerialised(act):
    model = transformer(act, remat=True)
    run(model, model.init((0,)), TOKENS)


def as_a_language_model(act):
    model = of_config(*resolve(custom(act)), {"vocab_size": 13, "d_model": 8})
    _, residuals = model.forward(model.init((0,)), TOKENS, targets=TOKENS)
    model.vjp(residuals, np.float32(1))


def in_a_frozen_model(act):
    model = transformer(act)
    params = model.init((0,))
    run(model.freeze(params, lambda path: "norm" in path), params, TOKENS)


def composed(act):
    model = custom(act)
    run(model, model.init((0,), vocab_size=13, d_model=8), TOKENS)


def wrapped(act):
    model = remat(residual(serial(rms_norm, act)))
    run(model, model.init((0,), d_model=8), X)


@pytest.mark.parametrize("place", ["forward", "vjp"])
@pytest.mark.parametrize(
    ("call", "paths"),
    [
        (in_a_transformer, ("blocks.0.mlp.activation", "blocks.1.mlp.activation")),
        (rematerialised, ("blocks.0.mlp.activation", "blocks.1.mlp.activation")),
        (in_a_frozen_model, ("blocks.0.mlp.activation", "blocks.1.mlp.activation")),
        (as_a_language_model, ("think.0.act", "think.1.act")),
        (composed, ("think.0.act", "think.1.act")),
        (wrapped, ("1", "1")),
    ],
)
def test_the_path_the_file_and_the_line_are_named(call, paths, place):
    error = ValueError("wrong shape")
    with pytest.raises(ValueError, match="wrong shape") as caught:
        call(Breaks(place, error))
    assert caught.value is error
    path = paths[place == "vjp"]
    assert str(error) == f"{path} (test_locate.py, line {LINES[place]}): wrong shape"


@pytest.mark.parametrize("error", [KeyError("weight"), ZeroDivisionError(), OSError(2, "gone")])
def test_an_error_without_a_plain_message_gets_a_note(error):
    error.add_note("another note")
    args = error.args
    with pytest.raises(type(error)):
        in_a_transformer(Breaks("forward", error))
    line = LINES["forward"]
    where = f"layer blocks.0.mlp.activation (test_locate.py, line {line})"
    assert error.__notes__ == ["another note", where]
    assert error.args == args


MODEL = build("llama", vocab_size=13, d_model=8, n_heads=2, n_layers=2)
ATTENTION = bind(self_attention, d_model=8, n_heads=2)


def changed(path, value):
    params = MODEL.init((0,))
    *inner, last = path.split(".")
    node = params
    for name in inner:
        node = node[int(name) if name.isdigit() else name]
    node[last] = value
    return params


def in_a_block(mixer):
    model = MODEL.model
    model = model._replace(blocks=tuple(b._replace(mixer=mixer) for b in model.blocks))
    model.forward(model.init((0,)), TOKENS)


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (
            lambda: MODEL.logits(changed("blocks.1.mixer.qkv.weight", np.ones((3, 3))), TOKENS),
            "blocks.1.mixer.qkv (linear.py, line #): x and weight must share one dtype",
        ),
        (
            lambda: MODEL.logits(changed("blocks.0.norm2.scale", X[0, 0, :7]), TOKENS),
            "blocks.0.norm2 (rms_norm.py, line #): x must have shape (..., D) with D=7",
        ),
        (
            lambda: MODEL.logits(MODEL.init((0,)), TOKENS + 13),
            "embedding (embedding.py, line #): tokens must lie in [0, 13)",
        ),
        (
            lambda: MODEL.forward(MODEL.init((0,)), TOKENS, targets=TOKENS + 13),
            "unembedding (linear_cross_entropy.py, line #): targets must lie in [0, 13)",
        ),
        (
            lambda: serial(a=silu, b=embedding).init((0,), vocab_size=0, d_model=8),
            "b (embedding.py, line #): vocab_size must be at least 1",
        ),
        (
            lambda: serial(a=embedding).init((0,)),
            "a: embedding requires 'vocab_size' and 'd_model': got none; pass by keyword, or fix",
        ),
        (
            lambda: serial(a=silu, b=ATTENTION).forward({"a": {}, "b": ATTENTION.init((0,))}, X),
            "b: self_attention requires 'positions': got none; pass by keyword, or fix with bind",
        ),
        (lambda: ATTENTION.forward(ATTENTION.init((0,)), X), "self_attention requires 'positions'"),
        (lambda: residual(linear).init((0,), d_in=3), "linear requires 'd_out': got none"),
        (lambda: residual(silu).forward({}, X, eps=1), "silu takes no keyword 'eps'"),
        (
            lambda: in_a_block(bind(dropout, rate=0.0)),
            "blocks.0.mixer (compose.py, line #): dropout takes the keywords {key}: got positions",
        ),
        (lambda: in_a_block(dropout), "blocks.0.mixer: mixer takes no keyword 'positions'"),
    ],
)
def test_what_a_layer_refuses_names_the_layer(call, says):
    with pytest.raises((TypeError, ValueError)) as caught:
        call()
    assert re.sub(r"line \d+", "line #", str(caught.value)).startswith(says)


def test_a_layer_alone_says_nothing_more():
    with pytest.raises(ValueError, match=r"^x must have shape"):
        bind(rms_norm, eps=1e-3).forward({"scale": np.ones(3)}, np.ones(4))


MODULES = [
    module
    for package in (layers, losses, models)
    for name in package.__all__
    if inspect.ismodule(module := getattr(package, name)) and hasattr(module, "Residuals")
]


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.__name__)
def test_an_input_in_place_of_residuals_is_refused(module):
    name = module.__name__.rpartition(".")[2]
    says = rf"residuals must be those of {name}: got ndarray; pass the second value that {name}"
    with pytest.raises(TypeError, match=says):
        module.vjp(X, X)
    if hasattr(module, "input_vjp"):
        with pytest.raises(TypeError, match=says):
            module.input_vjp(X, X)


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: serial(a=silu, b=np.tanh), "serial needs layers, .* got tanh for b, without init"),
        (lambda: serial(silu, [linear]), "serial needs layers, .* got list for 1"),
        (lambda: bind(lambda params, x: x), "bind needs layers"),
        (lambda: residual(silu.forward), "residual needs layers, .* got forward, without"),
        (lambda: remat(3), "remat needs layers, .* got int"),
        (lambda: repeat(linear.init, 2), "serial needs layers, .* got init for 0"),
    ],
)
def test_what_is_not_a_layer_is_named(call, says):
    with pytest.raises(TypeError, match=says):
        call()
