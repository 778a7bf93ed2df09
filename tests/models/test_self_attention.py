import numpy as np
import pytest

from functional_lm.models import self_attention
from functional_lm.testing import certify

test_certified = certify("self_attention")


def test_named_slices_are_views_with_their_own_variance():
    params = self_attention.init((0,), d_model=240, n_heads=6, n_kv_heads=2, output_scale=0.5)
    slices = self_attention.named_slices(params, n_heads=6, n_kv_heads=2)
    shapes = {name: part.shape for name, part in slices.items()}
    assert shapes == {"query": (240, 240), "key": (240, 80), "value": (240, 80), "out": (240, 240)}
    assert slices["query"].std() == pytest.approx((2 / 480) ** 0.5, rel=0.02)
    assert slices["key"].std() == pytest.approx((2 / 320) ** 0.5, rel=0.02)
    assert slices["value"].std() == pytest.approx((2 / 320) ** 0.5, rel=0.02)
    assert slices["out"].std() == pytest.approx((2 / 480) ** 0.5 / 2, rel=0.02)
    assert (slices["key"] != slices["value"]).any()
    assert (slices["query"][:, :80] != slices["key"]).any()
    assert all(np.shares_memory(slices[n], params["qkv"]) for n in ("query", "key", "value"))


@pytest.mark.parametrize(
    ("sizes", "says"),
    [
        ({"d_model": 16, "n_heads": 5}, "n_heads must divide d_model: .*try 4 or 8"),
        ({"d_model": 16, "n_heads": 8, "n_kv_heads": 3}, "n_kv_heads must divide .*try 2 or 4"),
        ({"d_model": 16, "n_heads": 0}, "n_heads must be at least 1"),
    ],
)
def test_bad_sizes_name_what_would_do(sizes, says):
    with pytest.raises(ValueError, match=says):
        self_attention.init((0,), **sizes)


@pytest.mark.parametrize(("n_heads", "n_kv_heads"), [(5, 2), (16, 2), (12, 2), (6, None), (6, 3)])
def test_a_wrong_number_of_heads_is_refused(n_heads, n_kv_heads):
    params = self_attention.init((0,), d_model=24, n_heads=6, n_kv_heads=2)
    x = np.ones((1, 2, 24), np.float32)
    with pytest.raises(ValueError, match=r"n_heads must divide|qkv must have shape"):
        self_attention.forward(
            params, x, n_heads=n_heads, n_kv_heads=n_kv_heads, positions=np.arange(2)
        )
