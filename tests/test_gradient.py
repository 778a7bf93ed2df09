import functools

import jax
import numpy as np
import pytest

from functional_lm import pytree, value_and_grad
from functional_lm.compose import serial
from functional_lm.gradient import gauss_newton_product, hessian_product, lanczos, when_ready
from functional_lm.layers import linear
from functional_lm.losses import cross_entropy
from functional_lm.models import language_model
from functional_lm.models.llama import Config, architecture
from functional_lm.testing import registry
from functional_lm.testing.inputs import normal_like


def test_the_cotangent_of_a_loss_is_one():
    x = np.array([[0.0, 0.0]])
    loss, d_params = value_and_grad(cross_entropy, {}, x, targets=np.array([1]))
    assert loss == pytest.approx(np.log(2))
    assert d_params == {}


def test_an_output_that_is_no_scalar_is_refused():
    params = linear.init((0,), d_in=2, d_out=3)
    with pytest.raises(ValueError, match=r"scalar loss: got shape \(4, 3\)"):
        value_and_grad(linear, params, np.ones((4, 2), np.float32))


def inner(a, b):
    return sum(np.vdot(x, y) for x, y in zip(pytree.leaves(a), pytree.leaves(b), strict=True))


@pytest.fixture(scope="module")
def transformer():
    """Return a model with its case, and two vectors."""
    cases = registry.cases("transformer")
    case = next(case for case in cases if case.label == "untied, half")
    vectors = normal_like((0,), (case.params, case.params))
    model = case.keywords["model"]
    return case, functools.partial(gauss_newton_product, model, case.params, case.x), *vectors


def test_the_gauss_newton_product_is_that_of_jax(transformer):
    case, product, v, _ = transformer
    model, twin = registry.twin(case.keywords["model"]), registry.modules("transformer")[1]

    def oracle(params, v):
        def logits(params):
            return twin.forward(params, case.x, model=model)

        def loss(z):  # its Hessian does not depend on the targets
            return (jax.nn.logsumexp(z, axis=-1) - z[..., 0]).mean()

        z, t_z = jax.jvp(logits, (params,), (v,))
        _, h = jax.jvp(jax.grad(loss), (z,), (t_z,))
        return jax.vjp(logits, params)[1](h)[0]

    with jax.enable_x64(True):
        expected = jax.jit(oracle)(case.params, v)
    for path, theirs, ours in pytree.zip_with_path(jax.tree.map(np.asarray, expected), product(v)):
        assert np.linalg.norm(ours - theirs) <= 1e-11 * np.linalg.norm(theirs), path


def test_the_gauss_newton_matrix_is_symmetric_and_positive(transformer):
    _, product, v, w = transformer
    assert inner(w, product(v)) == pytest.approx(inner(v, product(w)), rel=1e-11)
    assert inner(v, product(v)) > 0


def test_a_leaf_that_is_not_trained_stands_still(transformer):
    case, product, v, _ = transformer
    some, _ = pytree.partition(v, lambda path: path.startswith("blocks"))
    still = pytree.map(lambda p, leaf: p * 0 if leaf is None else leaf, case.params, some)
    for path, _, ours in pytree.zip_with_path(case.params, product(some)):
        assert (ours is None) != path.startswith("blocks")
    assert inner(some, product(some)) == pytest.approx(inner(still, product(still)), rel=1e-14)


def test_the_hessian_of_a_linear_model_is_its_gauss_newton_matrix():
    params = linear.init((0,), d_in=3, d_out=5, bias=True, dtype=np.float64)
    x, targets = np.random.default_rng(1).standard_normal((7, 3)), np.arange(7) % 5
    v = normal_like((2,), params)
    for some in (v, {**v, "bias": None}):
        (ours, _) = hessian_product(
            serial(linear, cross_entropy), (params, {}), x, (some, {}), targets=targets
        )
        expected = gauss_newton_product(linear, params, x, some)
        assert ours.keys() == expected.keys()
        for path, theirs, mine in pytree.zip_with_path(expected, ours):
            np.testing.assert_allclose(mine, theirs, rtol=1e-7, atol=1e-9, err_msg=path)
        assert (ours["bias"] is None) == (some["bias"] is None)


def test_lanczos_finds_the_sharpness_of_a_linear_model():
    params = {"weight": np.random.default_rng(5).standard_normal((3, 4))}
    x = np.random.default_rng(6).standard_normal((7, 3))
    product = functools.partial(gauss_newton_product, linear, params, x)
    columns = [product({"weight": unit.reshape(3, 4)})["weight"].ravel() for unit in np.eye(12)]
    values, _ = lanczos(product, params, (0,), steps=12)
    assert values[0] == pytest.approx(np.linalg.eigvalsh(columns)[-1], rel=1e-12)
    assert values.min() > -1e-14


def test_lanczos_finds_the_eigenvalues_of_a_matrix():
    rng = np.random.default_rng(3)
    root, _ = np.linalg.qr(rng.standard_normal((30, 30)))
    exact = np.r_[9.0, 5.0, -4.0, np.linspace(-1, 1, 27)]
    matrix = root * exact @ root.T
    like = {"a": np.zeros((4, 5)), "b": (np.zeros(10), None)}

    def product(v):
        flat = matrix @ np.concatenate([v["a"].ravel(), v["b"][0]])
        return {"a": flat[:20].reshape(4, 5), "b": (flat[20:], None)}

    values, bounds = lanczos(product, like, (0,), steps=100)
    np.testing.assert_allclose(values, np.sort(exact)[::-1], atol=1e-12)
    assert bounds.max() < 1e-10
    values, bounds = lanczos(product, like, (0,), steps=9)
    for value, bound in zip(values, bounds, strict=True):
        assert np.abs(exact - value).min() <= bound + 1e-12
    assert values[0] == pytest.approx(9, rel=1e-4)


def test_lanczos_stops_where_the_space_closes():
    u = np.random.default_rng(4).standard_normal(50)
    values, _ = lanczos(lambda v: u * (u @ v), u, (0,), steps=20)
    assert len(values) == 2  # along u, and what is left of the start
    np.testing.assert_allclose(values, [u @ u, 0], atol=1e-12)
    with pytest.raises(ValueError, match="like must hold arrays: got None"):
        lanczos(lambda v: v, None, (0,), steps=1)


def test_parts_of_a_gradient_are_told_of_from_the_top():
    model = architecture(Config(5, d_model=8, n_heads=2, n_layers=3, d_ff=4, max_seq_len=3))
    params = language_model.init((0,), model=model)
    tokens = np.arange(6).reshape(2, 3) % 5
    told = []
    with when_ready(lambda path, d_params: told.append((path, d_params))):
        _, grads = value_and_grad(language_model, params, tokens, targets=tokens, model=model)
    assert [path for path, _ in told] == ["blocks.2", "blocks.1", "blocks.0"]
    assert all(part is grads["blocks"][i] for i, (_, part) in zip((2, 1, 0), told, strict=True))
    value_and_grad(language_model, params, tokens, targets=tokens, model=model)
    assert len(told) == 3  # nobody is told outside
