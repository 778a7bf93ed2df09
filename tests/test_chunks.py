import numpy as np
import pytest

from functional_lm.chunks import decays, join, split


@pytest.mark.parametrize(
    ("T", "size", "shape"), [(65, 64, (2, 33)), (6, 3, (2, 3)), (0, 4, (1, 1))]
)
def test_chunks_are_few_and_even_and_join_to_the_text(T, size, shape):
    x = np.random.default_rng(0).standard_normal((3, T, 2, 5))
    chunks = split(x, size)
    assert chunks.shape == (shape[0], 3, 2, shape[1], 5)
    np.testing.assert_array_equal(join(chunks, T), x)
    assert not join(chunks, shape[0] * shape[1])[:, T:].any()


def test_weak_decays_are_exact_beside_strong_ones():
    left = decays(np.float32([[-1e4], [-1e-4], [-2e-4]]))
    np.testing.assert_allclose(left[2, 1:], np.exp([-3e-4, -2e-4, 0]), rtol=1e-7)
    np.testing.assert_array_equal(left[:, 0], 0)
    assert left[0, 2] == left[0, 3] == left[1, 3] == 0
