import pytest

from functional_lm.health.activations import bad_initialisation, dead_units, saturated_attention
from functional_lm.health.history import History


@pytest.mark.parametrize("loss", [5.5, None])
def test_a_first_loss_far_above_chance(run, loss):
    records = run()
    records[0]["loss"] = loss
    finding = bad_initialisation(History.of(records, 65))
    assert finding.steps == (1, 1)
    assert f"the first loss is {loss or 'not finite'}, but" in finding.evidence
    assert (bad_initialisation(History.of(records, None)) is None) or loss is None
    assert bad_initialisation(History.of(records[1:], 65)) is None  # a resumed run


@pytest.mark.parametrize(("spread", "found"), [(30.0, True), (None, True), (5.0, False)])
def test_first_activations(inspected, spread, found):
    finding = bad_initialisation(inspected("activation_std", "blocks.1", spread, at=(1,)))
    assert (finding is not None) == found
    assert not found or "after blocks.1 start" in finding.evidence
    assert bad_initialisation(inspected("activation_std", "blocks.1", spread, at=(100,))) is None


def test_dead_units(inspected):
    finding = dead_units(inspected("zero_share", "blocks.1.mlp", 1.0))
    assert finding.severity == "error"
    assert finding.evidence == "100% of the units of blocks.1.mlp are zero for every token"
    finding = dead_units(inspected("zero_share", "blocks.1.mlp", 0.5, at=(300, 400)))
    assert finding.severity == "warning"
    assert finding.steps == (300, 400)


@pytest.mark.parametrize(
    ("share", "at"), [(0.2, (1, 100, 200, 300, 400)), (1.0, (200,)), (1.0, (400,)), (None, (400,))]
)
def test_few_or_briefly_silent_units_are_healthy(inspected, share, at):
    assert dead_units(inspected("zero_share", "blocks.1.mlp", share, at)) is None


def test_leaves_without_a_gradient(inspected):
    leaf = "blocks.1.mixer.qkv.weight"
    finding = dead_units(inspected("grad_norm", leaf, 0.0))
    assert finding.evidence == f"the gradient of {leaf} is zero at every step"
    assert finding.steps == (1, 400)
    assert dead_units(inspected("grad_norm", leaf, 0.0, at=(1,))) is None  # an output of zeros


@pytest.mark.parametrize(
    ("entropy", "at", "steps"),
    [
        (0.6, (1,), (1, 1)),
        (0.03, (200, 300, 400), (200, 400)),
        (0.2, (200, 300, 400), None),
        (0.03, (200,), None),
        (2.0, (1,), None),
        (None, (400,), None),
    ],
)
def test_saturated_attention(inspected, entropy, at, steps):
    finding = saturated_attention(inspected("attention_entropy", "blocks.0", entropy, at))
    assert (finding and finding.steps) == steps
    expected = "0.19 of the entropy of uniform" if entropy == 0.6 else "0.03 nats at step 400"
    assert finding is None or expected in finding.evidence


def test_a_run_from_trained_weights_may_start_with_sharp_attention(inspected):
    history = inspected("attention_entropy", "blocks.0", 0.6, (1,))
    history = history._replace(vocab_size=65, loss=history.loss * 0 + 1.9)
    assert saturated_attention(history) is None
