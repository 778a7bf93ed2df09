import numpy as np

from functional_lm import pytree
from functional_lm.compose import bind
from functional_lm.layers import dropout, rms_norm
from functional_lm.models import mlp, self_attention, transformer_block
from functional_lm.models.transformer_block import Block
from functional_lm.testing import certify

test_certified = certify("transformer_block")

NORM = bind(rms_norm, d_model=12)
BLOCK = Block(
    NORM, bind(self_attention, d_model=12, n_heads=2), NORM, bind(mlp, d_model=12, d_ff=7)
)
PARAMS = transformer_block.init((0,), block=BLOCK, dtype=np.float64)
X = np.random.default_rng(0).standard_normal((2, 5, 12))
SIDE = {"block": BLOCK, "positions": np.arange(5)}


def test_with_zero_outputs_it_is_the_identity():
    silent = ("mixer.out.weight", "mlp.down.weight")
    params = pytree.map_with_path(lambda path, leaf: leaf * 0 if path in silent else leaf, PARAMS)
    y, residuals = transformer_block.forward(params, X, **SIDE)
    np.testing.assert_array_equal(y, X)
    g = np.ones_like(X)
    np.testing.assert_array_equal(transformer_block.vjp(residuals, g)[1], g)


def test_the_two_dropouts_draw_from_different_keys():
    block = BLOCK._replace(dropout=bind(dropout, rate=0.5))
    _, residuals = transformer_block.forward(
        PARAMS, X, block=block, positions=np.arange(5), key=(0,)
    )
    assert (residuals.dropout1.multiplier != residuals.dropout2.multiplier).any()
