"""The bug zoo: every faulty backward is caught, and its cause named."""

import pytest
from bug_zoo import ALL, FIRST, SECOND

from functional_lm.testing import CAUSES, check_vjp


def ids(bugs):
    return [bug.name for bug in bugs]


def named(bug, report):
    """Tell whether the report names every wrong leaf with the right cause."""
    causes = report.causes
    right = (
        all(causes.get(leaf) == bug.cause for leaf in bug.leaves)
        if bug.leaves
        else bug.cause in causes.values()
    )
    return right and all(word in str(report) for word in bug.says)


REPORTS = {}


@pytest.mark.parametrize("bug", ALL, ids=ids(ALL))
def test_every_bug_is_caught(bug):
    report = check_vjp(bug.layer, bug.params, bug.x, reference=bug.reference, **bug.keywords)
    REPORTS[bug.name] = report
    assert not report
    assert set(bug.leaves) <= {finding.leaf for finding in report.findings}
    assert "reproduce: check_vjp(" in str(report)


@pytest.mark.parametrize("half", [FIRST, SECOND], ids=["first", "second"])
def test_nine_of_ten_causes_are_named(half):
    missed = [bug.name for bug in half if bug.name in REPORTS and not named(bug, REPORTS[bug.name])]
    assert len(missed) <= 0.1 * len(half), missed


RIGHT = {id(bug.right): bug for bug in ALL}.values()


@pytest.mark.parametrize("bug", RIGHT, ids=lambda bug: bug.name.partition(":")[0])
def test_the_right_layer_raises_no_alarm(bug):
    check_vjp(
        bug.right, bug.params, bug.x, reference=bug.reference, **bug.keywords
    ).raise_if_failed()


def test_the_zoo_is_large_and_varied():
    assert len(FIRST) >= 30
    assert len(SECOND) >= 30
    assert len({bug.layer.__name__ for bug in ALL}) >= 12
    assert {bug.cause for bug in ALL} <= set(CAUSES)
    assert len({bug.cause for bug in ALL}) >= 25
    assert len({bug.name for bug in ALL}) == len(ALL)
