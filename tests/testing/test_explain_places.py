"""The signatures of single places in a backward, each by a small layer that is wrong there."""

import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from functional_lm.testing import check_vjp
from functional_lm.testing.explain.network import Network
from functional_lm.testing.oracle import JaxOracle

RNG = np.random.default_rng(3)
X = RNG.standard_normal((3, 4))
W = RNG.standard_normal((4, 4))
GATES = np.array([[0.0, 0.7, 0.3, 1.2], [0.4, 0.0, 0.6, 0.9], [0.8, 0.2, 0.0, 0.5]])
KEPT = np.array([[True, False], [False, True], [True, True]])


def causes(reference, vjp, x=X, **keywords):
    """Return {leaf: cause} for a layer whose residuals are its inputs."""

    def forward(params, x, **keywords):
        with jax.enable_x64(True):
            return np.array(reference(params, x, **keywords)), (x, keywords)

    def wrong(residuals, g):
        x, keywords = residuals
        return {}, vjp(x, g, **keywords)

    layer = types.SimpleNamespace(forward=forward, vjp=wrong)
    options = {"dtypes": "float64", "own_inputs": False}
    return check_vjp(layer, {}, x, reference=reference, **options, **keywords).causes


def slopes(x):
    """Return the slope of tanh."""
    return 1 - np.tanh(x) ** 2


def mixed(x, g):
    """Return the cotangent of tanh(x) in tanh(x) @ W."""
    return g @ W.T


def rms(x):
    return np.sqrt((x * x).sum(-1, keepdims=True))


def loop(params, x):
    h, y = 0.0, []
    for row in x:
        h = jnp.tanh(h * 0.7 + row)
        y.append(h)
    return jnp.stack(y)


def through_time(x, g, cut):
    d_x, d_h, h = np.zeros_like(x), np.zeros(x.shape[1]), np.asarray(loop({}, x))
    for t in reversed(range(len(x))):
        d_x[t] = (g[t] + d_h) * (1 - h[t] ** 2)
        d_h = d_x[t] * 0.7 if t % 2 != cut else 0 * d_h
    return d_x


def renormalised(x, xp=jnp):
    """Return two of the probabilities of a row, divided by their sum."""
    p = xp.exp(x) / xp.exp(x).sum(-1, keepdims=True)
    return p[:, :2] / p[:, :2].sum(-1, keepdims=True)


def chosen_down(x, g):
    y = renormalised(x, np)
    return y * (g - (y * g).sum(-1, keepdims=True))


def states(rows):
    return np.cumsum(rows[:, :3], axis=0)


def read_states(params, x):
    state, y = 0.0, []
    for row, q in zip(W[:, :3], x, strict=True):
        state = state + jnp.array(row, x.dtype)
        y.append(state * q)
    return jnp.stack(y)


def windows(x):
    return x[:, np.arange(2)[:, None] + np.arange(3)]  # (N, 2, 3)


CASES = {
    "the cotangent in the middle is masked": (
        "extra mask",
        lambda params, x: jnp.tanh(x @ jnp.array(W, x.dtype)),
        lambda x, g: np.tril(g * slopes(x @ W)) @ W.T,
    ),
    "g is read at its first row": (
        "misread",
        lambda params, x: jnp.tanh(x) @ jnp.array(W, x.dtype),
        lambda x, g: slopes(x) * mixed(x, np.repeat(g[:1], 3, axis=0)),
    ),
    "the last row is never written": (
        "written in part",
        lambda params, x: jax.nn.softmax(x, axis=0),
        lambda x, g: softmax_down(x, g) * [[1], [1], [0]],
    ),
    "each output writes to its own place": (
        "misplaced",
        lambda params, x: windows(x) @ W[0, :3],
        lambda x, g: np.pad(g * W[0, :3].sum(), [(0, 0), (0, 2)]),
    ),
    "what is paired is read a row too early": (
        "misread",
        lambda params, x: (x * x[::-1] ** 2).sum(axis=0),
        lambda x, g: g * (np.roll(x, 1, 0)[::-1] ** 2 + 2 * x * x[::-1]),
    ),
    "a root is taken once more": (
        "wrong point",
        lambda params, x: x / jnp.sqrt((x * x).sum(-1, keepdims=True)),
        lambda x, g: unit_down(x, g, np.sqrt(rms(x))),
    ),
    "a projection is not summed": (
        "missing sum",
        lambda params, x: x / jnp.sqrt((x * x).sum(-1, keepdims=True)),
        lambda x, g: g / rms(x) - x * (g * x) / rms(x) ** 3,
    ),
    "two terms of a quotient are wrong": (
        "wrong term",
        lambda params, x: (x * W[0]).sum() / (x * x).sum(),
        lambda x, g: g * (W[0] * (x * x).sum() + 2 * x * (x * W[0]).sum()),
    ),
    "equal entries each get all of g": (
        "missing factor",
        lambda params, x: x.max(axis=1),
        lambda x, g: g[:, None] * (x == x.max(axis=1, keepdims=True)),
        np.array([[1.0, 3.0, 3.0], [2.0, 0.5, 1.0], [4.0, 4.0, 4.0]]),
    ),
    "a largest entry is another one": (
        "misread",
        lambda params, x: windows(x).max(axis=-1),
        lambda x, g: largest_down(x, g),
    ),
    "a sum is broadcast along the other axis": (
        "transposed",
        lambda params, x: (x * x).sum(axis=1),
        lambda x, g: 2 * x * g,
        X[:, :3],
    ),
    "nothing passes every second turn": (
        "missing term",
        loop,
        lambda x, g: through_time(x, g, 1),
        RNG.standard_normal((4, 2)),
    ),
    "other rows are added": (
        "extra term",
        lambda params, x: x[:, ::-1] * W[0],
        lambda x, g: (g * W[0])[:, ::-1] + np.roll(g, 1, axis=0),
    ),
    "the cotangent of a hidden value is returned": (
        "missing factor",
        lambda params, x: jnp.sin(x @ jnp.array(W, x.dtype)),
        lambda x, g: g * np.cos(x @ W),
    ),
    "two sums are taken for constants, one through the other": (
        "missing term",
        lambda params, x: renormalised(x),
        lambda x, g: np.pad(renormalised(x, np) * g, [(0, 0), (0, 2)]),
    ),
    "the cotangents of the chosen go to the first": (
        "misplaced",
        lambda params, x: renormalised(x[:, 1:]),
        lambda x, g: np.pad(chosen_down(x[:, 1:], g), [(0, 0), (0, 2)]),
    ),
    "a state is read at the end of its chunk": (
        "mask leak",
        read_states,
        lambda x, g: g * states(W)[[1, 1, 3, 3]],
        X.T,
    ),
}


