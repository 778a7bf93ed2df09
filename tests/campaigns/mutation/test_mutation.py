import ast
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent


@pytest.fixture
def here(monkeypatch):
    monkeypatch.syspath_prepend(HERE)


EXAMPLES = {
    "drop_term": ("y = a - b", {"a", "-b"}),
    "drop_factor": ("np.multiply(a, b, out=y)", {"np.positive(a, out=y)", "np.positive(b, out=y)"}),
    "repeat_factor": ("y = a * b", {"a * b * a", "a * b * b"}),
    "add_transpose": ("y = a @ b", {"a.swapaxes(-1, -2) @ b", "a @ b.swapaxes(-1, -2)"}),
    "drop_dtype": ("y = np.zeros(a, b.dtype)", {"np.zeros(a)"}),
    "strong_scalar": ("y = 2.0 * a", {"np.float64(2.0) * a"}),
    "drop_call": ("y = rows(a.T)", {"a.T", "a"}),
    "swap_operands": ("y = a @ b", {"b @ a"}),
    "change_sign": ("y += a", {"y -= a"}),
    "change_reduction": ("y = a.sum()", {"a.mean()", "a.max()"}),
    "change_axis": ("y = f(axis=0)", {"f(axis=-1)", "f(axis=1)"}),
    "drop_keyword": ("y = f(keepdims=True)", {"f()"}),
    "negate": ("y = a * b", {"-(a * b)"}),
    "change_constant": ("y = a[0]", {"a[1]"}),
    "exchange_names": ("y = a + c", {"b + c"}),
    "exchange_elements": ("y, z = c", {"z, y = c"}),
    "change_comparison": ("y = c <= 1", {"c < 1"}),
    "decide": ("y = 1 if c else 2", {"1", "2"}),
    "drop_subscript": ("y = c[:, None]", {"c", "c[None, :]"}),
    "drop_statement": ("c *= 2", {"pass", "c = 2"}),
    "write_to_argument": ("y = a + c", {"np.add(a, c, out=a)"}),
    "skip_first": ("for i in c: pass", {"for i in tuple(c)[1:]:\n    pass"}),
}


@pytest.mark.parametrize("name", EXAMPLES)
def test_operator(here, name):
    import mutants
    import operators

    statement, expected = EXAMPLES[name]
    source = f"def vjp(a: Array, b: Array, c):\n    {statement}"
    (function,) = ast.parse(source).body
    found = mutants._mutants("file.py", function, "vjp")
    wanted = {m.after for m in found if m.operator == name}
    assert wanted == {line.partition("\n")[0] for line in expected}
    assert {operator.__name__ for operator in operators.OPERATORS} == set(EXAMPLES)


def test_validation_is_not_mutated(here):
    import mutants

    source = "def vjp(a):\n    expect_floating(a=a)\n    if a + 1:\n        raise ValueError(-a)"
    (function,) = ast.parse(source).body
    assert mutants._mutants("file.py", function, "vjp") == []


def test_a_variable_is_not_the_function_of_that_name(here):
    import mutants

    source = "def vjp(weights):\n    probs = h(weights)\ndef h(x):\n    weights = x"
    functions = {f.name: f for f in ast.parse(source + "\ndef weights(x): pass\n").body}
    assert mutants._reached(functions, ["vjp"]) == ["vjp", "h"]


def test_mutants_survive_where_the_cases_are_weak(here):
    pytest.importorskip("jax")
    import judge
    import mutants

    from functional_lm.layers import rms_norm

    code, strong, weak = mutants.Code(rms_norm), judge.Judge("rms_norm"), judge.Judge("rms_norm")
    weak.trials = [trial for trial in weak.trials if trial.label == "B=0"]
    dropped = [m for m in code.own_mutants() if m.operator == "drop_term" and m.kind == "vjp"]
    assert [weak.reason(code.build(m), seconds=0) for m in dropped] == ["", ""]
    assert all(strong.reason(code.build(m), seconds=0) for m in dropped)


def test_the_mutants_of_a_layer_are_killed():
    pytest.importorskip("jax")
    command = [sys.executable, HERE / "run.py", "silu"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "survived:" not in done.stdout
