"""Pictures are tested through their axes: what is drawn, where, and under which name."""

import base64
import sys
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest

pytest.importorskip("matplotlib")

from functional_lm.reports.plots import (
    COLOURS,
    MOST_POINTS,
    PANELS,
    encode,
    figures,
    label,
    not_recorded,
    palette,
    picture,
    rate_picture,
    styled,
    thin,
)
from functional_lm.runs import Session, open_run
from functional_lm.runs.records import Series
from functional_lm.training import Experiment, TrainConfig

TITLES = [panel.title for panel in PANELS]


def axes_of(figure):
    """Return the axes by the first words of their titles."""
    return {axes.get_title(loc="left").partition(",")[0]: axes for axes in figure.axes}


def legend_of(axes):
    return [text.get_text() for text in axes.get_legend().get_texts()]


def png(figure):
    data = encode(figure, ".png", creator="test 1")
    assert data.startswith(b"\x89PNG")
    assert b"test 1" in data[:4096]
    return data


def test_one_run(run_records):
    records = run_records()
    figure = picture({"run": records})
    png(figure)
    assert figure.get_suptitle() == "run"
    axes = axes_of(figure)
    assert list(axes) == ["loss", *TITLES[1:6]]
    raw, mean, validation = axes["loss"].lines
    assert raw.get_ydata().tolist() == [record["loss"] for record in records]
    assert raw.get_alpha() < 0.5
    assert mean.get_alpha() is None
    assert validation.get_xdata().tolist() == [10, 20, 30, 40]
    assert legend_of(axes["loss"]) == ["training", "validation"]
    layers = axes["norm of the gradient by layer"]
    assert legend_of(layers) == ["blocks.0", "blocks.1", "blocks.2", "embedding", "norm"]
    lines = {line.get_label(): line.get_ydata() for line in layers.lines}
    # A block of two leaves with one norm each.
    assert lines["blocks.0"] / lines["norm"] == pytest.approx(2**0.5)


def test_several_runs_differ_by_colour_and_name(run_records):
    runs = {"a": run_records(), "b": run_records(20, seed=1), "c": run_records(30, blocks=20)}
    figure = picture(runs)
    png(figure)
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["a", "b", "c"]
    axes = axes_of(figure)
    rates = axes["learning rate"].lines
    assert [line.get_color() for line in rates] == list(COLOURS[:3])
    assert [len(line.get_xdata()) for line in rates] == [40, 20, 30]
    layers = axes["norm of the gradient by layer"]
    assert len(layers.collections) == 3  # the range of the layers, for each run
    assert legend_of(layers) == ["median and range of the layers"]


def test_many_layers_have_a_short_legend(run_records):
    axes = axes_of(picture({"run": run_records(blocks=60)}))["norm of the gradient by layer"]
    assert legend_of(axes) == ["blocks.0", "blocks.30", "blocks.59", "embedding", "norm"]
    assert len({line.get_color() for line in axes.lines}) > 50
    leaves = {f"_part{i}.weight": 1.0 + i for i in range(25)}
    figure = picture({"run": [{"step": 1, "statistics": {"grad_norm": leaves}}]})
    png(figure)
    first, *_, last = legend_of(axes_of(figure)["norm of the gradient by layer"])
    assert (first.strip(), last) == ("_part0", "… and 16 more")


def test_what_was_not_recorded_is_left_out_and_named(run_records):
    records = [{"step": r["step"], "loss": r["loss"]} for r in run_records(12)]
    figure = picture({"run": records})
    assert list(axes_of(figure)) == ["loss"]
    assert set(not_recorded(records)) == {"validation loss", *TITLES[1:6]}
    assert all(missing in figure.get_supxlabel() for missing in not_recorded(records))
    assert not_recorded(run_records()) == []
    # What one of two runs recorded is shown.
    both = axes_of(picture({"a": records, "b": run_records()}))
    assert list(both) == ["loss", *TITLES[1:6]]


@pytest.mark.parametrize(
    "records",
    [
        [{"step": 1, "loss": 4.0, "lr": 0.1, "grad_norm": 1.0}],
        [{"step": 7}],
        [{"step": s, "loss": None, "grad_norm": None, "fault": "not finite"} for s in (1, 2)],
        [{"step": s, "loss": 0.0, "lr": 0.0, "grad_norm": 0.0} for s in (1, 2)],
        [{"step": 1, "loss": 1.0, "statistics": {"grad_norm": {"a": None}, "update_ratio": {}}}],
        [{"step": s, "loss": -1e300, "grad_norm": 1e300, "val_loss": 1e300} for s in (1, 2)],
    ],
    ids=["one step", "nothing", "only faults", "zeros", "empty statistics", "huge"],
)
def test_poor_runs_are_drawn_too(records):
    png(picture({"run": records}))
    drawn = [picture({"run": records, "again": records}), *(one for _, one in figures(records))]
    for figure in drawn:
        figure.draw_without_rendering()


def test_a_skipped_update_is_marked_and_does_not_move_the_scale(run_records):
    records = run_records()
    before = axes_of(picture({"run": records}))["loss"].get_ylim()
    records[20] |= {"loss": None, "grad_norm": None, "fault": "not finite"}
    axes = axes_of(picture({"run": records}))["loss"]
    assert axes.get_ylim() == pytest.approx(before, rel=0.05)
    assert axes.lines[-1].get_xdata() == [21]
    assert "update skipped (1)" in legend_of(axes)
    alone = axes_of(picture({"run": records[20:21]}))["loss"]
    assert [text.get_text() for text in alone.texts] == ["nothing recorded"]


