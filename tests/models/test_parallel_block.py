import numpy as np

from functional_lm import pytree
from functional_lm.compose import bind
from functional_lm.layers import dropout, rms_norm
from functional_lm.models import mlp, parallel_block, self_attention
from functional_lm.models.parallel_block import Block
from functional_lm.testing import certify

test_certified = certify("parallel_block")

BLOCK = Block(
    bind(rms_norm, d_model=12),
    bind(self_attention, d_model=12, n_heads=2),
    bind(mlp, d_model=12, d_ff=7),
)
PARAMS = parallel_block.init((0,), block=BLOCK, dtype=np.float64)
X = np.random.default_rng(0).standard_normal((2, 5, 12))
SIDE = {"block": BLOCK, "positions": np.arange(5)}


def without(*silent):
    return pytree.map_with_path(lambda path, leaf: leaf * 0 if path in silent else leaf, PARAMS)


def test_the_branches_do_not_see_each_other():
    ways = [("mixer.out.weight",), ("mlp.down.weight",)]
    alone = [parallel_block.forward(without(*way), X, **SIDE)[0] - X for way in ways]
    y, _ = parallel_block.forward(PARAMS, X, **SIDE)
    np.testing.assert_allclose(y - X, sum(alone), rtol=0, atol=1e-14)
    y, _ = parallel_block.forward(without("mixer.out.weight", "mlp.down.weight"), X, **SIDE)
    np.testing.assert_array_equal(y, X)


def test_the_two_dropouts_draw_from_different_keys():
    block = BLOCK._replace(dropout=bind(dropout, rate=0.5))
    _, residuals = parallel_block.forward(PARAMS, X, block=block, positions=np.arange(5), key=(0,))
    assert (residuals.dropout1.multiplier != residuals.dropout2.multiplier).any()
