"""Tests of the benchmarks, except for their timing."""

import dataclasses
import importlib
import json
import os
import subprocess
import sys
from pathlib import Path
from unittest.mock import Mock

import cluster
import harness
import numpy as np
import pytest
from harness import (
    Disagreement,
    Peer,
    PeerFailed,
    Report,
    Spec,
    Summary,
    Turn,
    Usage,
    alternate,
    expect_equal_losses,
    expect_equal_tokens,
    share_of_others,
    summary,
)
from learning import _curvatures
from speed import GENERATIONS, STEPS, choose, choose_settings
from workload import SETTINGS, Setting, draw

from functional_lm.training import Experiment, TrainConfig

SMALL = dataclasses.asdict(Setting("small", 8, 1, 2, 12, batch_size=2, seq_len=12, vocab_size=11))


def test_figures_leave_disturbed_turns_out_unless_few_others_are_there(tmp_path, capsys):
    assert summary([5.0, 1.0, 3.0, 2.0, 4.0]) == Summary(3.0, 2.0, 4.0, 5)
    assert summary([2.0]) == Summary(2.0, 2.0, 2.0, 1)
    turns = [Turn("a", i, [float(i + 1)], 0.4 if i == 2 else 0.0) for i in range(5)]
    turns += [Turn("b", i, [1.0, 2.0, 9.0], 0.4 if i > 1 else 0.0) for i in range(5)]
    report = Report("sample")
    report.missing["torch"] = "not installed"
    report.add_turns("tiny", turns, "s", 1.0, [("a", "b"), ("a", "c")])
    report.add_turns("tiny", turns, "tokens/s", {"a": 2.0, "b": 4.0}, [])
    a, b, ratio, _, rates = report.rows
    assert a["values"] == [1.0, 2.0, 4.0, 5.0]
    assert a["note"] == "1 of 5 turns left out: disturbed"
    assert (b["count"], b["note"]) == (5, "3 of 5 turns DISTURBED")
    assert (ratio["what"], ratio["values"]) == ("a / b", [0.5, 1.0, 2.0, 2.5])
    assert rates["median"] == 2.0
    report.write(tmp_path / "new")
    assert json.loads((tmp_path / "new" / "sample.json").read_text())["rows"] == report.rows
    assert "not available: torch: not installed" in capsys.readouterr().out


def test_others_are_what_the_peer_did_not_use():
    before, after = Usage(10.0, 100.0, 1.0), Usage(11.0, 100.9, 1.0)
    cores = os.cpu_count()
    assert share_of_others(before, after, 0.9) == pytest.approx(0.0)
    assert share_of_others(before, after, 0.0) == pytest.approx(0.9 / cores)
    assert share_of_others(before, after._replace(stolen=2.0), 0.9) == pytest.approx(1 / cores)


def test_peers_that_disagree_are_not_timed():
    expect_equal_losses({"ours": [4.0, 3.0], "jax": [4.0001, 3.0]})
    with pytest.raises(Disagreement, match=r"jax and ours .* at step 1"):
        expect_equal_losses({"ours": [4.0, 3.0], "jax": [4.0, 3.01]})
    with pytest.raises(Disagreement):
        expect_equal_losses({"ours": [4.0], "jax": [float("nan")]})
    texts = [[1, 2, i] for i in range(10)]
    expect_equal_tokens({"ours": texts, "jax": [[1, 2, 7], *texts[1:]]})
    for others in ([[1, 2, 7], [1, 2, 7], *texts[2:]], [[5, 2, 0], *texts[1:]]):
        with pytest.raises(Disagreement, match="of 10"):
            expect_equal_tokens({"ours": texts, "jax": others})


FAKE = """
import os, sys

def make(delay=0.0, fail=False):
    print("a library says hello")
    if fail:
        raise ImportError("no such framework")
    def steps(n):
        print("noise")
        if n > 9:
            sys.exit(3)
        return {"seconds": [delay] * n}
    return {"pid": os.getpid(), "threads": os.environ.get("OPENBLAS_NUM_THREADS")}, steps
"""


def test_peers_take_turns_in_processes_of_their_own(tmp_path):
    (tmp_path / "fake_peer.py").write_text(FAKE)
    a, b = (Spec("fake_peer", "make", {"delay": d}, tmp_path) for d in (0.5, 0.25))
    with Peer("a", a) as a, Peer("b", b) as b:
        assert a.about["pid"] != b.about["pid"]
        assert a.about["threads"] is None  # each peer chooses them itself
        a.pause()
        b.pause()
        turns = alternate({"a": (a, {"n": 3}), "b": (b, {"n": 3})}, rounds=2, skip=1)
        order = [(turn.name, turn.round) for turn in turns]
        assert order == [("a", 0), ("b", 0), ("b", 1), ("a", 1)]
        assert turns[0].seconds == [0.5, 0.5]
        state = Path(f"/proc/{a.about['pid']}/stat").read_text().rpartition(")")[2].split()[0]
        assert state == "T"
        a.resume()
        with pytest.raises(PeerFailed, match="a ended"):
            a.ask(n=10)
    with pytest.raises(ProcessLookupError):
        os.kill(b.about["pid"], 0)
    with pytest.raises(PeerFailed, match="no such framework"):
        Peer("a", Spec("fake_peer", "make", {"fail": True}, tmp_path))


def test_what_is_not_installed_is_left_out_at_once(capsys):
    report = Report("sample")
    specs = {"ours": Spec("peer_ours", "step"), "odd-one": Spec("peer_odd", "step")}
    assert list(harness.available(specs, report)) == ["ours"]
    assert "without odd-one, which needs odd: pip install" in capsys.readouterr().err
    assert list(report.missing) == ["odd-one"]


