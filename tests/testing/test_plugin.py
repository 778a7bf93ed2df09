pytest_plugins = ["pytester"]

CONFTEST = 'pytest_plugins = ["functional_lm.testing.plugin"]'
TESTS = """
import numpy as np, types

def layer(factor):
    return types.SimpleNamespace(
        forward=lambda p, x: (np.sin(x), x), vjp=lambda x, g: ({}, factor * g * np.cos(x))
    )

def test_right(certified):
    assert certified(layer(1), {}, np.linspace(0, 1, 7)).leaves

def test_wrong(certified):
    certified(layer(3), {}, np.linspace(0, 1, 7))
"""


def test_the_fixture_fails_with_the_report(pytester):
    pytester.makeconftest(CONFTEST)
    pytester.makepyfile(TESTS)
    result = pytester.runpytest_inprocess("-p", "no:xdist")
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(["*likely cause: constant factor*"])
