import pytest

from functional_lm.generation import window_start


@pytest.mark.parametrize("longest", [1, 2, 3, 4, 5, 8, 13])
def test_a_window_fits_and_keeps_about_half(longest):
    starts = [window_start(n, longest) for n in range(5 * longest + 3)]
    assert starts[: longest + 1] == [0] * (longest + 1)
    for n, start in enumerate(starts[longest + 1 :], longest + 1):
        assert longest // 2 < n - start <= longest


@pytest.mark.parametrize("longest", [1, 2, 3, 4, 5, 8, 13])
def test_its_start_moves_only_when_it_would_be_too_long(longest):
    for n in range(1, 5 * longest):
        before, after = window_start(n, longest), window_start(n + 1, longest)
        assert (after > before) == (n + 1 - before > longest)
        assert after - before in (0, max(longest // 2, 1))


def test_bad_sizes_are_named():
    with pytest.raises(ValueError, match="max_seq_len must be at least 1"):
        window_start(3, 0)
    with pytest.raises(ValueError, match="n_tokens must be at least 0"):
        window_start(-1, 3)
