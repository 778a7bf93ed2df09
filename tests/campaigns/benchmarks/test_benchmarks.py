"""The parts of the benchmarks that time nothing: statistics, reports, processes, agreement."""

import dataclasses
import io
import json
import os
from pathlib import Path

import numpy as np
import pytest
from harness import machine, workload
from harness.agreement import Disagreement, expect_equal_losses, expect_equal_tokens
from harness.process import REMOVED, Peer, PeerFailed, environment
from harness.protocol import serve
from harness.report import Report, number
from harness.rounds import Runner, Turn, alternate, undisturbed
from harness.settings import SETTINGS, STEP_AIMS, Setting, pick
from harness.statistics import Summary, ratios, summary
from rich.console import Console

QUIET = machine.Disturbance(others=0.0, stolen=0.0, load=1.0)
BUSY = machine.Disturbance(others=0.4, stolen=0.0, load=3.0)
SMALL = Setting("small", 8, 1, 2, 12, batch_size=2, seq_len=5, vocab_size=11)


def test_a_summary_is_the_median_and_its_quartiles():
    assert summary([5.0, 1.0, 3.0, 2.0, 4.0]) == Summary(3.0, 2.0, 4.0, 5)
    assert summary([2.0]) == Summary(2.0, 2.0, 2.0, 1)
    assert summary([1.0, 3.0]).scaled(10) == Summary(20.0, 15.0, 25.0, 2)
    with pytest.raises(ValueError, match="at least one value"):
        summary([])


def test_ratios_are_of_the_rounds_in_which_both_ran():
    assert ratios({0: 1.0, 1: 3.0, 3: 5.0}, {1: 6.0, 2: 1.0, 3: 5.0}) == [0.5, 1.0]


def test_disturbed_turns_do_not_count_unless_there_are_too_few_others():
    turns = [Turn("a", i, [float(i)], BUSY if i == 2 else QUIET) for i in range(5)]
    turns += [Turn("b", i, [1.0, 2.0, 9.0], BUSY if i > 1 else QUIET) for i in range(5)]
    quiet = undisturbed(turns)
    assert quiet.values == {
        "a": {0: 0.0, 1: 1.0, 3: 3.0, 4: 4.0},
        "b": dict.fromkeys(range(5), 2.0),
    }
    assert quiet.seconds("a") == [0.0, 1.0, 3.0, 4.0]
    assert quiet.disturbed == {"b"}
    assert quiet.notes == {
        "a": "without 1 disturbed of 5 turns",
        "b": "3 of 5 turns DISTURBED",
    }


def test_a_disturbance_is_what_the_peer_did_not_use():
    before = machine.Usage(at=10.0, used=100.0, stolen=1.0)
    after = machine.Usage(at=11.0, used=100.9, stolen=1.0)
    assert not machine.disturbance(before, after, own_seconds=0.9).busy
    cores = os.cpu_count()
    alone = machine.disturbance(before, after, own_seconds=0.0)
    assert alone.others == pytest.approx(0.9 / cores)
    stolen = machine.disturbance(before, after._replace(stolen=1.0 + 0.2 * cores), 0.9)
    assert stolen.busy


def a_report() -> Report:
    from harness.report import Figure

    report = Report("sample", missing={"torch": "not installed"}, peers={"ours": {"blas": []}})
    report.figures.append(Figure("tiny", "ours", "ms", Summary(20.0, 19.0, 23.0, 5), "quiet"))
    report.figures.append(Figure("tiny", "jax", "ms", Summary(40.0, 39.0, 44.0, 5)))
    report.aim("tiny", "ours / jax", {0: 1.0, 1: 1.1}, {0: 2.0, 1: 2.0}, 0.6)
    report.aim("tiny", "FLOPs", {0: 0.4}, {0: 1.0}, 0.5, at_most=False)
    report.aim("tiny", "noise", {0: 1.0}, {0: 2.0}, 0.6, disturbed=True)
    report.aim("tiny", "nothing in common", {0: 1.0}, {1: 1.0})
    report.raw.append(Turn("ours", 0, [0.02], QUIET).to_json())
    return report


