import math

import numpy as np
import pytest

from functional_lm.testing import limits, ulp_error, unit_in_last_place
from functional_lm.testing.report import LeafReport, Report

LARGEST = float(np.finfo(np.float32).max)


def test_nan_never_passes():
    assert not LeafReport("x", math.nan, 1.0).ok
    assert not LeafReport("x", 0.0, 1.0, math.nan, 1.0, 2.0).ok
    assert not LeafReport("x", 0.0, 1.0, 0.5, math.nan, math.nan).ok
    assert math.isnan(limits.root_mean_square([1.0, math.nan]))


def test_the_limits():
    oracle = np.full(4, 2.0)
    assert limits.float64_limit(oracle, 100.0) == pytest.approx(1e-11 * 4 + 1e-13 * 2 * 100)
    unit = 2.0**-24
    assert limits.float32_limit(1e-3, 4.0, 4, 2.0, 4.0) == pytest.approx(
        4e-3 + 4 * unit * (4 + 2 * 2)
    )


def test_subnormals_do_not_count():
    np.testing.assert_array_equal(
        limits.flush(np.float32([1e-39, -1e-39, 1e-37])), np.float32([0, 0, 1e-37])
    )


def test_a_report_without_leaves_is_not_ok():
    report = Report("nothing")
    assert not report
    with pytest.raises(AssertionError, match="nothing: FAILED"):
        report.raise_if_failed()


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_it_is_the_spacing_of_numpy_where_numpy_has_one(dtype):
    info = np.finfo(dtype)
    ordinary = np.random.default_rng(0).standard_normal(100).astype(dtype)
    edges = np.array([1, 2, 3, 0.1, info.tiny, info.smallest_subnormal, 0], dtype)
    for x in (ordinary, edges, -ordinary):
        expected = np.abs(np.spacing(np.abs(x))).astype(np.float64)
        np.testing.assert_array_equal(unit_in_last_place(x, dtype), expected)


def test_at_the_largest_numbers_it_does_not_overflow():
    assert unit_in_last_place(LARGEST, "float32") == 2.0**104
    assert unit_in_last_place(np.finfo(np.float64).max, "float64") == 2.0**971
    assert ulp_error(np.float32(LARGEST), -LARGEST, "float32") == 2 * (2.0**24 - 1)
    assert np.isfinite(ulp_error(-np.finfo(np.float64).max, np.finfo(np.float64).max, "float64"))


def test_bfloat16_has_eight_bits():
    assert unit_in_last_place(1.0, "bfloat16") == 2.0**-7
    assert unit_in_last_place(1e-45, "bfloat16") == 2.0**-133
    assert ulp_error(1 + 2**-7, 1.0, "bfloat16") == 1.0


def test_a_correctly_rounded_result_has_at_most_half():
    exact = (
        np.random.default_rng(1).standard_normal(1000)
        * 10.0 ** np.arange(-30, 30).repeat(20)[:1000]
    )
    error = ulp_error(exact.astype(np.float32), exact, "float32")
    assert 0.4 < error.max() <= 0.5


def test_what_is_not_finite():
    np.testing.assert_array_equal(
        ulp_error([np.inf, 1.0, np.nan, np.inf], [np.inf, 1.0, 1.0, -np.inf], "float32")[:2], 0
    )
    assert not np.isfinite(ulp_error([np.nan, np.inf], [1.0, -np.inf], "float32")).any()


def test_an_unknown_format_is_refused():
    with pytest.raises(ValueError, match="got int32"):
        unit_in_last_place(1, np.int32)
