"""References that close over arrays, layers as keywords, outputs of several arrays."""

import types
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from functional_lm import compose
from functional_lm.contract import Stream
from functional_lm.layers import linear, rms_norm
from functional_lm.losses import cross_entropy
from functional_lm.testing import check_vjp, registry

RNG = np.random.default_rng(0)
X = RNG.standard_normal((3, 4))
IDS = np.array([0, 2, 1])
C = np.array([np.pi, 1 / 3, np.e, 0.1])
JITTED = jax.jit(lambda x: x * C)
KEEP = np.array([True, False, True, True])
with jax.enable_x64(True):
    JAX_C, JAX_IDS = jnp.array(C.copy()), jnp.array(IDS.copy())


def nested():
    scale, ids = C.copy(), IDS.astype(np.uint8)

    def inner(x):
        return x[ids] * scale

    return lambda params, x: inner(x)


REFERENCES = {
    "globals": lambda params, x: x[IDS] * C,
    "closures of closures": nested(),
    "a jitted reference": jax.jit(lambda params, x: x[IDS] * C),
    "a jitted helper": lambda params, x: JITTED(x)[IDS],
    "bool": lambda params, x: jnp.where(KEEP, x[IDS] * C, x[IDS] * C),
    "a scalar and an array without axes": lambda params, x: (
        x[IDS] * C * np.array(np.pi) / np.float64(np.pi)
    ),
    "JAX arrays of 64 bits": lambda params, x: x[JAX_IDS] * JAX_C,
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
    JITTED(np.float32(X))  # JAX has met C with 32 bits; the oracle needs all of them
    report = check_vjp(right, {}, X, reference=REFERENCES[kind])
    assert report.ok, str(report)
    assert report.leaves["y"].float64_error < 1e-14
    np.testing.assert_array_equal(JITTED(np.float32(X)), np.float32(X) * np.float32(C))
    wrong = types.SimpleNamespace(forward=forward, vjp=lambda r, g: ({}, vjp(r, g)[1] * 3))
    report = check_vjp(wrong, {}, X, reference=REFERENCES[kind])
    assert report.causes == {"x": "constant factor"}


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


@pytest.mark.parametrize("auxiliary", [np.array(0.3), np.float64(0.3)])
def test_a_stream_is_checked_leaf_by_leaf(auxiliary):
    stream = Stream(RNG.standard_normal((3, 5, 4)), auxiliary)

    def forward(params, stream):
        return Stream(stream.x * 2, stream.auxiliary * 1), ()

    def vjp(residuals, g):
        return {}, Stream(g.x * 2, g.auxiliary * 1)

    def report(**changes):
        layer = types.SimpleNamespace(**{"forward": forward, "vjp": vjp} | changes)
        return check_vjp(layer, {}, stream, reference=lambda params, s: s._replace(x=s.x * 2))

    said = report()
    assert said.ok, str(said)
    assert list(said.leaves) == ["y.x", "y.auxiliary", "x.x", "x.auxiliary"]
    forgets = report(vjp=lambda r, g: ({}, Stream(g.x * 2, g.auxiliary * 0)))
    assert forgets.causes == {"x.auxiliary": "never written"}

    def wrong_for_one_example(params, stream):
        y, _ = forward(params, stream)
        return (y._replace(x=y.x * 2) if len(stream.x) == 1 else y), ()

    assert report(forward=wrong_for_one_example).causes == {"y.x": "edge shape"}