def test_a_report_survives_json():
    report = a_report()
    again = Report.from_json(json.loads(json.dumps(report.to_json())))
    assert again == report
    assert [aim.met for aim in again.aims] == [True, False, None]


def test_a_report_has_a_table_and_a_plot(tmp_path):
    pytest.importorskip("matplotlib")
    a_report().write(tmp_path / "new")
    text = (tmp_path / "new" / "sample.txt").read_text()
    for part in (
        "tiny",
        "19.0 – 23.0",
        "≤ 0.60",
        "≥ 0.50",
        "NOT MET",
        "DISTURBED",
        "torch: not installed",
    ):
        assert part in text
    assert (tmp_path / "new" / "sample.png").read_bytes().startswith(b"\x89PNG")
    assert (
        json.loads((tmp_path / "new" / "sample.json").read_text())["figures"][0]["peer"] == "ours"
    )


def test_numbers_have_three_digits():
    numbers = [0.0, 0.01234, 1.234, 12.34, 123.4, 12345.6]
    assert [number(value) for value in numbers] == ["0", "0.0123", "1.23", "12.3", "123", "12,346"]


def test_a_table_needs_no_aims():
    console = Console(file=io.StringIO(), width=100)
    Report("empty").show(console)
    assert "median" in console.file.getvalue()


def test_equal_losses_pass_and_others_name_the_peer_and_the_step():
    expect_equal_losses({"ours": [4.0, 3.0], "jax": [4.0001, 3.0]})
    with pytest.raises(Disagreement, match=r"jax and ours .* at step 1"):
        expect_equal_losses({"ours": [4.0, 3.0], "jax": [4.0, 3.01]})
    with pytest.raises(Disagreement):
        expect_equal_losses({"ours": [4.0], "jax": [float("nan")]})
    with pytest.raises(Disagreement, match="1 steps"):
        expect_equal_losses({"ours": [4.0, 3.0], "jax": [4.0]})


def test_equal_tokens_may_differ_in_one_of_ten_texts():
    texts = [[1, 2, i] for i in range(10)]
    expect_equal_tokens({"ours": texts, "jax": [[1, 2, 7], *texts[1:]]})
    with pytest.raises(Disagreement, match="8 of 10"):
        expect_equal_tokens({"ours": texts, "jax": [[1, 2, 7], [1, 2, 7], *texts[2:]]})
    with pytest.raises(Disagreement):
        expect_equal_tokens({"ours": texts, "jax": [[5, 2, 0], *texts[1:]]})


def test_a_child_answers_line_by_line():
    out = io.StringIO()
    actions = {"double": lambda n: {"value": 2 * n}}
    requests = io.StringIO('{"do": "double", "n": 4}\n{"do": "double", "n": 5}\n')
    serve(lambda: ({"name": "fake"}, actions), requests, out)
    answers = [json.loads(line) for line in out.getvalue().splitlines()]
    assert answers == [{"name": "fake"}, {"value": 8}, {"value": 10}]


FAKE = """
import os

def make(delay=0.0, fail=False):
    print("a library says hello")
    if fail:
        raise ImportError("no such framework")
    def steps(n):
        print("noise")
        return {"seconds": [delay] * n}
    def leave():
        sys.exit(3)
    return {"pid": __import__("os").getpid()}, {"steps": steps, "leave": leave}
"""


@pytest.fixture
def fake(tmp_path, monkeypatch):
    (tmp_path / "fake_peer.py").write_text(FAKE)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return "fake_peer"


def test_peers_take_turns_in_processes_of_their_own(fake):
    with Peer("a", fake, "make", delay=0.5) as a, Peer("b", fake, "make", delay=0.25) as b:
        assert a.about["pid"] != b.about["pid"]
        request = {"do": "steps", "n": 3}
        runners = [Runner("a", a, request), Runner("b", b, request)]
        turns = alternate(runners, rounds=2, skip=1)
        order = [(turn.peer, turn.round) for turn in turns]
        assert order == [("a", 0), ("b", 0), ("b", 1), ("a", 1)]
        assert turns[0].seconds == [0.5, 0.5]
        a.pause()
        state = Path(f"/proc/{a.about['pid']}/stat").read_text().rpartition(")")[2].split()[0]
        assert state == "T"
        a.resume()
        with pytest.raises(PeerFailed, match="a ended"):
            a.ask("leave")
    with pytest.raises(ProcessLookupError):
        os.kill(b.about["pid"], 0)


