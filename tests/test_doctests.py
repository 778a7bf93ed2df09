"""The examples in docstrings are true."""

import doctest
import importlib
import pkgutil

import pytest

import functional_lm

MODULES = [
    module.name
    for module in pkgutil.walk_packages(functional_lm.__path__, "functional_lm.")
    if not module.name.startswith("functional_lm.reference")
]


@pytest.mark.parametrize("name", MODULES)
def test_examples(name):
    failed, _ = doctest.testmod(importlib.import_module(name))
    assert failed == 0


def test_there_are_examples():
    finder = doctest.DocTestFinder(exclude_empty=True)
    examples = sum(
        len(test.examples)
        for name in MODULES
        for test in finder.find(importlib.import_module(name))
    )
    assert examples > 15
