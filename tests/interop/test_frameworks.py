import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from functional_lm.heads import QKV, Visibility
from functional_lm.interop import as_jax, as_torch, from_jax, from_object, from_pair, from_torch
from functional_lm.layers import attention, embedding, linear, rms_norm
from functional_lm.testing import check_vjp

X = np.random.default_rng(0).standard_normal((3, 5, 7))
W = np.random.default_rng(1).standard_normal((7, 2))


def softsign(x):
    return x / (1 + abs(x))


def product(params, x):
    return x @ params["weight"]


def test_a_pair_of_functions_is_a_layer():
    right = from_pair(softsign, lambda g, x: g / (1 + abs(x)) ** 2)
    wrong = from_pair(softsign, lambda g, x: g / (1 + abs(x)))
    reference = lambda params, x: x / (1 + jnp.abs(x))  # noqa: E731
    assert check_vjp(right, {}, X, reference=reference)
    assert not check_vjp(wrong, {}, X, reference=reference)


@pytest.mark.parametrize("by_name", [False, True])
def test_several_inputs_and_outputs_by_position_or_name(by_name):
    def forward(a, b, *, scale):
        return {"sum": scale * (a + b), "product": a * b}

    def backward(g, a, b, *, scale):
        d_a = scale * g["sum"] + g["product"] * b
        d_b = scale * g["sum"] + g["product"] * a
        return {"b": d_b, "a": d_a} if by_name else (d_a, d_b)

    x = {"a": X, "b": X[::-1].copy()}
    report = check_vjp(
        from_pair(forward, backward),
        {},
        x if by_name else tuple(x.values()),
        reference=lambda params, x, *, scale: forward(
            **(x if by_name else dict(zip("ab", x, strict=True))), scale=scale
        ),
        scale=3.0,
    )
    assert report, report


def test_a_pair_with_a_cache_parameters_and_integers():
    def forward(params, ids, x):
        y = params["table"][ids] * x
        return y, (params, ids, x)

    def backward(g, cache):
        params, ids, x = cache
        d_table = np.zeros_like(params["table"])
        np.add.at(d_table, ids, g * x)
        return {"table": d_table}, None, g * params["table"][ids]

    layer = from_pair(forward, backward, cache=True)
    ids = np.array([0, 2, 2])
    params = {"table": X[0, :3]}
    report = check_vjp(
        layer, params, (ids, X[1, :3]), reference=lambda p, x: p["table"][x[0]] * x[1]
    )
    assert report, report


def test_a_wrong_number_of_gradients_is_reported():
    layer = from_pair(lambda a, b: a + b, lambda g, a, b: g)
    y, residuals = layer.forward({}, (X, X))
    with pytest.raises(ValueError, match="a gradient for each of 2 inputs: got 1"):
        layer.vjp(residuals, y)
    named = from_pair(lambda a: a, lambda g, a: {"x": g})
    y, residuals = named.forward({}, {"a": X})
    with pytest.raises(ValueError, match="gradients of a: got x; rename it"):
        named.vjp(residuals, y)


class Dense:
    """A stateful layer, as courses teach it."""

    def __init__(self, factor=1.0):
        self.parameters = {"W": W.copy()}
        self.b = np.ones(2)
        self.gradients = {"W": np.zeros_like(W)}
        self.factor = factor

    def forward(self, x):
        self.x = x
        return x @ self.parameters["W"] + self.b

    def backward(self, dout):
        rows = dout.reshape(-1, 2)
        self.gradients["W"] += self.factor * self.x.reshape(-1, 7).T @ rows
        self.db = rows.sum(axis=0)
        return dout @ self.parameters["W"].T


def test_a_stateful_object_is_a_layer_without_state():
    def layer(factor):
        return from_object(Dense(factor), {"w": ("parameters.W", "gradients.W"), "b": "db"})

    params = layer(1.0).init()
    np.testing.assert_array_equal(params["w"], W)
    reference = lambda p, x: x @ p["w"] + p["b"]  # noqa: E731
    only = {"dtypes": "float64"}  # its gradients are float64 whatever comes
    assert (report := check_vjp(layer(1.0), params, X, reference=reference, **only)), report
    report = check_vjp(layer(3.0), params, X, reference=reference, **only)
    assert [leaf for leaf, found in report.leaves.items() if not found.ok] == ["params.w"]


def test_from_jax_has_the_backward_of_the_function():
    @jax.custom_vjp
    def doubled(x):
        return 2 * x

    doubled.defvjp(lambda x: (2 * x, None), lambda _, g: (3 * g,))
    reference = lambda params, x: 2 * x  # noqa: E731
    assert not check_vjp(from_jax(doubled), {}, X, reference=reference)
    plain = {"own_inputs": False}  # each shape is one more to compile
    report = check_vjp(from_jax(product), {"weight": W}, X, reference=product, **plain)
    assert report, report
    taken = from_jax(lambda x, ids: x[ids])
    x = (X[0], np.array([1, 1, 4]))
    assert check_vjp(taken, {}, x, reference=lambda params, x: x[0][x[1]], **plain)


