import math

import numpy as np
import pytest

from functional_lm.runs.records import (
    FINAL,
    by_block,
    final_loss,
    in_order,
    median,
    norm,
    series,
    table,
    values_of,
)


def test_only_finite_numbers_are_read():
    values = [1.0, None, math.nan, math.inf, "2", True, [3], 4, 10**400]
    records = [{"step": i, "loss": value} for i, value in enumerate(values)] + [{"step": 9}]
    steps, losses = series(records, "loss")
    assert steps.tolist() == [0, 7]
    assert losses.tolist() == [1.0, 4.0]
    assert np.flatnonzero(np.isfinite(values_of(records, "loss"))).tolist() == [0, 7]
    assert series([], "loss").steps.size == 0


def test_the_last_record_of_a_repeated_step_counts():
    again = [{"step": step, "part": part} for part, step in [(0, 1), (0, 2), (1, 2), (1, 3)]]
    again += [{"step": 10**30}, {}]
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
    norms = table(records, "grad_norm")
    assert norms.steps.tolist() == [2, 4]
    assert norms.names == ("a", "b", "c")
    assert np.isnan(norms.values).tolist() == [[False, True, True], [True, False, False]]
    assert norms.column("b") == (np.array([4.0]), np.array([2.0]))
    assert table(records, "zero_share").values.shape == (0, 0)


def test_leaves_are_combined_by_block():
    figures = {"embedding.weight": 1.0, "blocks.0.a.b": 3.0, "blocks.10.a": 7.0, "blocks.0.c": 4.0}
    records = [{"step": 1, "statistics": {"grad_norm": figures}}]
    norms = by_block(table(records, "grad_norm"), norm)
    assert norms.names == ("embedding", "blocks.0", "blocks.10")
    assert norms.values.tolist() == [[1.0, 5.0, 7.0]]
    # A block without one of its leaves has no norm, but a median.
    figures["blocks.0.a.b"] = None
    leaves = table(records, "grad_norm")
    assert np.isnan(by_block(leaves, norm).values).tolist() == [[False, True, False]]
    assert by_block(leaves, median).values.tolist() == [[1.0, 4.0, 7.0]]


def test_the_final_loss_is_the_mean_of_the_last_steps():
    assert final_loss([9.0] * 10 + [1.0] * FINAL) == 1.0
    assert final_loss([2.0, 4.0]) == pytest.approx(3.0)
    assert math.isnan(final_loss([]))
