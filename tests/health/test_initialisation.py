import pytest

from functional_lm.health.history import History
from functional_lm.health.initialisation import bad_initialisation


@pytest.mark.parametrize("loss", [5.5, None])
def test_a_first_loss_far_above_chance(run, loss):
    records = run()
    records[0]["loss"] = loss
    finding = bad_initialisation(History.of(records, 65))
    assert finding.steps == (1, 1)
    assert ("is 5.5 where ln 65 = 4.17" if loss else "no number") in finding.evidence
    if loss:
        assert bad_initialisation(History.of(records, None)) is None


@pytest.mark.parametrize("spread", [30.0, None])
def test_activations_that_start_too_wide(run, spread):
    records = run()
    records[0]["statistics"]["activation_std"]["blocks.1"] = spread
    said = bad_initialisation(History.of(records, 65)).evidence
    assert "after blocks.1 start" in said


def test_what_comes_later_is_not_the_initialisation(run):
    records = run()
    records[99]["statistics"]["activation_std"]["blocks.1"] = 30.0
    records[5]["loss"] = 9.0
    assert bad_initialisation(History.of(records, 65)) is None
    assert bad_initialisation(History.of(records[5:], 65)) is None  # a run that was resumed
