import json
import types

import jax.numpy as jnp
import numpy as np

from functional_lm.cli.main import main
from functional_lm.testing import check_vjp

RNG = np.random.default_rng(0)
X = RNG.standard_normal((2, 5))


def layer(forward, vjp):
    return types.SimpleNamespace(forward=forward, vjp=vjp, __name__="mine")


def scaled(params, x, *, mask):
    return np.where(mask, x * x * params["scale"], 0.0), (params, x, mask)


def scaled_vjp(residuals, g):
    params, x, mask = residuals
    g = g * mask
    return {"scale": (g * x * x).sum(axis=0)}, 2 * x * g * params["scale"]


def reference(params, x, *, mask):
    y = x * x * params["scale"]
    return jnp.where(mask, y, 0.0)


def audited(**changes):
    """Check in float64 only, without own inputs."""
    usual = {"dtypes": "float64", "own_inputs": False, "audit": True}
    report = check_vjp(**usual | changes)
    assert report, report
    return report


def test_what_friendly_values_hide_is_listed_with_the_line_and_the_reason():
    inputs = {"layer": layer(scaled, scaled_vjp), "x": X, "reference": reference}
    friendly = {"params": {"scale": np.ones(5)}, "mask": np.ones(X.shape, bool)}
    report = audited(**inputs, **friendly)
    step = 'params.scale is 1 everywhere: `mul` in `y = x * x * params["scale"]` with a factor or'
    assert any(line.startswith(step) for line in report.audit), report.audit
    masked = "mask is True everywhere: `select_n` in `return jnp.where(mask, y, 0.0)` with the mask"
    assert any(line.startswith(masked) for line in report.audit), report.audit
    assert "  these inputs do not test\n  - params.scale is 1" in str(report)
    assert "<p>these inputs do not test<ul><li>params.scale is 1" in report._repr_html_()
    assert json.loads(json.dumps(report.to_dict()))["audit"] == report.audit
    mask = np.array([[1, 0, 1, 1, 1], [1, 1, 1, 0, 1]], bool)
    awkward = {"params": {"scale": X[0]}, "mask": mask}
    seen = audited(**inputs, **awkward).audit
    assert not any("`mul`" in line or "`select_n`" in line for line in seen), seen


def test_where_no_verdict_follows_the_audit_says_what_happens():
    largest = layer(
        lambda params, x: (x.max(axis=-1), x),
        lambda x, g: ({}, g[:, None] * (x == x.max(axis=-1, keepdims=True))),
    )
    report = audited(layer=largest, params={}, x=X, reference=lambda p, x: x.max(axis=-1))
    assert "with integers in x, some of them equal: x is wrong" in report.audit
    assert any("with one more axis in front of x: vjp raised" in line for line in report.audit)


def test_a_setting_at_which_the_values_differ_is_listed():
    def blocks(params, x, *, blocks):
        return x.mean() / blocks, (x, blocks)

    report = audited(
        layer=layer(blocks, lambda r, g: ({}, np.full_like(r[0], g / r[0].size / r[1]))),
        params={},
        x=X,
        reference=lambda p, x, *, blocks: x.mean(),
        blocks=1,
    )
    assert "with blocks=2 instead of 1: forward and the reference give different y" in report.audit


def test_a_reference_that_cannot_be_taken_apart_is_a_line_and_no_failure():
    square = layer(lambda params, x: (x * x, x), lambda x, g: ({}, 2 * x * g))
    for without in (None, square):
        (line,) = audited(layer=square, params={}, x=X, reference=without).audit[:1]
        assert "only one in JAX can be taken apart" in line


def test_the_command_lists_it_too(tmp_path, capsys):
    file = tmp_path / "mine.py"
    file.write_text(
        "class twice:\n"
        "    def forward(params, x):\n"
        "        return x.max(axis=-1), x\n"
        "    def vjp(x, g):\n"
        "        return {}, g[:, None] * (x == x.max(axis=-1, keepdims=True))\n"
    )
    assert main(["check", f"{file}:twice", "--shape", "x=2,5", "--audit"]) == 0
    assert "these inputs do not test" in capsys.readouterr().out
