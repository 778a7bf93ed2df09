import pytest

from functional_lm.health.history import History
from functional_lm.health.loss import divergence, overfitting, plateau, skipped_updates


def history(records, *stretches):
    """Return the history after adding to the loss from one step up to another; None removes it."""
    for start, stop, height in stretches:
        for record in records[start:stop]:
            record["loss"] = None if height is None else record["loss"] + height
    return History.of(records, 65)


def test_divergence(run):
    finding = divergence(history(run(), (340, 400, 1.0)))
    assert finding.severity == "error"
    assert finding.steps[1] == 400
    assert 300 < finding.steps[0] <= 340
    assert "is 2." in finding.evidence
    assert "not finite from step 371 on" in divergence(history(run(), (370, 400, None))).evidence


@pytest.mark.parametrize(("height", "stop"), [(0.3, 400), (3.0, 300)], ids=["small", "passing"])
def test_a_small_or_passing_rise_is_not_divergence(run, height, stop):
    assert divergence(history(run(), (280, stop, height))) is None


def test_plateau(run):
    finding = plateau(history(run(loss=lambda step: max(2.5, 4.2 - 0.02 * step), steps=600)))
    assert finding.steps == (301, 600)
    assert "stays at 2.49" in finding.evidence


LEARNING = {
    "still falling": {"loss": lambda step: 3.0 - 0.0005 * step},
    "rate decayed": {
        "loss": lambda step: max(2.5, 4.2 - 0.05 * step),
        "lr": lambda step: 3e-3 if step < 250 else 1e-5,
    },
    "nothing left": {"loss": lambda step: 4.2 if step < 50 else 0.2, "noise": 0.0},
    "noisy": {"loss": lambda step: 2.5, "noise": 0.3},
    "just begun": {"loss": lambda step: max(3.3, 4.2 - 0.02 * step), "steps": 400},
}


@pytest.mark.parametrize("settings", LEARNING.values(), ids=list(LEARNING))
def test_other_flat_losses_are_not_a_plateau(run, settings):
    assert plateau(history(run(**{"steps": 600} | settings))) is None


@pytest.mark.parametrize(
    ("validations", "found"),
    [
        ({100: 2.6, 200: 2.2, 300: 2.25, 400: 2.4}, True),
        ({200: 2.6, 300: 2.59, 400: 2.59}, True),  # stays far above the training loss
        ({100: 2.6, 200: 2.3, 300: 2.1, 400: 1.9}, False),
        ({100: 2.6, 200: 2.2, 300: 2.1, 400: 2.15}, False),  # hardly rises
        ({100: 3.6, 200: 3.3, 300: 3.1, 400: 2.9}, False),  # a gap, but both fall
        ({400: 3.0}, False),
        ({300: None, 400: 3.0}, False),
    ],
)
def test_overfitting(run, validations, found):
    records = [{**record, "val_loss": validations.get(record["step"])} for record in run()]
    finding = overfitting(history(records))
    assert (finding is not None) == found
    if 100 in validations and found:
        assert finding.steps == (200, 400)
        assert "from 2.2 at step 200 to 2.4 at step 400" in finding.evidence
    # Where training gets worse too, it is something else; nor are losses before the first known.
    assert overfitting(history([{**r, "loss": 2 + r["step"] / 400} for r in records])) is None
    assert overfitting(history([{**r, "loss": r["step"] >= 399 or None} for r in records])) is None


def test_skipped_updates(run):
    records = run()
    assert skipped_updates(history(records)) is None
    records[99] |= {"loss": None, "fault": "the loss is nan"}
    finding = skipped_updates(history(records))
    assert finding.severity == "warning"
    assert finding.evidence == (
        "1 of 400 updates was skipped, the first at step 100: the loss is nan"
    )
    for record in records[200:210]:
        record["fault"] = "the gradient has an entry that is inf"
    finding = skipped_updates(history(records))
    assert finding.severity == "error"
    assert finding.steps == (100, 210)
