"""References that close over arrays, layers as keywords, outputs of several arrays."""

import functools
import types
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from functional_lm import compose
from functional_lm.contract import expect_params
from functional_lm.layers import linear, rms_norm
from functional_lm.losses import cross_entropy
from functional_lm.testing import check_vjp, registry

RNG = np.random.default_rng(0)
X = RNG.standard_normal((3, 4))
IDS = np.array([0, 2, 1])
C = np.array([np.pi, 1 / 3, np.e, 0.1])
JAX_IDS = jnp.array(IDS.copy())
BOTH = (C, IDS)
JITTED = jax.jit(lambda x: x * C)
EACH_ROW = jax.vmap(lambda row: row * C)


def helper(x):
    return x[BOTH[1]] * BOTH[0]


class Scaled:
    def __init__(self):
        self.settings = {"scale": [C.copy()]}

    def forward(self, params, x):
        return x[IDS] * self.settings["scale"][0]


def deep():
    scale, ids = C.copy(), IDS.astype(np.uint8)

    def inner(x):
        return x[ids] * scale

    return lambda params, x: inner(x)


KEEP = np.array([True, False, True, True])
REFERENCES = {
    "globals": lambda params, x: x[IDS] * C,
    "a helper's globals": lambda params, x: helper(x),
    "closures of closures": deep(),
    "a default": lambda params, x, c=C: x[IDS] * c,
    "a jitted reference": jax.jit(lambda params, x: x[IDS] * C),
    "a jitted helper": lambda params, x: JITTED(x)[IDS],
    "a vmapped helper": lambda params, x: EACH_ROW(x)[IDS],
    "a partial": functools.partial(lambda c, params, x: x[IDS] * c, C),
    "an object": Scaled(),
    "bool": lambda params, x: jnp.where(KEEP, x[IDS] * C, x[IDS] * C),
    "a scalar and an array without axes": lambda params, x: (
        x[IDS] * C * np.array(np.pi) / np.float64(np.pi)
    ),
    "a JAX array": lambda params, x: x[JAX_IDS] * C,
}


@pytest.mark.parametrize("kind", REFERENCES)
def test_a_reference_may_refer_to_any_array(kind):
    def forward(params, x):
        return x[IDS] * C.astype(x.dtype), None

    def vjp(residuals, g):
        d_x = np.zeros_like(g)
        d_x[IDS] = g * C.astype(g.dtype)
        return {}, d_x

    right = types.SimpleNamespace(forward=forward, vjp=vjp)
    JITTED(np.float32(X))  # JAX has met C without 64 bits; the oracle needs all of them
    report = check_vjp(right, {}, X, reference=REFERENCES[kind])
    assert report.ok, str(report)
    assert report.leaves["y"].float64_error < 1e-14
    wrong = types.SimpleNamespace(forward=forward, vjp=lambda r, g: ({}, vjp(r, g)[1] * 3))
    report = check_vjp(wrong, {}, X, reference=REFERENCES[kind])
    assert report.causes == {"x": "constant factor"}


def test_a_64_bit_jax_array_may_be_closed_over():
    with jax.enable_x64(True):
        c = jnp.array(C.copy())
    layer = types.SimpleNamespace(
        forward=lambda params, x: (x * C.astype(x.dtype), None),
        vjp=lambda residuals, g: ({}, g * C.astype(g.dtype)),
    )
    assert check_vjp(layer, {}, X, reference=lambda params, x: x * c)


class Members(NamedTuple):
    norm: Any
    projection: Any
    scale: float


def test_the_twin_of_a_value_is_found_member_by_member():
    inner = compose.bind(linear, d_in=4, d_out=4)
    value = Members(compose.bind(rms_norm, eps=0.5), (inner, {"loss": cross_entropy}), 2.0)
    found = registry.twin(value)
    assert type(found) is Members
    assert found.norm.settings == {"eps": 0.5}
    assert found.projection[0].settings == {}  # sizes are for init, which a twin has not
    assert found.projection[1] == {"loss": registry.modules("cross_entropy")[1]}
    assert found.scale == 2.0
    x = np.float32(X)
    params = {"scale": np.float32(C)}
    expected = registry.modules("rms_norm")[1].forward(params, x, eps=0.5)
    np.testing.assert_array_equal(found.norm.forward(params, x), expected)
    assert registry.twin(np) is np


class Stream(NamedTuple):
    x: Any
    auxiliary: Any  # a scalar


class StreamResiduals(NamedTuple):
    members: Members
    projection: Any
    norm: Any


def stream_layer():
    """y = Stream(projection(norm(x)) · scale, auxiliary); wired as a block is."""

    def forward(params, stream, *, members):
        expect_params(params, ["norm", "projection"])
        h, norm = members.norm.forward(params["norm"], stream.x)
        y, projection = members.projection.forward(params["projection"], h)
        residuals = StreamResiduals(members, projection, norm)
        return Stream(y * members.scale, stream.auxiliary * 1), residuals

    def vjp(residuals, g):
        members = residuals.members
        d_projection, d_h = members.projection.vjp(residuals.projection, g.x * members.scale)
        d_norm, d_x = members.norm.vjp(residuals.norm, d_h)
        return {"norm": d_norm, "projection": d_projection}, Stream(d_x, g.auxiliary * 1)

    return types.SimpleNamespace(__name__="stream", forward=forward, vjp=vjp)


def stream_reference(params, stream, *, members):
    y = members.projection.forward(
        params["projection"], members.norm.forward(params["norm"], stream.x)
    )
    return Stream(y * members.scale, stream.auxiliary)


@pytest.mark.parametrize("auxiliary", [np.array(0.3), np.float64(0.3)])
def test_a_block_of_layers_with_a_stream_is_checked_leaf_by_leaf(auxiliary, monkeypatch):
    members = Members(compose.bind(rms_norm, eps=0.5), compose.bind(linear, d_in=4), 2.0)
    params = {"norm": {"scale": C}, "projection": {"weight": RNG.standard_normal((4, 4))}}
    stream = Stream(RNG.standard_normal((3, 5, 4)), auxiliary)
    case = registry.Case("stream", "members", params, stream, {"members": members})
    reference = types.SimpleNamespace(forward=stream_reference)

    def report(layer):
        monkeypatch.setattr(registry, "modules", lambda name: (layer, reference))
        return registry.check_layer("stream", case)[0]

    right = stream_layer()
    said = report(right)
    assert said.ok, str(said)
    assert {"y.x", "y.auxiliary", "x.x", "x.auxiliary", "params.norm.scale"} <= set(said.leaves)

    def forgets_the_auxiliary(residuals, g):
        d_params, d_x = stream_layer().vjp(residuals, g)
        return d_params, d_x._replace(auxiliary=d_x.auxiliary * 0)

    said = report(types.SimpleNamespace(forward=right.forward, vjp=forgets_the_auxiliary))
    assert said.causes == {"x.auxiliary": "never written"}

    def wrong_for_one_example(params, stream, *, members):
        y, residuals = right.forward(params, stream, members=members)
        return (y._replace(x=y.x * 2) if len(stream.x) == 1 else y), residuals

    said = report(types.SimpleNamespace(forward=wrong_for_one_example, vjp=right.vjp))
    assert said.causes == {"y.x": "edge shape"}
