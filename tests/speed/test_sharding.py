import threading
import types

import numpy as np
import pytest
from functional_lm.reference.models import language_model as language_model_twin

from functional_lm import prng, pytree, value_and_grad
from functional_lm.compose import bind
from functional_lm.layers import dropout, linear
from functional_lm.models import language_model
from functional_lm.models.llama import Config, architecture
from functional_lm.speed.sharding import TreeSum, kept_targets, sharded
from functional_lm.testing import check_vjp, registry
from functional_lm.testing.inputs import same_bits

CONFIG = Config(13, d_model=24, n_heads=6, n_kv_heads=2, n_layers=2, d_ff=7, max_seq_len=5)
MODEL = architecture(CONFIG)
RNG = np.random.default_rng(0)
X, Y = RNG.integers(0, 13, (2, 7, 5))


def params(dtype=np.float64):
    return language_model.init((0,), model=MODEL, dtype=dtype)


@pytest.mark.parametrize("n_shards", [1, 2, 3, 7, 20])
def test_the_loss_and_the_gradient_are_those_of_the_whole_batch(n_shards):
    whole = value_and_grad(language_model, params(), X, targets=Y, model=MODEL)
    loss, grads = sharded(n_shards)(language_model, params(), X, targets=Y, model=MODEL)
    assert loss == pytest.approx(whole[0], rel=1e-14)
    assert loss.dtype == whole[0].dtype
    for path in ("norm", "embedding"):
        name = next(iter(grads[path]))
        np.testing.assert_allclose(grads[path][name], whole[1][path][name], rtol=1e-11, atol=1e-15)


@pytest.mark.parametrize(("n_shards", "accumulation_steps"), [(2, 1), (1, 4), (2, 3), (3, 20)])
def test_parts_may_count_differently(n_shards, accumulation_steps):
    targets = Y.copy()
    targets[:3, 1:] = -100
    targets[4] = -100
    split = sharded(n_shards, accumulation_steps=accumulation_steps, weight=kept_targets)
    whole = value_and_grad(language_model, params(), X, targets=targets, model=MODEL)
    loss, grads = split(language_model, params(), X, targets=targets, model=MODEL)
    assert loss == pytest.approx(whole[0], rel=1e-14)
    for path, ours, expected in pytree.zip_with_path(grads, whole[1]):
        np.testing.assert_allclose(ours, expected, rtol=1e-10, atol=1e-15, err_msg=path)


def test_microbatches_are_computed_one_after_another():
    running, most, seen = set(), [], []

    def forward(params, x):
        running.add(id(x))
        most.append(len(running))
        seen.append(len(x))
        return x.mean(), x

    def vjp(x, g):
        running.discard(id(x))
        return {}, None

    layer = types.SimpleNamespace(forward=forward, vjp=vjp)
    sharded(1, accumulation_steps=3)(layer, {}, np.ones((7, 3)))
    assert (most, seen) == ([1, 1, 1], [2, 2, 3])


def test_the_same_shards_give_the_same_bits():
    model = MODEL._replace(dropout=bind(dropout, rate=0.3))
    drawn = language_model.init((0,), model=model)
    side = {"targets": Y, "model": model, "key": (3,)}
    first, again = (sharded(3)(language_model, drawn, X, **side) for _ in range(2))
    assert same_bits(first, again)
    assert all(leaf.dtype == np.float32 for leaf in first[1]["norm"].values())


@pytest.mark.parametrize("n_terms", [1, 2, 5, 8, 13])
def test_a_sum_in_a_tree_does_not_depend_on_who_adds_what(n_terms):
    def add(a, b):
        return f"({a}{b})"

    straight = TreeSum(add)
    for i in range(n_terms):
        straight.add(i, str(i))
    assert max(len(straight.nodes), 1) <= n_terms.bit_length()
    for border in range(n_terms + 1):
        parts = TreeSum(add), TreeSum(add)
        for i in range(n_terms):
            parts[i >= border].add(i, str(i))
        together = TreeSum(add)
        for start, size, total in parts[0].nodes + parts[1].nodes:
            together.add(start, total, size)
        assert together.total() == straight.total()


def test_microbatches_decide_the_bits_alone():
    side = {"targets": Y, "model": MODEL}
    first, *others = (
        sharded(n_shards, microbatches=5)(language_model, params(np.float32), X, **side)
        for n_shards in (1, 2, 7)
    )
    assert same_bits(others, [first] * 2)


def test_each_part_drops_out_other_entries():
    keys = []

    def forward(params, x, *, key):
        keys.append(key)
        return x.mean(), x

    layer = types.SimpleNamespace(forward=forward, vjp=lambda x, g: ({}, None))
    sharded(2)(layer, {}, np.ones((4, 3)), key=(5,))
    assert sorted(keys) == [(5, 0), (5, 1)]
    assert prng.fold_in((5,), 1) == (5, 1)


def test_every_part_has_a_thread_and_the_floating_point_settings_of_the_caller():
    seen = set()
    both = threading.Barrier(2, timeout=20)

    def forward(params, x):
        both.wait()
        seen.add((threading.get_ident(), np.geterr()["divide"]))
        return x.mean(), x

    layer = types.SimpleNamespace(forward=forward, vjp=lambda x, g: ({}, None))
    with np.errstate(divide="call"):
        sharded(2)(layer, {}, np.ones((4, 3)))
    assert len(seen) == 2
    assert {setting for _, setting in seen} == {"call"}


def test_an_error_in_a_part_reaches_the_caller():
    with pytest.raises(ValueError, match="D_in"):
        sharded(2)(linear, linear.init((0,), d_in=2, d_out=3), np.ones((4, 5), np.float32))


def test_what_cannot_be_divided_is_refused():
    with pytest.raises(ValueError, match="share a leading batch axis"):
        sharded(2)(language_model, params(), X, targets=Y[:3], model=MODEL)
    with pytest.raises(ValueError, match="n_shards must be at least 1"):
        sharded(0)


def test_the_gradient_of_shards_is_certified():
    def forward(params, x, **side):
        return sharded(3)(language_model, params, x, model=MODEL, **side)

    def vjp(d_params, g):
        return pytree.map(lambda leaf: g * leaf, d_params), None

    layer = types.SimpleNamespace(forward=forward, vjp=vjp)
    twin_model = registry.twin(MODEL)

    def reference(params, x, *, targets):
        return language_model_twin.forward(params, x, targets=targets, model=twin_model)

    report = check_vjp(layer, params(), X, reference=reference, targets=Y)
    assert report.ok, str(report)
