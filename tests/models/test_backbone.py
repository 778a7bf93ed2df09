import dataclasses

import numpy as np
import pytest

from functional_lm import prng, pytree
from functional_lm.models import backbone
from functional_lm.models.config import Config
from functional_lm.testing import certify
from functional_lm.testing.inputs import same_bits

test_certified = certify("backbone")

CONFIG = Config(13, d_model=24, n_heads=6, n_layers=3, max_seq_len=11, dropout=0.3)
PARAMS = backbone.init((0,), config=CONFIG)
TOKENS = prng.integers((1,), (3, 11), low=0, high=13)


def test_rematerialised_blocks_give_the_same_bits_and_keep_less():
    results, kept = [], []
    for config in (CONFIG, dataclasses.replace(CONFIG, remat=True)):
        y, residuals = backbone.forward(PARAMS, TOKENS, config=config, key=(5,))
        results.append((y, backbone.vjp(residuals, np.ones_like(y))[0]))
        kept.append(pytree.buffer_bytes(residuals.blocks, without=PARAMS))
    assert same_bits(*results)
    assert kept[1] == 3 * TOKENS.size * 24 * 4 + 11 * 8  # the input of each block, the positions


def test_tokens_need_a_batch():
    with pytest.raises(ValueError, match=r"tokens must have shape \(B, T\)"):
        backbone.forward(PARAMS, TOKENS[0], config=CONFIG)
