import numpy as np
import pytest

from functional_lm.compose import bind
from functional_lm.layers import rms_norm, selective_scan
from functional_lm.models import mamba2
from functional_lm.testing import certify

test_certified = certify("mamba2")

SIZES = {"d_model": 12, "n_heads": 6, "n_groups": 2, "state_size": 5}
LAYER = bind(
    mamba2,
    **SIZES,
    norm=bind(rms_norm, eps=0.1),
    scan=bind(selective_scan, chunk_size=4),
)
PARAMS = LAYER.init((0,), dtype=np.float64)
X = np.random.default_rng(0).standard_normal((3, 9, 12))


def test_each_projection_has_its_own_variance():
    params = mamba2.init(
        (0,), d_model=240, n_heads=6, n_groups=2, state_size=30, expand=1, output_scale=0.5
    )
    parts = np.split(params["zxbcdt"]["weight"], [240, 480, 540, 600], axis=1)
    for part, size in zip(parts, (240, 240, 60, 60, 6), strict=True):
        assert part.std() == pytest.approx((2 / (240 + size)) ** 0.5, rel=0.05)
    assert params["out"]["weight"].std() == pytest.approx((2 / 480) ** 0.5 / 2, rel=0.02)


def test_steps_equal_the_forward():
    y, _ = LAYER.forward(PARAMS, X, positions=np.arange(9))
    cache = LAYER.init_cache(PARAMS, 3, 9)
    for start, stop in ((0, 4), (4, 5), (5, 9)):
        found, cache = LAYER.step(PARAMS, X[:, start:stop], cache)
        np.testing.assert_allclose(found, y[:, start:stop], rtol=0, atol=1e-13)


def test_padding_changes_no_state():
    lengths = np.array([1, 4, 9])
    y, cache = LAYER.step(PARAMS, X, LAYER.init_cache(PARAMS, 3, 9), lengths=lengths)
    for i, length in enumerate(lengths):
        alone = LAYER.init_cache(PARAMS, 1, 9)
        expected, after = LAYER.step(PARAMS, X[i : i + 1, :length], alone)
        np.testing.assert_allclose(y[i, :length], expected[0], rtol=0, atol=1e-13)
        for one, other in zip(cache, after, strict=True):
            np.testing.assert_allclose(one[i], other[0], rtol=0, atol=1e-13)


def test_the_cache_does_not_grow():
    short, long = (LAYER.init_cache(PARAMS, 2, length) for length in (1, 1000))
    assert [state.shape for state in short] == [state.shape for state in long]
    _, after = LAYER.step(PARAMS, X[:2], short)
    assert [state.shape for state in after] == [state.shape for state in long]


def test_arithmetic_does_not_depend_on_the_context():
    flops = bind(mamba2, **SIZES).context_flops
    assert flops(1) == flops(1000) == 5 * 24 * 5


@pytest.mark.parametrize(
    ("sizes", "says"),
    [
        ({"n_heads": 5}, "n_heads must divide expand·d_model.* got n_heads=5, expand·d_model=24"),
        ({"n_groups": 4}, "n_groups must divide n_heads.* n_groups=4"),
        ({"state_size": 0}, "state_size must be at least 1"),
    ],
)
def test_bad_sizes_are_named(sizes, says):
    with pytest.raises(ValueError, match=says):
        mamba2.init((0,), **{**SIZES, **sizes})


def test_a_wrong_number_of_groups_is_refused():
    with pytest.raises(ValueError, match=r"E \+ 2·G·N columns.* got 44, E=24, H=6, n_groups=3"):
        mamba2.forward(PARAMS, X, n_groups=3)
