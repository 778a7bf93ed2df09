"""The corpus of real bugs in short: the ports are what they claim, by differences in NumPy.

``run.py`` runs the checkers on all of them.
"""

import collections

import numpy as np
import pytest
from bug_ports import ALL, NEGATIVES, half_of, layer_of
from scoring import our_verdict

from functional_lm import pytree
from functional_lm.testing.inputs import cast, normal_like

UNSEEN = ("hidden state", "layout", "overwritten", "precision", "value")
"""What differences of the right forward do not show."""


def mismatch(port, inputs, *, wrong):
    """Return how far vjp is from differences of the right forward, along one direction."""
    layer, right = layer_of(port, wrong=wrong), layer_of(port, wrong=False)
    given = (params, x) = cast((inputs.params, inputs.x), "float64")
    direction = normal_like((1,), given)

    def moved(h):
        at = pytree.map(lambda a, d: a + h * d, given, direction)
        return right.forward(*at, **inputs.keywords)[0]

    y, residuals = layer.forward(params, x, **inputs.keywords)
    g = normal_like((2,), y) if inputs.cotangent is None else inputs.cotangent
    expected = inner(g, pytree.map(lambda a, b: (a - b) / 2e-6, moved(1e-6), moved(-1e-6)))
    try:
        received = inner(layer.vjp(residuals, g), direction)
    except (TypeError, ValueError):  # raised, None or misshapen
        return np.inf
    return abs(received - expected) / (abs(expected) + 1e-3)


def inner(a, b):
    """Return ⟨a, b⟩ of two trees, infinite where their shapes differ."""
    pairs = [(p, q) for _, p, q in pytree.zip_with_path(a, b)]
    alike = all(p.shape == q.shape for p, q in pairs)
    return sum((p * q).sum() for p, q in pairs) if alike else np.inf


@pytest.mark.parametrize("port", [*ALL, *NEGATIVES], ids=lambda port: port.__name__)
def test_the_right_version_is_right_and_the_wrong_one_wrong_but_for_its_fixture(port):
    if port.__name__ != "TiedMaximum":  # differences do not exist at ties
        assert mismatch(port, port.awkward, wrong=False) < 1e-5
    if port.causes and not set(port.causes.values()) & {*UNSEEN}:
        with np.errstate(all="ignore"):
            assert not mismatch(port, port.awkward, wrong=True) < 1e-3
    if port.friendly:
        assert mismatch(port, port.friendly, wrong=False) < 1e-5
        assert mismatch(port, port.friendly, wrong=True) < 1e-3


def test_the_corpus_is_large_and_its_halves_are_alike():
    names = [port.__name__ for port in [*ALL, *NEGATIVES]]
    assert len(set(names)) == len(names)
    assert len(ALL) >= 60
    assert len(NEGATIVES) >= 12
    assert sum(port.friendly is not None for port in ALL) >= 33
    sizes = collections.Counter(map(half_of, ALL))
    assert 0.4 < sizes["first"] / (sizes["first"] + sizes["second"]) < 0.6
    assert sizes["third"] >= 40
    assert sizes["fourth"] >= 40
    assert sizes["fifth"] >= 30


@pytest.mark.parametrize("name", ["Difference", "Gather", "NotContiguous"])
def test_a_bug_is_caught_and_named_at_awkward_inputs(name):
    (port,) = (port for port in ALL if port.__name__ == name)
    verdict = our_verdict(port, port.awkward)
    assert verdict.named == "right", verdict.says
    assert not verdict.alarm
