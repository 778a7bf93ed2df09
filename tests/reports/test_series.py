import math

import numpy as np
import pytest

from functional_lm.reports.series import (
    Series,
    by_depth,
    in_order,
    median,
    norm,
    series,
    smooth,
    table,
    thin,
)


def test_what_is_absent_or_no_finite_number_is_left_out():
    values = [1.0, None, math.nan, math.inf, "2", True, [3], 4, 10**400]
    records = [{"step": i, "loss": value} for i, value in enumerate(values)] + [{"step": 9}]
    found = series(records, "loss")
    assert found.steps.tolist() == [0, 7]
    assert found.values.tolist() == [1.0, 4.0]
    assert series([], "loss").steps.size == 0


def test_of_a_step_that_was_made_again_the_last_counts():
    again = [{"step": step, "part": part} for part, step in [(0, 1), (0, 2), (1, 2), (1, 3)]]
    assert [(r["step"], r["part"]) for r in in_order(again)] == [(1, 0), (2, 1), (3, 1)]


def test_a_table_has_a_row_for_each_record_that_holds_the_statistic():
    records = [
        {"step": 1},
        {"step": 2, "statistics": {"grad_norm": {"a": 1.0, "b": None}}},
        {"step": 3, "statistics": {"update_ratio": {"a": 1.0}}},
        {"step": 4, "statistics": {"grad_norm": {"b": 2.0, "c": 3.0}}},
        {"step": 5, "statistics": None},
        {"step": 6, "statistics": {"grad_norm": None}},
    ]
    found = table(records, "grad_norm")
    assert found.steps.tolist() == [2, 4]
    assert found.names == ("a", "b", "c")
    assert np.isnan(found.values).tolist() == [[False, True, True], [True, False, False]]
    assert found.column("b") == (np.array([4.0]), np.array([2.0]))
    assert table(records, "zero_share").values.shape == (0, 0)


def test_leaves_are_brought_together_by_block():
    figures = {"embedding.weight": 1.0, "blocks.0.a.b": 3.0, "blocks.10.a": 7.0, "blocks.0.c": 4.0}
    records = [{"step": 1, "statistics": {"grad_norm": figures}}]
    found = by_depth(table(records, "grad_norm"), norm)
    assert found.names == ("embedding", "blocks.0", "blocks.10")
    assert found.values.tolist() == [[1.0, 5.0, 7.0]]
    # The norm of a block is not known without one of its leaves; a median is.
    figures["blocks.0.a.b"] = None
    leaves = table(records, "grad_norm")
    assert np.isnan(by_depth(leaves, norm).values).tolist() == [[False, True, False]]
    assert by_depth(leaves, median).values.tolist() == [[1.0, 4.0, 7.0]]


def test_smoothing_keeps_a_line_and_takes_out_noise():
    steps = np.arange(400.0)
    line = smooth(Series(steps, 2 * steps))
    assert line.values[5:-5] == pytest.approx(2 * steps[5:-5])
    noise = np.random.default_rng(0).standard_normal(400)
    assert smooth(Series(steps, noise)).values.std() < 0.5 * noise.std()
    few = Series(np.arange(3.0), np.array([3.0, 1.0, 2.0]))
    assert smooth(few).values.tolist() == [3.0, 1.0, 2.0]
    assert smooth(Series(np.array([]), np.array([]))).values.size == 0


def test_smoothing_recovers_from_a_loss_that_was_huge():
    values = np.ones(400)
    values[100] = 1e30
    after = smooth(Series(np.arange(400.0), values)).values[110:]
    assert after == pytest.approx(1.0)


def test_thinning_keeps_spikes_and_the_ends_of_stretches():
    steps = np.arange(100_000.0)
    values = np.sin(steps / 1000)
    values[31_337] = 50.0
    thinned = thin(Series(steps, values), 2000)
    assert 1000 < len(thinned.steps) <= 2000
    assert thinned.values.max() == 50.0
    assert (np.diff(thinned.steps) > 0).all()
    few = Series(steps[:10], values[:10])
    assert thin(few, 2000) is few
