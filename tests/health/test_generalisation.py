import pytest

from functional_lm.health.generalisation import overfitting
from functional_lm.health.history import History


def judged(records, validations):
    for record in records:
        record.pop("val_loss", None)
    for step, loss in validations.items():
        records[step - 1]["val_loss"] = loss
    return overfitting(History.of(records, 65))


def test_validation_that_rises(run):
    finding = judged(run(), {100: 2.6, 200: 2.2, 300: 2.25, 400: 2.4})
    assert finding.steps == (200, 400)
    assert "from 2.2 at step 200 to 2.4 at step 400" in finding.evidence


def test_validation_that_stands_far_above_training(run):
    assert judged(run(), {200: 2.6, 300: 2.59, 400: 2.59}).name == "overfitting"


@pytest.mark.parametrize(
    "validations",
    [
        {100: 2.6, 200: 2.3, 300: 2.1, 400: 1.9},
        {100: 2.6, 200: 2.2, 300: 2.1, 400: 2.15},  # hardly rises
        {100: 3.6, 200: 3.3, 300: 3.1, 400: 2.9},  # a gap, but both fall: another kind of text
        {400: 3.0},  # nothing to compare with
        {300: None, 400: 3.0},
    ],
)
def test_what_is_no_overfitting(run, validations):
    assert judged(run(), validations) is None


def test_where_training_gets_worse_too_it_is_something_else(run):
    rising = run(loss=lambda step: 2.0 + step / 400)
    assert judged(rising, {100: 2.3, 200: 2.6, 300: 2.9, 400: 3.1}) is None
