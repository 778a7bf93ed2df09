"""Golden files: what they hold, and that a reader needs no more than NumPy."""

import json

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load

from functional_lm import pytree
from functional_lm.layers import attention, rms_norm
from functional_lm.testing import golden, names, registry
from functional_lm.testing.cases import case_at

SOME = ["cross_entropy", "embedding", "gated_delta_rule", "lora", "prefix", "rotary", "rms_norm"]
SOME += ["attention", "dropout", "mlp", "swiglu", "top_k_router"]


@pytest.mark.parametrize("name", names())
def test_every_layer_has_inputs_at_its_default_sizes(name):
    layer = registry.layer_named(name)
    case = case_at(name, layer, {}, {})
    y, _ = layer.forward(case.params, case.x, **case.keywords)
    assert all(np.isfinite(leaf).all() for leaf in pytree.leaves(y))


@pytest.mark.parametrize("name", SOME)
def test_golden_values(name):
    made = golden(name)
    tensors, limits = load(made.to_bytes()), json.loads(made.metadata["limits"])
    results = {k.removeprefix("float64.") for k in tensors if k.startswith("float64.")}
    assert results == set(limits)
    for leaf in results:
        error = np.linalg.norm(tensors[f"float32.{leaf}"] - tensors[f"float64.{leaf}"])
        assert error <= limits[leaf]["float32"]
        assert tensors[f"float32.{leaf}"].dtype == np.float32
        assert tensors[f"float64.{leaf}"].dtype == np.float64
        assert 0 < limits[leaf]["float64"] < limits[leaf]["float32"]
    cotangents = {k for k in tensors if k == "g" or k.startswith("g.")}
    assert {"y" + k[1:] for k in cotangents} == {k for k in results if k.split(".")[0] == "y"}
    for leaf in cotangents:
        assert tensors[leaf].shape == tensors[f"float32.y{leaf[1:]}"].shape


def test_a_float64_kernel_passes_and_a_wrong_one_does_not(tmp_path):
    path = tmp_path / "rms_norm.safetensors"
    path.write_bytes(golden("rms_norm", {"B": 3, "D": 7}, {"eps": 0.1}).to_bytes())
    with safe_open(path, "np") as file:
        limits, keywords = (json.loads(file.metadata()[k]) for k in ("limits", "keywords"))
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    wide = {name: tensor.astype(np.float64) for name, tensor in tensors.items()}
    y, residuals = rms_norm.forward({"scale": wide["params.scale"]}, wide["x"], **keywords)
    d_params, d_x = rms_norm.vjp(residuals, wide["g"])
    for leaf, mine in {"y": y, "params.scale": d_params["scale"], "x": d_x}.items():
        assert np.linalg.norm(mine - wide[f"float64.{leaf}"]) <= limits[leaf]["float64"]
        assert np.linalg.norm(mine * 1.001 - wide[f"float64.{leaf}"]) > limits[leaf]["float32"]


def test_sizes_and_settings_are_taken():
    made = golden("attention", {"B": 1, "T": 3, "H": 4, "G": 2, "K": 5}, {"causal": True})
    assert made.tensors["x.q"].shape == (1, 3, 4, 5)
    assert made.tensors["x.k"].shape == (1, 3, 2, 5)
    seen = {"causal": True, "offset": 0, "window": None, "mask": None, "first": None}
    assert json.loads(made.metadata["keywords"]) == {"visibility": seen}
    x = attention.QKV(*(made.tensors[f"x.{n}"] for n in "qkv"))
    y, _ = attention.forward({}, x, visibility=attention.Visibility(**seen))
    np.testing.assert_array_equal(y, made.tensors["float32.y"])


def test_the_seed_decides():
    first, again, other = (golden("silu", seed=s).tensors["x"] for s in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("silu", {"D": -3}), "size D must be at least 0: got -3"),
        (("rms_norm", {}, {"epz": 3}), "keywords eps, offset: got epz; did you mean eps?"),
        (
            ("rms_norm", {"d_model": 4}),
            "rms_norm has the sizes B, T, D: got d_model; did you mean D",
        ),
        (("linear", {"d_model": 4}), "got d_model; did you mean D_in or D_out?"),
        (("attention", {"H": 6, "G": 4}), "4 key/value heads .* divide the 6 .* one of 1, 2, 3, 6"),
        (("rms_nrom",), "unknown layer 'rms_nrom'; did you mean rms_norm?"),
    ],
)
def test_bad_arguments_are_refused(arguments, says):
    with pytest.raises(ValueError, match=says):
        golden(*arguments)