def test_peers_are_chosen_by_name_or_are_two_checkouts():
    assert list(choose(STEPS, ["ours"], None, n=1)) == ["ours"]
    with pytest.raises(SystemExit, match="unknown config 'huge': choose from tiny, tiny-long"):
        choose_settings(["tiny", "huge"])
    with pytest.raises(SystemExit, match="unknown peer 'theirs'"):
        choose(STEPS, ["theirs"], None)
    both = choose(STEPS, ["ours"], harness.ROOT, n=1)
    assert [spec.checkout for spec in both.values()] == [harness.ROOT] * 2
    with pytest.raises(SystemExit, match="must be a checkout"):
        choose(STEPS, ["ours"], Path("/nowhere"))


def losses(spec: Spec) -> list[float]:
    module = importlib.import_module(spec.module)
    _, steps = getattr(module, spec.function)(setting=SMALL, **spec.keywords)
    return steps(n=4)["losses"]


@pytest.mark.parametrize("name", ["jax-manual", "jax-library", "torch-eager"])
def test_a_peer_learns_the_same(name, monkeypatch):
    library = pytest.importorskip(name.partition("-")[0])
    if library.__name__ == "torch":  # its optimizers load the compiler, which takes five seconds
        uncompiled = Mock(disable=lambda function, *_, **__: function)
        monkeypatch.setattr(library, "_dynamo", uncompiled, raising=False)
        monkeypatch.setitem(sys.modules, "torch._dynamo", uncompiled)
    expect_equal_losses({"ours": losses(STEPS["ours-plain"]), name: losses(STEPS[name])})


@pytest.mark.parametrize("name", ["jax", "torch"])
def test_a_peer_decodes_the_same(name, monkeypatch):
    pytest.importorskip(name)
    monkeypatch.setattr(importlib.import_module("peer_ours").runtime, "tune", lambda: None)
    tokens = {}
    for peer in ("ours", name):
        module = importlib.import_module(GENERATIONS[peer].module)
        _, texts = module.generation(setting=SMALL, n_prompt=4, n_new=8, gain=2.0)
        tokens[peer] = texts(batch=2)["tokens"]
    assert np.shape(tokens["ours"]) == (2, 8)
    expect_equal_tokens(tokens)


def test_a_trained_model_is_drawn_and_decoded_with_drafts(tmp_path, monkeypatch):
    peer = importlib.import_module("peer_ours")
    monkeypatch.setattr(peer.runtime, "tune", lambda: None)
    path = str(tmp_path / "trained.npz")
    peer.trained(SMALL, 1, path)[1]()
    setting = SMALL | {"vocab_size": len(np.load(path)["embedding"])}
    drawn = draw(setting)
    shapes = {name: leaf.shape for name, leaf in drawn.params.items()}
    assert {n: leaf.shape for n, leaf in draw(setting, trained=path).params.items()} == shapes
    sizes = {"setting": setting, "n_prompt": 4, "n_new": 8, "gain": 1.0, "trained": path}
    answers = [
        peer.generation(**sizes, **options)[1](batch=1, alone=3)
        for options in ({}, {"speculate": 0})
    ]
    assert np.shape(answers[0]["tokens"]) == (3, 8)
    assert answers[0]["tokens"] == answers[1]["tokens"]
    assert answers[1]["drafts"] == [0, 0]


def test_the_arithmetic_of_a_step_is_that_of_its_matrices():
    given = draw(dataclasses.asdict(SETTINGS["tiny"]))
    matrices = sum(leaf.size for leaf in given.params.values() if leaf.ndim == 2)
    attention = 4 * 4 * 64 * 128  # scores and values, in four blocks
    assert given.setting.flops == 3 * (2 * matrices + attention) * 16 * 64


def test_sharpness_is_positive_and_finite_on_the_way_of_training():
    text, sizes = "to be or not to be " * 40, {"d_model": 8, "n_heads": 2, "n_layers": 1}
    settings = TrainConfig(steps=4, batch_size=2, seq_len=8, shards=1)
    table = list(_curvatures(Experiment.build(text, settings, sizes=sizes), rows=2, products=9))
    assert [row[0] for row in table] == [0, 4]
    for _, loss, (gauss_newton, bound), (hessian, _), (lowest, _) in table:
        assert loss < 3
        assert lowest < 0 < min(gauss_newton, hessian)
        assert bound < 0.1 * gauss_newton


def test_the_command_lists_what_is_measured():
    command = [sys.executable, Path(__file__).with_name("run.py"), "--help"]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    for name in ("step", "generation", "memory", "startup", "saving", "loss-table", "find-lr"):
        assert name in said


def test_several_processes_are_timed(mpiexec):
    seconds = cluster.run(1, {"what": "steps", "setting": "tiny", "steps": 1})
    assert list(seconds) == list(cluster.MODES)
    assert all(len(values) == 1 and values[0] > 0 for values in seconds.values())


def test_the_model_of_many_hosts():
    costs = cluster.Costs(
        microbatch=1.0, rest=0.5, window=0.01, part=0.1, add=1e-6, entries=1000, buckets=2
    )
    link, batch = cluster.Link(latency=1e-3, bandwidth=1e6), {"microbatches": 8, "windows": 16}
    one = cluster.modelled(costs, link, 1, **batch)
    assert one == pytest.approx(8 + 0.5 + 7e-3 + 0.16 + 0.8)
    four = 2 + 0.5 + 1.75e-3 + 0.16 + 0.8 + 2 * 0.75 * 4e-3
    assert cluster.modelled(costs, link, 4, **batch) == pytest.approx(four + 12e-3)
    assert cluster.modelled(costs, link, 4, fast=True, **batch) == pytest.approx(four + 8e-3)
