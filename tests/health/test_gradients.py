import pytest

from functional_lm.health.gradients import block_norms, exploding_gradients, vanishing_gradients
from functional_lm.health.history import History


def with_norms(records, first, last, at=None):
    for record in records[99::100] if at is None else [records[at - 1]]:
        norms = record["statistics"]["grad_norm"]
        norms["blocks.0.attention.qkv"], norms["blocks.1.attention.qkv"] = first, last
    return History.of(records, 65)


def test_by_layer(run):
    vanishing = vanishing_gradients(with_norms(run(), 1e-4, 0.5))
    assert "first block has a norm of 0.0001" in vanishing.evidence
    assert vanishing.steps == (100, 400)
    assert exploding_gradients(with_norms(run(), 1e-4, 0.5)) is None
    exploding = exploding_gradients(with_norms(run(), 300.0, 0.5))
    assert "first block has a norm of 3e+02" in exploding.evidence
    assert vanishing_gradients(with_norms(run(), 300.0, 0.5)) is None


def test_what_shows_once_does_not_count(run):
    history = with_norms(run(), 1e-4, 0.5, at=200)
    assert vanishing_gradients(history) is None


@pytest.mark.parametrize("norms", [(0.05, 0.5), (5.0, 0.5), (0.0, 0.5), (None, 0.5)])
def test_what_is_in_order_by_layer(run, norms):
    """A gradient of exactly zero has another cause; see `dead_units`."""
    history = with_norms(run(), *norms)
    assert vanishing_gradients(history) is None
    assert exploding_gradients(history) is None


def test_as_a_whole(run):
    records = run()
    records[2]["grad_norm"] = 1e-7
    assert "step 3 the norm of the whole gradient is 1e-07" in (
        vanishing_gradients(History.of(records, 65)).evidence
    )
    for record in records:
        record["grad_norm"] = 30.0
    records[7]["grad_norm"] = 900.0
    records[8]["grad_norm"] = None
    said = exploding_gradients(History.of(records, 65)).evidence
    assert "median of 30, and was 900 at most" in said


def test_a_small_gradient_at_a_small_loss_is_in_order(run):
    records = run(loss=lambda step: 4.2 if step == 1 else 0.01, noise=0.0)
    records[200]["grad_norm"] = 1e-7
    assert vanishing_gradients(History.of(records, 65)) is None


def test_blocks_are_the_longest_numbered_stack():
    assert block_norms({"norm.scale": 1.0}) == []
    assert block_norms({"blocks.0.w": 1.0}) == []
    figures = {f"layers.{i}.w": float(i) for i in range(11)} | {"heads.0.w": 1.0, "heads.1.w": 2.0}
    assert block_norms(figures) == [float(i) for i in range(11)]
