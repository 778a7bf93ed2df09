import pytest

from functional_lm.health.history import History
from functional_lm.health.rate import no_warm_up, rate_too_high


def history(records, collapsed=True):
    if collapsed:
        for record in records:
            if record["step"] % 100 == 0:
                record["statistics"]["attention_entropy"]["blocks.1"] = 0.01
    return History.of(records, 65)


def warmed(peak):
    return lambda step: peak * min(step / 40, 1.0)


def test_a_rate_that_reaches_too_far_and_does_harm(run):
    """The first step of 40 moved the weights by 0.01·0.3/3e-3/40 = 0.025 of their size."""
    finding = rate_too_high(history(run(lr=warmed(0.3))))
    assert finding.severity == "error"
    assert finding.steps[0] == 20
    assert "by 1 of its first size" in finding.evidence
    assert "collapsed to 0.01 nats" in finding.evidence
    assert "rate of 3e-02" in finding.remedy
    assert rate_too_high(history(run())) is None  # harm alone
    assert rate_too_high(history(run(lr=warmed(0.3)), collapsed=False)) is None  # reach alone


@pytest.mark.parametrize("std", [80.0, None])
def test_activations_that_grow_without_bound_are_harm(inspected, std):
    grown = inspected("activation_std", "blocks.1", std, at=(200,), lr=warmed(0.3))
    evidence = rate_too_high(grown).evidence
    assert "step 200" in evidence
    assert ("to 80" if std else "not finite") in evidence


def test_a_loss_above_its_start_is_harm(run):
    records = run(lr=warmed(0.3), loss=lambda step: 4.2 if step == 1 else 6.0)
    assert "above its start of 4" in rate_too_high(history(records, collapsed=False)).evidence


def test_a_first_step_at_the_full_rate(run):
    records = run(lr=lambda step: 0.1)
    records[3]["loss"] += 0.8
    finding = no_warm_up(history(records))
    assert "moved the weights by 0.33" in finding.evidence
    assert "rose by 0." in finding.evidence
    assert no_warm_up(history(run(lr=warmed(0.1)))) is None
    assert no_warm_up(history(run(lr=lambda step: 3e-3))) is None
    # Then the peak must reach twice as far.
    assert rate_too_high(history(run(lr=lambda step: 0.2))) is None
    assert rate_too_high(history(run(lr=lambda step: 0.4))) is not None


def test_without_the_first_statistics_or_a_rate_nothing_is_found(run):
    for records in (run(lr=lambda step: 0.4)[1:], run(lr=lambda step: 0.0)):
        assert rate_too_high(history(records)) is None
        assert no_warm_up(history(records)) is None


def test_without_a_finite_loss_the_first_rate_is_still_judged(run):
    records = [{**record, "loss": None} for record in run(lr=lambda step: 0.4)]
    assert no_warm_up(history(records)).steps == (1, 1)
