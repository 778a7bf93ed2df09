import re

import pytest

from functional_lm.testing import cases, check_layer, check_vjp, names, registry


def test_every_name_has_cases_with_distinct_labels():
    for name in names():
        labels = [case.label for case in cases(name)]
        assert len(labels) == len(set(labels)) >= 4, name


def test_cases_are_the_same_every_time():
    first, again = cases("linear"), cases("linear")
    assert all((a.x == b.x).all() for a, b in zip(first, again, strict=True))


def test_the_report_names_leaf_errors_and_limit():
    (report,) = check_layer("rms_norm", cases("rms_norm")[0])
    assert report
    assert list(report.leaves) == ["y", "params.scale", "x"]
    for leaf in report.leaves.values():
        assert 0 <= leaf.float64_error <= leaf.float64_limit
        assert 0 < leaf.float32_error <= leaf.float32_limit
        assert leaf.xla_error > 0
    assert re.search(r"params\.scale( +\d\.\de-\d\d){4}( +\d[.e\d+]*){2}  ok", str(report))


def test_the_library_allows_itself_four_times_the_error_of_xla():
    case = cases("rms_norm")[0]
    (ours,) = check_layer("rms_norm", case)
    layer, twin = registry.modules("rms_norm")
    users = check_vjp(layer, case.params, case.x, reference=twin)
    for path, leaf in ours.leaves.items():
        assert leaf.xla_error == users.leaves[path].xla_error
        difference = users.leaves[path].float32_limit - leaf.float32_limit
        assert difference == pytest.approx((8 - 4) * leaf.xla_error, rel=1e-6)


def test_an_unknown_name_lists_the_known():
    with pytest.raises(ValueError, match="'nothing'; the known ones are attention, "):
        check_layer("nothing")
