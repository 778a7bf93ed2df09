import dataclasses
from typing import NamedTuple

import numpy as np
import pytest

from functional_lm import contract


@pytest.mark.parametrize("dtype", [np.float16, np.int32, np.complex64, object, bool])
def test_only_two_dtypes_are_supported(dtype):
    with pytest.raises(TypeError, match="float32 or float64"):
        contract.expect_dtype(dtype)
    with pytest.raises(TypeError, match=r"x must be float32 or float64"):
        contract.expect_floating(x=np.zeros(3, dtype))


def test_the_first_array_of_another_dtype_is_named():
    with pytest.raises(TypeError, match="got x float64, weight float32"):
        contract.expect_floating(x=np.zeros(3), weight=np.zeros(3, np.float32))


def test_arrays_with_an_algebra_of_their_own_are_refused():
    masked = np.ma.masked_array(np.ones((2, 2)), np.eye(2))
    for other in (np.ones((2, 2)).view(np.matrix), masked):
        says = (
            rf"x must be a plain NumPy array of .*: got {type(other).__name__}; pass np.asarray\(x"
        )
        with pytest.raises(TypeError, match=says):
            contract.expect_inputs({}, "", other, "...")
        with pytest.raises(TypeError, match=says):
            contract.expect_tokens("x", other.astype(int), 2)


def test_inputs_that_passed_once_are_known_and_others_are_not():
    spec = "weight: D F, bias?: F"
    weight, bias, x = np.ones((3, 5)), np.ones(5), np.ones((2, 3))
    for _ in range(2):
        contract.expect_inputs({"weight": weight, "bias": bias}, spec, x, "... D")
        contract.expect_inputs({"weight": weight}, spec, x, "... D")
        for params, other, says in (
            ({"weight": weight, "bias": bias[:4]}, x, r"bias must have shape \(F\) with .*F=5"),
            ({"weight": weight[:2]}, x, r"x must have shape \(..., D\) with D=2.*: got \(2, 3\)"),
            ({"bias": bias}, x, r"keys \{weight\} \(optional: bias\): got \{bias\}"),
            ({"weight": weight}, x.astype(np.float32), "x and weight must share one dtype"),
            ({"weight": weight.tolist()}, x, "weight must be a NumPy array"),
            ({"weight": weight}, x.tolist(), "x must be a NumPy array"),
            (weight, x, "params must be a dict"),
        ):
            with pytest.raises((TypeError, ValueError), match=says):
                contract.expect_inputs(params, spec, other, "... D")


def test_swapped_byte_order_is_another_dtype():
    with pytest.raises(TypeError, match="x must be"):
        contract.expect_floating(x=np.zeros(3, ">f4"))


def test_shapes_in_letters():
    x = np.zeros((2, 3, 5))
    assert contract.expect_shape("x", x, "B T D") == (2, 3, 5)
    assert contract.expect_shape("x", x, "... T D", D=5) == (3, 5)
    assert contract.expect_shape("x", x, "2 T D") == (2, 3, 5)
    for spec, sizes, says in (
        ("B T D", {"D": 4}, r"\(B, T, D\) with D=4: got \(2, 3, 5\); axis -1 is 5, make it 4"),
        ("B D", {}, "3 axes where 2 are required"),
        ("... A B T D", {}, "too few axes"),
        ("3 T D", {}, "axis -3 is 2, make it 3"),
    ):
        with pytest.raises(ValueError, match=says):
            contract.expect_shape("x", x, spec, **sizes)


def test_params_are_a_dict_with_the_right_keys():
    contract.expect_params({"weight": 1, "bias": 2}, ["weight"], ["bias"])
    with pytest.raises(ValueError, match=r"\{weight\} \(optional: bias\): got \{scale\}"):
        contract.expect_params({"scale": 1}, ["weight"], ["bias"])
    with pytest.raises(TypeError, match="got ndarray"):
        contract.expect_params(np.zeros(3), ["weight"])


