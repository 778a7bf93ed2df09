import pytest

from functional_lm.health.activations import dead_units, saturated_attention
from functional_lm.health.history import History


def changed(records, part, name, value, at=(1, 100, 200, 300, 400)):
    for step in at:
        records[step - 1]["statistics"][part][name] = value
    return History.of(records, 65)


def test_units_that_are_dead(run):
    finding = dead_units(changed(run(), "zero_share", "blocks.1.mlp", 1.0))
    assert finding.severity == "error"
    assert finding.evidence == "100% of the units of blocks.1.mlp are zero for every token"
    finding = dead_units(changed(run(), "zero_share", "blocks.1.mlp", 0.5, at=(300, 400)))
    assert finding.severity == "warning"
    assert finding.steps == (300, 400)


@pytest.mark.parametrize(
    ("share", "at"), [(0.2, (1, 100, 200, 300, 400)), (1.0, (200,)), (1.0, (400,)), (None, (400,))]
)
def test_few_units_or_for_once_do_not_count(run, share, at):
    assert dead_units(changed(run(), "zero_share", "blocks.1.mlp", share, at=at)) is None


def test_leaves_without_a_gradient(run):
    records = run()
    finding = dead_units(changed(records, "grad_norm", "blocks.1.attention.qkv", 0.0))
    assert finding.evidence == "the gradient of blocks.1.attention.qkv is zero at every step"
    assert finding.steps == (1, 400)
    later = changed(records, "grad_norm", "blocks.1.attention.qkv", 0.1, at=(100, 200, 300, 400))
    assert dead_units(later) is None  # an output matrix of zeros: for one step only


def test_attention_that_is_sharp_from_the_start(run):
    finding = saturated_attention(changed(run(), "attention_entropy", "blocks.0", 0.6, at=(1,)))
    assert finding.steps == (1, 1)
    assert "blocks.0 starts at 0.19 of" in finding.evidence


def test_attention_that_becomes_hard_and_stays_so(run):
    finding = saturated_attention(
        changed(run(), "attention_entropy", "blocks.0", 0.03, at=(200, 300, 400))
    )
    assert finding.steps == (200, 400)
    assert "0.03 nats at step 400" in finding.evidence


@pytest.mark.parametrize(
    ("entropy", "at"), [(0.2, (200, 300, 400)), (0.03, (200,)), (2.0, (1,)), (None, (400,))]
)
def test_attention_that_is_sharp_where_it_may(run, entropy, at):
    history = changed(run(), "attention_entropy", "blocks.0", entropy, at=at)
    assert saturated_attention(history) is None
