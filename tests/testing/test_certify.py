import types

import numpy as np
import pytest

from functional_lm.layers import silu
from functional_lm.testing import CHECKS, Case, certify, check_vjp
from functional_lm.testing.certify import faults

X = np.linspace(-2, 2, 5)


def cube(vjp=lambda x, g: ({}, 3 * x * x * g)):
    return types.SimpleNamespace(forward=lambda params, x: (x * x * x, x), vjp=vjp)


CASES = [Case("cube", "line", {}, X, {}), Case("cube", "matrix", {}, X.reshape(5, 1) + X, {})]

test_cube = certify(cube(), reference=lambda params, x: x**3, cases=CASES)
test_cube_by_complex_steps = certify(cube(), cases=CASES)
test_silu_as_a_layer_of_ones_own = certify(
    silu, cases=[Case("silu", "line", {}, X, {})], refusals=True
)


def test_there_is_an_id_for_each_case_dtype_and_check(request):
    ids = [item.name for item in request.session.items if item.name.startswith("test_cube[")]
    assert len(ids) == len(CASES) * 2 * (len(CHECKS) - 3)  # without jvp, bitwise, refusals
    assert "test_cube[line-float64-accuracy]" in ids
    assert "test_cube[matrix-float32-purity]" in ids


def test_a_fault_fails_the_ids_of_its_check_only():
    wrong = cube(vjp=lambda x, g: ({}, 2 * x * x * g))
    report = check_vjp(wrong, {}, X, reference=lambda params, x: x**3)
    failing = {(d, c) for d in ("float64", "float32") for c in CHECKS if faults(report, d, c)}
    assert failing == {("float64", "accuracy"), ("float32", "accuracy")}


def test_a_case_is_checked_once_for_all_ids():
    count = []
    layer = cube(vjp=lambda x, g: count.append(1) or ({}, 3 * x * x * g))
    test = certify(layer, cases=CASES[:1])
    test(CASES[0], "float64", "contract")
    calls = len(count)
    test(CASES[0], "float32", "accuracy")
    assert len(count) == calls > 0


def test_no_cases_are_refused():
    with pytest.raises(ValueError, match="at least one case"):
        certify(cube())
    with pytest.raises(ValueError, match="'silu' has a reference and cases of its own"):
        certify("silu", cases=CASES)
