"""The bug zoo in short: one bug of each cause; ``compare_checkers.py`` runs all of them."""

import pytest
from bug_zoo import ALL
from compare_checkers import our_verdict

from functional_lm.testing import CAUSES

LONG = (  # they take seconds each, or have causes that the checker does not name
    *("attention", "_block", "squeeze_excite", "soft_experts", "top1_gate"),
    *("bilinear", "weight_norm", "gelu_mlp: the slope", "dora", "relative_bias"),
)
SHORT = {bug.cause: bug for bug in reversed(ALL) if not any(word in bug.name for word in LONG)}


@pytest.mark.parametrize("bug", SHORT.values(), ids=lambda bug: bug.name)
def test_a_bug_is_caught_and_its_cause_named_and_the_right_layer_raises_no_alarm(bug):
    verdict = our_verdict(bug)
    assert verdict.caught
    assert verdict.named, verdict.says
    assert not verdict.false_alarm


def test_the_zoo_is_large_and_varied():
    assert len(ALL) >= 181
    assert len({bug.name for bug in ALL}) == len(ALL)
    assert len({bug.right.__name__ for bug in ALL}) >= 59
    assert {bug.cause for bug in ALL} <= set(CAUSES)
    assert len(SHORT) >= 25
    assert set(SHORT) == {bug.cause for bug in ALL}