def test_a_peer_that_cannot_start_says_why(fake):
    with pytest.raises(PeerFailed, match="no such framework"):
        Peer("a", fake, "make", fail=True)


def test_children_choose_kernels_and_threads_themselves():
    base = dict.fromkeys(REMOVED, "1") | {"HOME": "/root"}
    assert environment(base) == {"HOME": "/root", "JAX_PLATFORMS": "cpu"}


def test_settings_have_aims_and_unknown_names_are_refused():
    assert STEP_AIMS.keys() == SETTINGS.keys()
    with pytest.raises(SystemExit, match="unknown config 'huge'"):
        pick(["tiny", "huge"], SETTINGS, "config")


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    return str(workload.write(SMALL, tmp_path_factory.mktemp("small") / "workload.npz"))


def test_a_workload_is_read_as_it_was_written(small):
    given = workload.read(small)
    assert given.setting == SMALL
    x, y = given.batch(3)
    assert x.shape == y.shape == (2, 5)
    assert (x[:, 1:] == y[:, :-1]).all()
    made = workload.invent(SMALL)
    assert {k: v.shape for k, v in made.params.items()} == {
        k: v.shape for k, v in given.params.items()
    }
    assert given.take_params()
    assert not given.params


def losses_of(peer) -> list[float]:
    _, actions = peer
    return actions["steps"](n=4)["losses"]


@pytest.fixture(scope="module")
def our_losses(small):
    from peers import ours

    return losses_of(ours.step(small, tuned=False, shards=1))


def test_jax_computes_the_same(small, our_losses):
    pytest.importorskip("jax")
    from peers import jax_peer

    losses = losses_of(jax_peer.step(small, attention="manual"))
    expect_equal_losses({"ours": our_losses, "jax": losses})


def test_attention_of_jax_is_the_manual_one():
    jax = pytest.importorskip("jax")
    from peers.jax_model import ATTENTION

    q, k, v = np.random.default_rng(0).standard_normal((3, 2, 5, 2, 4)).astype(np.float32)
    manual, library = (jax.jit(ATTENTION[name])(q, k, v) for name in ("manual", "library"))
    np.testing.assert_allclose(manual, library, rtol=1e-5, atol=1e-6)


def test_torch_computes_the_same(small, our_losses):
    pytest.importorskip("torch")
    from peers import torch_peer

    losses = losses_of(torch_peer.step(small, compiled=False))
    expect_equal_losses({"ours": our_losses, "torch": losses})


@pytest.mark.parametrize("framework", ["jax", "torch"])
def test_cached_loops_decode_the_same(tmp_path, framework):
    pytest.importorskip(framework)
    import importlib

    from peers import ours_generation

    setting = dataclasses.replace(SMALL, seq_len=12)
    path = str(workload.write(setting, tmp_path / "workload.npz", gain=2.0))
    sizes = {"n_prompt": 4, "n_new": 8}
    theirs = importlib.import_module(f"peers.{framework}_generation")
    tokens = {
        name: module.generation(path, **sizes)[1]["texts"](batch=2, n=1)["tokens"]
        for name, module in (("ours", ours_generation), (framework, theirs))
    }
    assert np.shape(tokens["ours"]) == (2, 8)
    expect_equal_tokens(tokens)


def test_the_work_of_a_step_is_that_of_the_library():
    from step import step_flops

    tiny = SETTINGS["tiny"]
    matrices = 65 * 128 + 4 * (4 * 128**2 + 3 * 128 * 320)
    per_token = 3 * (2 * matrices + 4 * 4 * 64 * 128)
    assert step_flops(tiny) == per_token * 16 * 64
