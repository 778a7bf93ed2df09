from functional_lm.health.faults import skipped_updates
from functional_lm.health.history import History


def test_updates_that_were_skipped(run):
    records = run()
    assert skipped_updates(History.of(records, 65)) is None
    records[99] |= {"loss": None, "fault": "the loss is nan"}
    finding = skipped_updates(History.of(records, 65))
    assert finding.severity == "warning"
    assert finding.evidence == (
        "1 of 400 updates was skipped, the first at step 100: the loss is nan"
    )
    for record in records[200:210]:
        record["fault"] = "the gradient has an entry that is inf"
    finding = skipped_updates(History.of(records, 65))
    assert finding.severity == "error"
    assert finding.steps == (100, 210)
