import pytest

from functional_lm.health.data import corrupted_data
from functional_lm.health.history import History


def judged(records, changes):
    for step, change in changes.items():
        records[step - 1]["loss"] += change
    return corrupted_data(History.of(records, 65))


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("start", "length"), [(40, 10), (200, 20), (380, 12), (250, 4)])
def test_a_stretch_is_located(run, start, length, seed):
    finding = judged(run(seed=seed), {start + i: 2.5 - 0.04 * i for i in range(length)})
    assert finding.steps == (start, start + length - 1)


HEALTHY = {
    "one bad batch": {200: 3.0},
    "three bad batches": {200: 3.0, 201: 3.0, 202: 3.0},
    "noise": {200 + i: 0.25 for i in range(20)},
    "gradual": {200 + i: 3.0 * min(i, 40 - i) / 20 for i in range(40)},
    "permanent": {200 + i: 3.0 for i in range(201)},
    "another text": {150 + i: 3.0 for i in range(200)},
}


@pytest.mark.parametrize("changes", HEALTHY.values(), ids=list(HEALTHY))
def test_other_changes_are_not_corruption(run, changes):
    assert judged(run(), changes) is None


@pytest.mark.parametrize("seed", range(5))
def test_noise_is_not_corruption(run, seed):
    assert judged(run(steps=2000, noise=0.3, seed=seed), {}) is None