@pytest.mark.parametrize("g", [1.0, np.float32(1), np.ones((), np.float32)])
def test_a_scalar_cotangent(g):
    contract.expect_cotangent(g, (), np.dtype(np.float32))


@pytest.mark.parametrize("g", [1, np.float64(1), np.ones(()), None])
def test_a_scalar_cotangent_that_would_promote_is_refused(g):
    with pytest.raises(TypeError, match="dtype of y"):
        contract.expect_cotangent(g, (), np.dtype(np.float32))
    with pytest.raises(TypeError, match="dtype of y, float64: got NoneType"):
        contract.expect_cotangent(None, (), np.dtype(np.float64))


W, A = np.ones((3, 2)), np.ones(2)


class Pair(NamedTuple):
    a: object
    b: object


SHAPES = {"weight": (3, 2), "base": ...}, Pair((2,), None)


@pytest.mark.parametrize(
    ("t", "error", "says"),
    [
        ([{}, 1], TypeError, r"t must be \(t_params, t_x\): got list"),
        (({"weight": W}, Pair(A, None)), TypeError, "t_params must be a dict of weight, base: got"),
        (({"weight": W, "base": 1}, (A, None)), TypeError, "t_x must be a Pair of a, b: got a tup"),
        (({"weight": W, "base": 1}, Pair(A, A)), TypeError, "t_x.b must be None, that of integers"),
        (({"weight": 1.0, "base": 1}, Pair(A, None)), TypeError, "t_params.weight must be float64"),
        (({"weight": A, "base": 1}, Pair(A, None)), ValueError, r"shape \(3, 2\): got \(2,\); br"),
    ],
)
def test_tangents_unlike_the_inputs_are_refused(t, error, says):
    right = {"weight": W, "base": "its own business"}, Pair(A, None)
    assert contract.expect_tangent(right, SHAPES, np.dtype(np.float64)) is right
    with pytest.raises(error, match=says):
        contract.expect_tangent(t, SHAPES, np.dtype(np.float64))


def test_integers():
    assert contract.expect_int("n", np.int32(3)) == 3
    for value, error in ((0, ValueError), (2.0, TypeError), (True, TypeError), ("3", TypeError)):
        with pytest.raises(error, match="n must be"):
            contract.expect_int("n", value)


def test_booleans():
    assert contract.expect_bool("b", np.True_) is True
    with pytest.raises(TypeError, match="b must be True or False: got 1"):
        contract.expect_bool("b", 1)


def test_numbers():
    assert contract.expect_number("x", np.float32(0.5)) == 0.5
    assert type(contract.expect_number("x", np.float64(0.5))) is float
    with pytest.raises(ValueError, match="x must be finite: got inf"):
        contract.expect_number("x", np.inf)
    with pytest.raises(ValueError, match=r"x must lie in \[0, 1\]: got 1\.0000001"):
        contract.expect_number("x", 1.0000001, low=0.0, high=1.0)
    for value in ("1", True, np.ones(2), None):
        with pytest.raises(TypeError, match="x must be a number"):
            contract.expect_number("x", value)
    for value in (2, -1, np.nan):
        with pytest.raises(ValueError, match="x must lie in"):
            contract.expect_number("x", value, low=0.0, high=1.0)


def test_all_faults_of_a_dataclass_are_reported_at_once():
    @dataclasses.dataclass(frozen=True)
    class Settings:
        steps: int = 1
        rate: float | None = None

        def __post_init__(self):
            contract.expect_fields(
                self, (contract.expect_int, "steps", {}), (contract.expect_number, "rate", {})
            )

    settings = Settings(np.int32(3), 1)
    assert (type(settings.steps), type(settings.rate)) == (int, float)
    assert Settings().rate is None
    with pytest.raises(TypeError, match=r"^steps must be an integer: got None; pass an int$"):
        Settings(None)
    with pytest.raises(ValueError, match=r"^steps must be at least 1: .*\nrate must be a number:"):
        Settings(0, "fast")