def softmax_down(x, g):
    y = np.exp(x) / np.exp(x).sum(0)
    return y * (g - (y * g).sum(0))


def unit_down(x, g, norm):
    return g / norm - x * (g * x).sum(-1, keepdims=True) / norm**3


def largest_down(x, g):
    d_x = np.zeros_like(x)
    last = np.argmax(x[:, 1:], axis=1) + 1
    for s in range(2):
        for n in range(len(x)):
            place = last[n] if s <= last[n] < s + 3 else s
            d_x[n, place] += g[n, s]
    return d_x


@pytest.mark.parametrize(
    ("cause", "reference", "vjp", "x"), [(*c, X)[:4] for c in CASES.values()], ids=CASES
)
def test_a_mistake_in_one_place_is_named(cause, reference, vjp, x):
    assert causes(reference, vjp, x) == {"x": cause}


def test_a_keyword_at_wrong_indices_is_named():
    def vjp(x, g, kept):
        return 2 * x * g * kept[0]

    found = causes(lambda params, x, kept: x * x * kept, vjp, X[:, :2], kept=KEPT)
    assert found == {"x": "misread"}


def test_a_share_that_is_not_taken_from_the_target_is_named():
    def labels(ids, share):
        return share * np.eye(4)[ids] + 0.05

    def reference(params, x, ids):
        return jax.nn.logsumexp(x, axis=-1).sum() - (labels(ids, 0.8) * x).sum()

    def vjp(x, g, ids):
        return g * (np.exp(x) / np.exp(x).sum(-1, keepdims=True) - labels(ids, 1.0))

    assert causes(reference, vjp, ids=np.array([2, 0, 2])) == {"x": "missing term"}


@pytest.mark.parametrize(("used", "cause"), [(4, "mask leak"), (2, "extra mask")])
def test_a_window_off_by_one_is_named(used, cause):
    def near(xp, width):
        return (xp.abs(xp.arange(6)[:, None] - xp.arange(6)) < width) * 1.0

    def vjp(x, g, width):
        return slopes(x) * (near(np, used).T @ g)

    found = causes(
        lambda params, x, width: near(jnp, width) @ jnp.tanh(x), vjp, X.reshape(6, 2), width=3
    )
    assert found == {"x": cause}


def test_an_error_along_the_value_is_named():
    def reference(params, x):
        return jnp.where(x > 0, 1.1 * x, 1.87 * jnp.expm1(jnp.minimum(x, 0)))

    def vjp(x, g):
        y = np.where(x > 0, 1.1 * x, 1.87 * np.expm1(np.minimum(x, 0)))
        return g * np.where(x > 0, 1.1, 1.1 * y + 1.87)

    assert causes(reference, vjp) == {"x": "wrong term"}


def test_a_gate_that_does_not_reach_what_it_multiplies_is_named():
    def vjp(x, g):
        return {"h": GATES * (g @ x["w"].T), "w": (x["h"] * (GATES != 0)).T @ g}

    found = causes(lambda params, x: (GATES * x["h"]) @ x["w"], vjp, {"h": X, "w": W})
    assert found == {"x.w": "missing factor"}


def test_other_leaves_in_a_leaf_are_named():
    def vjp(x, g):
        d_a, d_b = g * x["b"], g * x["a"]
        return {"a": d_a, "b": d_a + d_b}

    x = {"a": X, "b": RNG.standard_normal(X.shape)}
    assert causes(lambda params, x: x["a"] * x["b"], vjp, x) == {"x.b": "extra term"}


def test_a_network_multiplies_to_the_jacobian():
    def reference(params, x):
        return jax.nn.softmax(jnp.where(x > 1, -jnp.inf, x)) @ W

    oracle = JaxOracle(reference, {})
    g = [row.reshape(X.shape) for row in np.eye(X.size)]
    network = Network(oracle, ({}, X), g[0])
    down, (jacobian,) = network.pull(g, ({}, X))
    _, up = network.push(0, ({}, X))
    for i, unit in enumerate(g):
        exact = oracle.results(({}, X), unit, "float64")["x"]
        np.testing.assert_allclose(jacobian[i], exact, atol=1e-14)
    last = next(e.place for e in network.edges if e.step.name == "dot_general")
    np.testing.assert_allclose(down[:, last] @ up[last], jacobian.reshape(12, 12), atol=1e-14)
