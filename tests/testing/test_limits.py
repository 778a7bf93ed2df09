import math

import numpy as np
import pytest

from functional_lm.testing import limits
from functional_lm.testing.report import LeafReport, Report


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
