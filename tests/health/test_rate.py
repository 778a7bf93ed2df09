import pytest

from functional_lm.health.history import History
from functional_lm.health.rate import no_warm_up, rate_too_high


def warmed(peak, steps=40):
    return lambda step: peak * min(step / steps, 1.0)


def collapse(records, entropy=0.01):
    for record in records[99::100]:
        record["statistics"]["attention_entropy"]["blocks.1"] = entropy
    return records


def history(records):
    return History.of(records, 65)


def test_a_rate_that_reaches_too_far_and_does_harm(run):
    """The first step of 40 moved the weights by 0.01·0.3/3e-3/40 = 0.025 of their size."""
    finding = rate_too_high(history(collapse(run(lr=warmed(0.3)))))
    assert finding.severity == "error"
    assert finding.steps[0] == 20
    assert "by 1 of its first size" in finding.evidence
    assert "collapsed to 0.01 nats" in finding.evidence
    assert "rate of 3e-02" in finding.remedy


def test_harm_alone_or_reach_alone_is_not_enough(run):
    assert rate_too_high(history(collapse(run()))) is None
    assert rate_too_high(history(run(lr=warmed(0.3)))) is None


@pytest.mark.parametrize("std", [80.0, None])
def test_activations_that_grow_without_bound_are_harm(run, std):
    records = run(lr=warmed(0.3))
    records[199]["statistics"]["activation_std"]["blocks.1"] = std
    said = rate_too_high(history(records)).evidence
    assert "step 200" in said
    assert ("to 80" if std else "not finite") in said


def test_a_loss_above_its_start_is_harm(run):
    records = run(lr=warmed(0.3), loss=lambda step: 4.2 if step == 1 else 6.0)
    assert "above its start of 4" in rate_too_high(history(records)).evidence


def test_a_first_step_at_the_full_rate(run):
    records = run(lr=lambda step: 0.1)
    records[3]["loss"] += 0.8
    finding = no_warm_up(history(records))
    assert "moved the weights by 0.33" in finding.evidence
    assert "rose by 0." in finding.evidence
    assert no_warm_up(history(run(lr=warmed(0.1)))) is None
    assert no_warm_up(history(run(lr=lambda step: 3e-3))) is None


def test_without_a_warm_up_the_peak_must_reach_twice_as_far(run):
    at_half = collapse(run(lr=lambda step: 0.2))
    assert rate_too_high(history(at_half)) is None
    assert rate_too_high(history(collapse(run(lr=lambda step: 0.4)))) is not None


def test_without_the_first_statistics_nothing_is_said(run):
    records = collapse(run(lr=lambda step: 0.4))
    assert rate_too_high(history(records[1:])) is None
    assert no_warm_up(history(records[1:])) is None


def test_a_rate_of_zero_is_no_division(run):
    assert rate_too_high(history(collapse(run(lr=lambda step: 0.0)))) is None
