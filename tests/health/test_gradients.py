import pytest

from functional_lm.health.gradients import block_norms, exploding_gradients, vanishing_gradients
from functional_lm.health.history import History

FIRST = "blocks.0.mixer.qkv.weight"


@pytest.mark.parametrize(
    ("norm", "at", "vanishes", "explodes"),
    [
        (1e-4, (100, 200, 300, 400), True, False),
        (300.0, (100, 200, 300, 400), False, True),
        (1e-4, (200,), False, False),  # only once
        (0.05, (100, 200, 300, 400), False, False),
        (5.0, (100, 200, 300, 400), False, False),
        (0.0, (100, 200, 300, 400), False, False),  # that is `dead_units`
        (None, (100, 200, 300, 400), False, False),
    ],
)
def test_the_first_block_is_compared_with_the_last(inspected, norm, at, vanishes, explodes):
    history = inspected("grad_norm", FIRST, norm, at)
    for check, found in [(vanishing_gradients, vanishes), (exploding_gradients, explodes)]:
        finding = check(history)
        assert (finding is not None) == found
        if finding:
            assert f"first block has a norm of {norm:.2g}" in finding.evidence
            assert finding.steps == (100, 400)


def test_the_whole_gradient(run):
    records = run()
    records[2]["grad_norm"] = 1e-7
    evidence = vanishing_gradients(History.of(records, 65)).evidence
    assert "step 3 the norm of the whole gradient is 1e-07" in evidence
    for record in records:
        record["grad_norm"] = 30.0
    records[7]["grad_norm"] = 900.0
    records[8]["grad_norm"] = None
    evidence = exploding_gradients(History.of(records, 65)).evidence
    assert "median of 30 and a maximum of 900" in evidence


def test_a_small_gradient_at_a_small_loss_is_healthy(run):
    records = run(loss=lambda step: 4.2 if step == 1 else 0.01, noise=0.0)
    records[200]["grad_norm"] = 1e-7
    assert vanishing_gradients(History.of(records, 65)) is None


def test_blocks_are_the_longest_numbered_stack():
    assert block_norms({"norm.scale": 1.0}) == []
    assert block_norms({"blocks.0.w": 1.0}) == []
    figures = {f"layers.{i}.w": float(i) for i in range(11)} | {"heads.0.w": 1.0, "heads.1.w": 2.0}
    assert block_norms(figures) == [float(i) for i in range(11)]