def test_a_diverging_loss_leaves_the_rest_visible(run_records):
    records = run_records()
    records[-1]["loss"] = 1e9
    axes = axes_of(picture({"run": records}))["loss"]
    assert axes.get_title(loc="left").endswith("(rises to 1e+09)")
    assert axes.get_ylim()[1] < 2 * records[0]["loss"]


def test_values_that_span_more_than_a_factor_of_three_have_a_log_scale():
    def scale(last):
        records = [{"step": s, "grad_norm": g} for s, g in [(1, 1.0), (2, 0.0), (3, last)]]
        return axes_of(picture({"run": records}))["norm of the gradient (before clipping)"]

    assert scale(100.0).get_yscale() == "log"
    assert scale(1.1).get_yscale() == "linear"


def test_names_are_not_markup(run_records):
    odd = {"_hidden": run_records(3), "a$b$c": run_records(3), r"$\foo$": run_records(3)}
    odd |= {"\x00\ud800\n": run_records(3), "漢" * 90: run_records(3)}
    figure = picture(odd)
    png(figure)
    ElementTree.fromstring(encode(figure, ".svg", creator="test"))
    assert len(figure.legends[0].get_texts()) == 5
    assert max(len(label(name)) for name in odd) <= 42
    png(picture({"$x": run_records(2)}))


def test_light_and_dark_differ_in_ground_and_blue(run_records):
    light, dark = (
        next(figure for _, figure in figures(run_records(3), dark=dark)) for dark in (False, True)
    )
    assert light.get_facecolor()[:3] == (1.0, 1.0, 1.0)
    assert max(dark.get_facecolor()[:3]) < 0.2
    assert light.axes[0].lines[0].get_color() != dark.axes[0].lines[0].get_color()
    with styled():
        assert [len(set(palette(count))) for count in (6, 40)] == [6, 40]


def test_the_same_picture_has_the_same_bytes_and_keeps_the_users_style(run_records):
    import matplotlib as mpl

    with mpl.rc_context({"lines.linewidth": 9.0, "axes.facecolor": "red"}):
        first = encode(picture({"run": run_records()}), ".svg", creator="test")
        assert mpl.rcParams["lines.linewidth"] == 9.0
    assert encode(picture({"run": run_records()}), ".svg", creator="test") == first


def test_long_runs_are_thinned_without_losing_spikes():
    steps = np.arange(100_000.0)
    values = np.sin(steps / 1000)
    values[31_337] = 50.0
    thinned = thin(Series(steps, values))
    assert MOST_POINTS / 2 < len(thinned.steps) <= MOST_POINTS
    assert thinned.values.max() == 50.0
    assert (np.diff(thinned.steps) > 0).all()
    few = Series(steps[:10], values[:10])
    assert thin(few) is few
    noise = np.random.default_rng(0).uniform(1, 2, 50_000)
    records = [{"step": s, "loss": x, "grad_norm": x} for s, x in enumerate(noise.tolist())]
    assert len(encode(picture({"run": records}), ".svg", creator="test")) < 1_000_000


def test_the_entropy_is_compared_with_that_of_uniform_attention(run_records):
    records = run_records()
    for record in records[4::5]:
        entropies = {"blocks.0": 5 / record["step"], "blocks.1": 0.0, "blocks.2": 0.3}
        record["statistics"] |= {
            "attention_entropy": entropies,
            "attention_uniform": {"blocks.0": 3.2},
        }
    drawn = {panel.title: figure for panel, figure in figures(records)}
    figure = drawn["entropy of the attention, in nats"]
    png(figure)
    (axes,) = figure.axes
    assert figure.get_tightbbox().x0 > 0  # no label is cut off
    assert legend_of(axes) == ["blocks.0", "blocks.1", "blocks.2", "uniform attention"]
    assert axes.lines[-1].get_ydata() == [3.2, 3.2]


def test_losses_by_learning_rate():
    rates, losses = [1e-3, 1e-2, 1e-1], [3.0, 2.0, 9.0]
    (axes,) = rate_picture({"validation": (rates, losses), "training": (rates, losses)}).axes
    assert legend_of(axes) == ["validation", "training"]
    assert axes.get_xscale() == "log"
    assert axes.lines[0].get_marker() == "o"
    figure = rate_picture(
        {"mean": (rates, losses)}, raw=(rates, losses), marks={"best": 1e-2}, highest=4.0
    )
    png(figure)
    assert legend_of(figure.axes[0]) == ["each batch", "mean", "best: 0.01"]
    assert figure.axes[0].get_ylim() == (1.9, 4.0)


def test_a_session_and_a_run_show_their_curves_in_a_notebook(tmp_path, monkeypatch):
    experiment = Experiment.build(
        "the quick brown fox. " * 60,
        TrainConfig(steps=2, batch_size=2, seq_len=8),
        sizes={"d_model": 8, "n_layers": 1},
    )
    with Session.start(tmp_path / "run", experiment) as session:
        list(session.train())
    for shown in (session, open_run(tmp_path / "run")):
        image = ElementTree.fromstring(shown._repr_html_())
        assert image.tag == "img"
        assert b"<svg" in base64.b64decode(image.get("src").partition(",")[2])
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert session._repr_html_() is None
