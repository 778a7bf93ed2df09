import json

import pytest

from functional_lm.health import CHECKS, can_look, diagnose


@pytest.mark.parametrize(
    ("seed", "steps"), [(0, 400), (1, 400), (2, 400), (0, 0), (0, 1), (0, 2), (0, 7), (0, 30)]
)
def test_a_healthy_run_has_no_findings(run, seed, steps):
    assert diagnose(run(steps=steps, seed=seed), vocab_size=65) == []


def test_records_may_lack_statistics(run):
    records = [{k: v for k, v in r.items() if k not in ("statistics", "val_loss")} for r in run()]
    assert diagnose(records, vocab_size=65) == []
    able = can_look(records)
    assert set(able) == set(CHECKS)
    unable = {name for name in CHECKS if not able[name]}
    assert {"overfitting", "dead units"} < unable
    assert not {"divergence", "skipped updates", "corrupted data", "plateau"} & unable


def test_the_last_record_of_a_repeated_step_counts(run):
    records = run()
    repeated = [{**record, "loss": 50.0} for record in records[200:230]]
    assert diagnose(records[:200] + repeated + records[200:], vocab_size=65) == []


def test_a_cause_hides_its_consequences(run):
    """A rate that is too high makes attention collapse; only the rate is reported."""
    records = run(lr=lambda step: 0.3 * min(step / 40, 1.0))
    for record in records[99::100]:
        record["statistics"]["attention_entropy"]["blocks.1"] = 0.01
    (finding,) = diagnose(records, vocab_size=65)
    assert finding.name == "learning rate too high"
    for record in records:  # the same at a healthy rate
        record["lr"] /= 100
    records[0]["statistics"]["update_ratio"] = dict.fromkeys(
        records[0]["statistics"]["update_ratio"], 1e-3
    )
    (finding,) = diagnose(records, vocab_size=65)
    assert finding.name == "saturated attention"


def test_every_check_explains_known_troubles():
    for name, check in CHECKS.items():
        assert set(check.explains) <= set(CHECKS) - {name}


def test_findings_are_sentences_and_plain_json(run):
    records = run()
    for record in records[300:]:
        record["loss"] = 9.0
    records[350] |= {"loss": None, "fault": "the loss is nan"}
    findings = diagnose(records, vocab_size=65)
    assert [finding.name for finding in findings] == ["divergence", "skipped updates"]
    for finding in findings:
        assert json.loads(json.dumps(finding.as_json()))["steps"] == list(finding.steps)
        assert finding.severity in ("error", "warning")
        assert not finding.evidence.endswith(".")
        assert any(character.isdigit() for character in finding.evidence)
        assert "nan" not in finding.evidence.replace("the loss is nan", "")


@pytest.mark.parametrize(
    "odd",
    [
        {},
        {"loss": "four", "lr": [], "grad_norm": {}, "val_loss": "1", "fault": 3},
        {"loss": 10**400, "lr": float("inf"), "grad_norm": True},
        {"statistics": 7},
        {"statistics": {"grad_norm": None, "update_ratio": [1], "zero_share": {"a": "b"}}},
        {"statistics": {"attention_entropy": {"a": 0.01}, "attention_uniform": {"a": 0}}},
        {"statistics": {"attention_entropy": {"a": None}, "activation_std": {"a": None}}},
    ],
    ids=str,
)
def test_records_may_hold_anything(run, odd):
    records = run()
    for number in (0, 99, 399):
        records[number] = {"step": number + 1, **odd}
    diagnose(records, vocab_size=65)
    diagnose([{"step": step, **odd} for step in (-1, 1, 2, 10**30)], vocab_size=65)
    can_look(records)