def test_from_torch_takes_functions_modules_and_pairs():
    torch = pytest.importorskip("torch", reason="needs torch")

    class Square(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            return x * x

        @staticmethod
        def backward(ctx, g):
            (x,) = ctx.saved_tensors
            return g * x  # half of it

    squares = lambda params, x: x * x  # noqa: E731
    report = check_vjp(from_torch(Square), {}, X, reference=squares)
    assert {f.cause for f in report.findings} == {"constant factor"}, report
    assert check_vjp(from_torch(lambda x: x * x), {}, X, reference=squares)
    pair = from_torch(lambda x: torch.sin(x), lambda g, x: g * torch.cos(x))
    assert check_vjp(pair, {}, X, reference=lambda params, x: jnp.sin(x))

    module = torch.nn.Sequential(torch.nn.Linear(7, 2), torch.nn.Tanh()).double()
    layer = from_torch(module)
    report = check_vjp(
        layer,
        layer.init(),
        X,
        reference=lambda p, x: jnp.tanh(x @ p["0"]["weight"].T + p["0"]["bias"]),
    )
    assert report, report


def test_tensors_keep_dtype_and_layout():
    torch = pytest.importorskip("torch", reason="needs torch")
    seen = []

    def note(x):
        seen.append((x.dtype, x.stride()))
        return x.sum()

    layer = from_torch(note)
    for x in (X.astype(np.float32), X.T, X[:, ::2], np.broadcast_to(X[:, :1], X.shape), X[::-1]):
        y, _ = layer.forward({}, x)
        np.testing.assert_allclose(y, x.sum(), rtol=1e-5)
    assert seen == [
        (torch.float32, (35, 7, 1)),
        (torch.float64, (1, 7, 35)),
        (torch.float64, (35, 14, 1)),
        (torch.float64, (7, 0, 1)),
        (torch.float64, (35, 7, 1)),  # PyTorch has no negative strides
    ]


def qkv():
    rng = np.random.default_rng(2)
    return QKV(*(rng.standard_normal((2, 2, 5, 3)).astype(np.float32) for _ in range(3)))


def test_a_layer_runs_inside_jax():
    x = qkv()
    function = as_jax(attention, visibility=Visibility(causal=True))

    def loss(x):
        return (function({}, x) ** 2).sum()

    y, residuals = attention.forward({}, x, visibility=Visibility(causal=True))
    _, expected = attention.vjp(residuals, 2 * y)
    chex.assert_trees_all_close(jax.jit(jax.grad(loss))(x), expected, rtol=1e-6)
    params = {"scale": np.ones(7, np.float32)}
    rows = X[0].astype(np.float32)
    each = jax.vmap(as_jax(rms_norm), in_axes=(None, 0))(params, rows)
    chex.assert_trees_all_close(each, rms_norm.forward(params, rows)[0], rtol=1e-6)


def test_tokens_and_parameters_inside_jax():
    params, ids = {"weight": X[0].astype(np.float32)}, np.array([1, 4, 4])
    gradient = jax.grad(lambda p: as_jax(embedding)(p, ids).sum())(params)
    np.testing.assert_array_equal(gradient["weight"][:, 0], [0, 1, 0, 0, 2])


def test_a_layer_runs_inside_torch():
    torch = pytest.importorskip("torch", reason="needs torch")
    x = qkv()
    tensors = QKV(*(torch.tensor(leaf, requires_grad=True) for leaf in x))
    y = as_torch(attention, visibility=Visibility(causal=True))({}, tensors)
    (y**2).sum().backward()
    expected_y, residuals = attention.forward({}, x, visibility=Visibility(causal=True))
    _, expected = attention.vjp(residuals, 2 * expected_y)
    for tensor, leaf in zip(tensors, expected, strict=True):
        np.testing.assert_allclose(tensor.grad.numpy(), leaf, rtol=1e-5, atol=1e-6)

    weight = torch.tensor(W, requires_grad=True)
    x = torch.tensor(X, requires_grad=True)
    assert torch.autograd.gradcheck(lambda w, x: as_torch(linear)({"weight": w}, x), (weight, x))


def test_a_torch_function_is_a_reference_without_jax():
    torch = pytest.importorskip("torch", reason="needs torch")
    reference = from_torch(lambda params, x: torch.tanh(x @ params["w"]))

    def layer(factor):
        def backward(g, cache):
            params, x, y = cache
            inner = g * (1 - y * y)
            d_w = np.einsum("btd,bte->de", x, inner)
            return {"w": d_w}, factor * inner @ params["w"].T

        def forward(params, x):
            y = np.tanh(x @ params["w"])
            return y, (params, x, y)

        return from_pair(forward, backward, cache=True)

    right = check_vjp(layer(1.0), {"w": W}, X, reference=reference)
    assert right, right
    wrong = check_vjp(layer(2.0), {"w": W}, X, reference=reference)
    assert {finding.cause for finding in wrong.findings} == {"constant factor"}


def test_a_torch_function_that_does_not_depend_on_its_input_has_no_gradient():
    torch = pytest.importorskip("torch", reason="needs torch")
    layer = from_torch(lambda x: torch.ones(3, dtype=x.dtype))
    y, residuals = layer.forward({}, X)
    np.testing.assert_array_equal(layer.vjp(residuals, y)[1], np.zeros_like(X))


def test_an_object_is_not_tried_at_other_sizes_than_it_keeps():
    class Mean:
        def __init__(self, features):
            self.features = features

        def forward(self, x):
            self.x = x
            seen.add(x.shape[-1])
            return x.mean(-1)

        def backward(self, g):
            return np.ones_like(self.x) * g[:, None] / self.features

    def reference(params, x):
        return x.mean(-1)

    layer, seen = from_object(Mean(5)), set()
    x = np.random.default_rng(0).standard_normal((3, 5))
    assert 5 in layer.FIXED_SIZES
    assert check_vjp(layer, {}, x, reference=reference)
    assert seen == {5}
    del layer.FIXED_SIZES
    check_vjp(layer, {}, x, reference=reference)
    assert len(seen) > 1
