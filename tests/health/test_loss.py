import pytest

from functional_lm.health.history import History
from functional_lm.health.loss import divergence, plateau


def history(records):
    return History.of(records, 65)


def test_a_loss_that_ends_far_above_its_lowest(run):
    records = run()
    for record in records[-60:]:
        record["loss"] += 1.0
    finding = divergence(history(records))
    assert finding.severity == "error"
    assert finding.steps[1] == 400
    assert 300 < finding.steps[0] <= 340
    assert "is 2." in finding.evidence


def test_a_loss_that_is_no_number_at_the_end(run):
    records = run()
    for record in records[-30:]:
        record["loss"] = None
    assert "no number from step 371 on" in divergence(history(records)).evidence


@pytest.mark.parametrize(
    ("height", "until"), [(0.3, 400), (3.0, 300)], ids=["little", "what is over"]
)
def test_what_is_no_divergence(run, height, until):
    records = run()
    for record in records[280:until]:
        record["loss"] += height
    assert divergence(history(records)) is None


def test_a_loss_that_stands_still(run):
    finding = plateau(history(run(loss=lambda step: max(2.5, 4.2 - 0.02 * step), steps=600)))
    assert finding.steps == (301, 600)
    assert "stands at 2.49" in finding.evidence


@pytest.mark.parametrize(
    "change",
    {
        "it still falls": {"loss": lambda step: 3.0 - 0.0005 * step},
        "the rate has gone": {
            "loss": lambda step: max(2.5, 4.2 - 0.05 * step),
            "lr": lambda step: 3e-3 if step < 250 else 1e-5,
        },
        "nothing is left to learn": {"loss": lambda step: 4.2 if step < 50 else 0.2, "noise": 0.0},
        "noise says nothing": {"loss": lambda step: 2.5, "noise": 0.3, "steps": 600},
        "it has just begun": {"loss": lambda step: max(3.3, 4.2 - 0.02 * step), "steps": 400},
    }.items(),
    ids=lambda item: item[0],
)
def test_what_is_no_plateau(run, change):
    assert plateau(history(run(**{"steps": 600} | change[1]))) is None
