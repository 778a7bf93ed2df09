"""The time of a full training step, against JAX and PyTorch.

    python tests/campaigns/benchmarks/step.py [--configs tiny small] [--peers ours jax-manual]

A step is forward, backward, clipping by the global norm and AdamW, in float32 on all cores. The
losses of the first steps are compared before anything is timed. Each peer is a process of its own,
and only one of them runs at a time; see `harness.rounds`. Besides, the peak of sgemm is measured
in the same rounds. Needs ``pip install -e '.[bench,plot]'``.
"""

import dataclasses
import tempfile
from functools import partial
from pathlib import Path
from statistics import median

import tyro
from harness import machine, workload
from harness.agreement import expect_equal_losses
from harness.process import Peer
from harness.report import Figure, Report, terminal
from harness.rounds import Runner, Turn, alternate, undisturbed
from harness.session import Spec, progress, started
from harness.settings import SETTINGS, STEP_AIMS, Setting, pick
from harness.statistics import summary
from peers.sgemm import FLOPS

VERIFIED_STEPS = 5
TURN_SECONDS = 0.6
"""About how long ours computes in a turn."""

PEERS = {
    "ours": Spec("peers.ours", "step"),
    "ours-untuned": Spec("peers.ours", "step", {"tuned": False}),
    "ours-plain": Spec("peers.ours", "step", {"tuned": False, "shards": 1}),
    "jax-manual": Spec("peers.jax_peer", "step", {"attention": "manual"}),
    "jax-library": Spec("peers.jax_peer", "step", {"attention": "library"}),
    "torch-eager": Spec("peers.torch_peer", "step", {"compiled": False}),
    "torch-compile": Spec("peers.torch_peer", "step", {"compiled": True}),
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
    patience: float = 0.0
    """Seconds that a turn waits at most for other processes to leave the machine alone."""
    out: Path = Path("runs/benchmarks")
    """Where step.json, step.txt and step.png are written."""


def main(options: Options) -> None:
    """Run the benchmark, setting by setting; what is there so far is written after each."""
    report = Report("step")
    specs = {name: PEERS[name] for name in pick(options.peers, PEERS, "peer")}
    for setting in [SETTINGS[name] for name in pick(options.configs, SETTINGS, "config")]:
        turns = measure(setting, specs, options, report)
        evaluate(setting, turns, report)
        report.write(options.out)
    report.show(terminal())


def measure(
    setting: Setting, specs: dict[str, Spec], options: Options, report: Report
) -> list[Turn]:
    """Compare the losses of the first steps, and let the peers take turns."""
    with tempfile.TemporaryDirectory() as folder:
        path = str(workload.write(setting, Path(folder) / "workload.npz"))
        first = {"do": "steps", "n": VERIFIED_STEPS}
        with (
            started(specs, report, first, workload=path) as peers,
            Peer(SGEMM, "peers.sgemm", "peak") as sgemm,
        ):
            losses = {name: one.answer["losses"] for name, one in peers.items()}
            expect_equal_losses(losses)
            seconds = min(next(iter(peers.values())).answer["seconds"])
            request = {"do": "steps", "n": 1 + max(3, min(20, round(TURN_SECONDS / seconds)))}
            runners = [Runner(name, one.peer, request) for name, one in peers.items()]
            turns = alternate(
                [*runners, Runner(SGEMM, sgemm, request)],
                rounds=options.rounds,
                patience=options.patience,
                skip=1,
                report=partial(progress, setting.name),
            )
            report.peers[SGEMM] = sgemm.about
    report.raw.append({"setting": setting.name, "losses": losses})
    report.raw += [{"setting": setting.name, **turn.to_json()} for turn in turns]
    return turns


def evaluate(setting: Setting, turns: list[Turn], report: Report) -> None:
    """Add the figures of a setting, and what they show, to the report."""
    quiet = undisturbed(turns)
    values, limits = quiet.values, STEP_AIMS[setting.name]
    peak = {number: FLOPS / seconds for number, seconds in values.pop(SGEMM).items()}
    for name in values:
        value = summary(quiet.seconds(name)).scaled(1e3)
        report.figures.append(Figure(setting.name, name, "ms", value, quiet.notes[name]))
    best = {framework: fastest(framework, values) for framework in FRAMEWORKS}
    for own in (name for name in values if name.startswith("ours")):
        for framework, other in best.items():
            if other:
                limit = limits.get(framework) if own == "ours" else None
                disturbed = bool({own, other} & quiet.disturbed)
                pair = values[own], values[other]
                report.aim(setting.name, f"{own} / {other}", *pair, limit, disturbed=disturbed)
    work = step_flops(setting)
    for name in ("ours", *best.values()):
        if name in values:
            speed = {number: work / seconds for number, seconds in values[name].items()}
            report.aim(
                setting.name,
                f"FLOPs of {name} / sgemm peak",
                speed,
                peak,
                limits.get("peak") if name == "ours" else None,
                at_most=False,
                disturbed=bool({name, SGEMM} & quiet.disturbed),
            )
    value = summary(list(peak.values())).scaled(1e-9)
    report.figures.append(Figure(setting.name, SGEMM, "GFLOP/s", value, quiet.notes[SGEMM]))


def fastest(framework: str, values: dict[str, dict[int, float]]) -> str | None:
    """Return the fastest variant of a framework, by the median of its rounds."""
    names = [name for name in values if name.startswith(framework)]
    return min(names, key=lambda name: median(values[name].values()), default=None)


def step_flops(setting: Setting) -> int:
    """Return the arithmetic of a step, by the library's formula."""
    from functional_lm.models.transformer import Config
    from functional_lm.training.costs import costs

    per_token = costs(Config(**setting.model), setting.seq_len).training_flops
    return per_token * setting.batch_size * setting.seq_len


if __name__ == "__main__":
    machine.usage()  # fails here and now where there is no /proc
    main(tyro.cli(Options, description=__doc__))
