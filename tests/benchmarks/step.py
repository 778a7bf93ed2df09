"""The time of a full training step, against JAX and PyTorch.

    python tests/benchmarks/step.py [--configs tiny small] [--peers ours jax-manual] [--rounds 15]

A step is forward, backward, clipping by the global norm and AdamW, in float32 on all cores. The
losses of the first steps are compared before anything is timed. Each peer is a process of its own,
and only one of them runs at a time; see `harness.rounds`. Besides, the peak of sgemm is measured
in the same rounds. Needs ``pip install -e '.[bench,plot]'``.
"""

import dataclasses
import sys
import tempfile
from pathlib import Path
from typing import Any

import tyro
from harness import machine, workload
from harness.agreement import expect_equal_losses
from harness.process import Peer, PeerFailed
from harness.report import Aim, Figure, Report
from harness.rounds import Turn, alternate, undisturbed
from harness.settings import SETTINGS, STEP_AIMS, Setting, pick
from harness.statistics import ratios, summary
from rich.console import Console

VERIFIED_STEPS = 5
TURN_SECONDS = 0.6
"""About how long ours computes in a turn."""

PEERS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "ours": ("peers.ours", "step", {}),
    "ours-untuned": ("peers.ours", "step", {"tuned": False}),
    "ours-plain": ("peers.ours", "step", {"tuned": False, "shards": 1}),
    "jax-manual": ("peers.jax_peer", "step", {"attention": "manual"}),
    "jax-library": ("peers.jax_peer", "step", {"attention": "library"}),
    "torch-eager": ("peers.torch_peer", "step", {"compiled": False}),
    "torch-compile": ("peers.torch_peer", "step", {"compiled": True}),
}
"""``ours`` calls `runtime.tune` and shards the batch, as the command line does; ``ours-untuned``
shards only; ``ours-plain`` is `value_and_grad`, the library with nothing chosen."""

SGEMM = "sgemm"
FRAMEWORKS = ("jax", "torch")


@dataclasses.dataclass
class Options:
    """What to run."""

    configs: tuple[str, ...] = tuple(SETTINGS)
    """Names of `harness.settings.SETTINGS`."""
    peers: tuple[str, ...] = tuple(PEERS)
    """Names of `PEERS`; the first is what the others' losses are compared with."""
    rounds: int = 15
    """Turns of each peer."""
    out: Path = Path("runs/benchmarks")
    """Where step.json, step.txt and step.png are written."""


def main(options: Options) -> None:
    """Run the benchmark, setting by setting; what is there so far is written after each."""
    report, console = Report("step"), Console()
    names = pick(options.peers, PEERS, "peer")
    for setting in (SETTINGS[name] for name in pick(options.configs, SETTINGS, "config")):
        turns = measure(setting, names, options.rounds, report)
        evaluate(setting, turns, report)
        report.write(options.out)
    report.show(console)
    console.print(f"written to {options.out}")


def measure(setting: Setting, names: list[str], rounds: int, report: Report) -> list[Turn]:
    """Start the peers, compare their losses, and let them take turns."""
    with tempfile.TemporaryDirectory() as folder:
        path = str(workload.write(setting, Path(folder) / "workload.npz"))
        peers: list[Peer] = []
        try:
            losses, first = {}, 0.0
            for name in names:
                module, function, keywords = PEERS[name]
                say(f"{setting.name}: {name} starts")
                try:
                    peer = Peer(name, module, function, workload=path, **keywords)
                    peers.append(peer)
                    answer = peer.ask("steps", n=VERIFIED_STEPS)
                except PeerFailed as failure:
                    report.missing[f"{name} ({setting.name})"] = str(failure)
                    say(str(failure))
                    continue
                peer.pause()
                report.peers[name] = peer.about
                losses[name] = answer["losses"]
                first = first or min(answer["seconds"])
            expect_equal_losses(losses)
            report.raw.append({"setting": setting.name, "losses": losses})
            running = [peer for peer in peers if peer.name in losses]
            running.append(Peer(SGEMM, "peers.sgemm", "peak"))
            peers.append(running[-1])
            report.peers[SGEMM] = running[-1].about
            count = max(3, min(20, round(TURN_SECONDS / first)))
            turns = alternate(
                running,
                rounds=rounds,
                request=lambda peer: {"do": "steps", "n": count + 1},  # the first warms the caches
                report=lambda turn: progress(setting, turn),
            )
        finally:
            for peer in peers:
                peer.close()
    turns = [turn._replace(seconds=turn.seconds[1:]) for turn in turns]
    report.raw += [{"setting": setting.name, **turn._asdict()} for turn in turns]
    return turns


def evaluate(setting: Setting, turns: list[Turn], report: Report) -> None:
    """Add the figures of a setting, and what they show, to the report."""
    from peers.sgemm import FLOPS

    kept, left_out = undisturbed(turns)
    medians = {name: {turn.round: turn.value for turn in own} for name, own in kept.items()}
    loads = [turn.disturbance.load for turn in turns]
    for name, own in kept.items():
        value = summary([seconds for turn in own for seconds in turn.seconds])
        lost = left_out[name]
        note = f"{lost} disturbed turns left out" if lost > 0 else ""
        note = "DISTURBED" if lost < 0 else note
        if name == SGEMM:
            continue
        report.figures.append(Figure(setting.name, name, "ms", value.scaled(1e3), note))
    report.raw.append({"setting": setting.name, "load": [min(loads), max(loads)]})

    def add(what: str, values: list[float], limit: float | None = None, **keywords: Any) -> None:
        if values:
            report.aims.append(Aim(setting.name, what, summary(values), limit, **keywords))

    best = {f: _best(f, medians) for f in FRAMEWORKS}
    for own in (name for name in medians if name.startswith("ours")):
        for framework, other in best.items():
            limit = STEP_AIMS[setting.name].get(framework) if own == "ours" else None
            if other:
                add(f"{own} / {other}", ratios(medians[own], medians[other]), limit)
    work = step_flops(setting)
    peak = {number: FLOPS / seconds for number, seconds in medians[SGEMM].items()}
    for name in medians:
        if name in ("ours", best["jax"], best["torch"]):
            speed = {number: work / seconds for number, seconds in medians[name].items()}
            limit = STEP_AIMS[setting.name].get("peak") if name == "ours" else None
            add(f"{name}: arithmetic / sgemm peak", ratios(speed, peak), limit, at_most=False)


def _best(framework: str, medians: dict[str, dict[int, float]]) -> str | None:
    """Return the fastest variant of a framework."""
    names = [name for name in medians if name.startswith(framework)]
    return min(names, key=lambda name: summary(list(medians[name].values())).median, default=None)


def step_flops(setting: Setting) -> int:
    """Return the arithmetic of a step, by the library's formula."""
    from functional_lm.models.transformer import Config
    from functional_lm.training.costs import costs

    per_token = costs(Config(**setting.model), setting.seq_len).training_flops
    return per_token * setting.batch_size * setting.seq_len


def progress(setting: Setting, turn: Turn) -> None:
    """Say how a turn went."""
    what = turn.disturbance
    busy = f"  disturbed: others {what.others:.0%}, stolen {what.stolen:.0%}" if what.busy else ""
    say(
        f"{setting.name} {turn.round + 1:3} {turn.peer:16} {turn.value * 1e3:9.2f} ms"
        f"  load {what.load:.1f}{busy}"
    )


def say(line: str) -> None:
    """Write to stderr."""
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    machine.usage()  # fails here and now where there is no /proc
    main(tyro.cli(Options, description=__doc__))
