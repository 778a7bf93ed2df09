import numpy as np
import pytest

from functional_lm.losses import cross_entropy
from functional_lm.testing import certify

test_certified = certify("cross_entropy")


def test_uniform_logits_lose_log_v():
    loss, _ = cross_entropy.forward({}, np.zeros((3, 7)), targets=np.array([0, 3, 6]))
    assert loss == pytest.approx(np.log(7))


@pytest.mark.parametrize("shift", [-1e4, 0.0, 1e4])
def test_a_constant_added_to_a_row_changes_nothing(shift):
    x = np.arange(12.0).reshape(3, 4)
    targets = np.array([1, 0, 3])
    loss, _ = cross_entropy.forward({}, x, targets=targets)
    shifted, _ = cross_entropy.forward({}, x + shift, targets=targets)
    assert shifted == pytest.approx(loss, rel=1e-14)


def test_a_confident_prediction_keeps_its_accuracy():
    x = np.array([[1000.0, 995.0]], np.float32)
    loss, _ = cross_entropy.forward({}, x, targets=np.array([0]))
    assert loss == pytest.approx(np.log1p(np.exp(-5.0)), rel=1e-4)


@pytest.mark.parametrize(
    ("targets", "error", "says"),
    [
        (np.array([0, 3]), ValueError, r"\[0, 3\), or ignore_index=-100: got 3 at position \(1,\)"),
        (np.array([0, -1]), ValueError, "got -1"),
        (np.array([0]), ValueError, r"got \(1,\)"),
        (np.array([0.0, 1.0]), TypeError, "float64"),
    ],
)
def test_bad_targets_are_named(targets, error, says):
    with pytest.raises(error, match=says):
        cross_entropy.forward({}, np.ones((2, 3)), targets=targets)


def test_an_ignore_index_that_is_none_is_refused():
    with pytest.raises(TypeError, match="ignore_index must be an integer: got None"):
        cross_entropy.forward({}, np.ones((1, 3)), targets=np.array([0]), ignore_index=None)


def test_one_token_cannot_be_smoothed():
    side = {"targets": np.zeros(3, int), "label_smoothing": 0.3}
    loss, residuals = cross_entropy.forward({}, np.arange(3.0)[:, None], **side)
    assert abs(loss) < 1e-15
    assert np.abs(residuals.d_logits).max() < 1e-15


@pytest.mark.parametrize(
    "settings", [{"label_smoothing": 1.1}, {"label_smoothing": -0.1}, {"z_loss": -1.0}], ids=str
)
def test_settings_out_of_range_are_refused(settings):
    with pytest.raises(ValueError, match=next(iter(settings))):
        cross_entropy.forward({}, np.ones((1, 3)), targets=np.array([0]), **settings)
