import numpy as np
import optax
import pytest

from functional_lm import pytree
from functional_lm.optimizers import adam, apply_updates, muon, newton_schulz, partition

RNG = np.random.default_rng(3)


def orthogonal(rows, columns):
    return np.linalg.qr(RNG.standard_normal((rows, columns)))[0]


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"beta": 0.8, "eps": 1e-3, "weight_decay": 0.3},
        {"beta": 0.8, "nesterov": False},
        {"beta": 0.0},
    ],
)
def test_beside_adam_it_equals_optax(assert_equals_optax, settings):
    assert_equals_optax(
        partition(
            {"muon": muon(0.1, **settings), "adam": adam(0.01)},
            lambda path: "muon" if path == "w" else "adam",
        ),
        optax.partition(
            {"muon": optax.contrib.muon(0.1, **settings), "adam": optax.adam(0.01)},
            {"w": "muon", "blocks": ({"scale": "adam"},)},
        ),
    )


@pytest.mark.parametrize(
    "shape", [(7, 7), (7, 5), (5, 7), (13, 3), (3, 13), (1, 5), (101, 107), (211, 101)]
)
def test_newton_schulz_nears_the_polar_factor(shape):
    k = min(shape)
    u, v = orthogonal(shape[0], k), orthogonal(shape[1], k)
    values = np.diag(u.T @ newton_schulz(u * np.linspace(0.3, 1, k) @ v.T) @ v)
    assert values.min() > 0.68
    assert values.max() < 1.135
    np.testing.assert_allclose(
        newton_schulz(u * np.linspace(0.3, 1, k) @ v.T), u * values @ v.T, atol=1e-13
    )


@pytest.mark.parametrize("shape", [(5, 7), (3, 13), (101, 101)])
def test_newton_schulz_takes_each_matrix_of_a_stack(shape):
    stack = RNG.standard_normal((2, 3, *shape))
    together = newton_schulz(stack)
    for one in np.ndindex(2, 3):
        np.testing.assert_allclose(together[one], newton_schulz(stack[one]), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("shape", [(5, 7), (3, 13), (6, 6)])
def test_newton_schulz_keeps_float32_and_survives_rank_one_and_zero(shape):
    u, v = RNG.standard_normal(shape[0]), RNG.standard_normal(shape[1])
    ours = newton_schulz(np.outer(u, v).astype(np.float32))
    assert ours.dtype == np.float32
    direction = np.outer(u, v) / np.linalg.norm(np.outer(u, v))
    np.testing.assert_allclose(ours, np.vdot(ours, direction) * direction, atol=1e-4)
    assert not newton_schulz(np.zeros(shape, np.float32)).any()


@pytest.mark.parametrize("row_beta", [None, 0.9])
def test_maps_side_by_side_and_stacks_are_matrices_of_their_own(row_beta):
    sizes = (2, 5, 3)
    params = {"w": RNG.standard_normal((2, 4, 10))}
    fused = muon(0.1, weight_decay=0.2, columns={"w": sizes}, row_beta=row_beta)
    single = muon(0.1, weight_decay=0.2, row_beta=row_beta)

    def divided(tree):
        return {f"{e}{i}": part for e in (0, 1) for i, part in enumerate(parts(tree["w"][e]))}

    def parts(matrix):
        return np.split(matrix, np.cumsum(sizes)[:-1], axis=-1)

    apart = divided(params)
    state, states = fused.init(params), single.init(apart)
    for _ in range(3):
        grads = {"w": RNG.standard_normal((2, 4, 10))}
        updates, state = fused.update(grads, state, params)
        params = apply_updates(params, updates)
        of_parts, states = single.update(divided(grads), states, apart)
        apart = apply_updates(apart, of_parts)
    for path, one, other in pytree.zip_with_path(divided(params), apart):
        np.testing.assert_allclose(one, other, rtol=1e-12, atol=1e-14, err_msg=path)


def test_normuon_scales_neurons_alike_and_keeps_the_norm():
    params = {"w": np.zeros((6, 5))}
    plain, scaled = muon(1.0), muon(1.0, row_beta=0.95)
    states = plain.init(params), scaled.init(params)
    mean = np.zeros(5)
    for step in range(1, 5):
        grads = {"w": RNG.standard_normal((6, 5)) * np.arange(1, 6)}
        (one, first), (two, second) = (
            optimizer.update(grads, state, params)
            for optimizer, state in zip((plain, scaled), states, strict=True)
        )
        states = first, second
        mean = 0.95 * mean + 0.05 * np.square(one["w"]).mean(axis=0)
        expected = one["w"] / np.sqrt(mean / (1 - 0.95**step))
        expected *= np.linalg.norm(one["w"]) / np.linalg.norm(expected)
        np.testing.assert_allclose(two["w"], expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("params", "columns", "says"),
    [
        ({"b": np.ones(3)}, {}, r"b has the shape \(3,\) .* with partition"),
        ({"w": np.ones((3, 4))}, {"w": (2, 1)}, r"the columns \(2, 1\)"),
    ],
)
def test_other_leaves_are_refused(params, columns, says):
    with pytest.raises(ValueError, match=says):
        muon(0.1, columns=columns).init(params)
