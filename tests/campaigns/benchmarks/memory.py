"""The peak resident memory of a process that trains.

    python tests/campaigns/benchmarks/memory.py [--parts attention big-vocab training] [--repeats 3]

Each figure comes from a process of its own that imports, reads the workload, makes a few steps and
ends; the peak is the kernel's VmHWM of that process, with nothing subtracted. What was resident
after the imports, before the workload was read, is a figure besides.

attention   one step, batch 1, at T = 1024 to 8192: tiled attention, without and with
            rematerialised blocks, against materialised (which keeps the half below the diagonal),
            and against JAX
big-vocab   three steps at a vocabulary of 50,257, against JAX
training    twenty steps of the tiny model, against JAX

Needs ``pip install -e '.[bench,plot]'``.
"""

import dataclasses
import itertools
import sys
import tempfile
from pathlib import Path
from typing import Any

import tyro
from harness import workload
from harness.agreement import expect_equal_losses
from harness.process import Peer, PeerFailed
from harness.report import Figure, Report, terminal
from harness.session import Spec, say
from harness.settings import SETTINGS, Setting, pick
from harness.statistics import summary

LENGTHS = (1024, 2048, 4096, 8192)


@dataclasses.dataclass(frozen=True)
class Part:
    """Processes to compare on the same workload, the first with each of the others."""

    group: str
    setting: Setting
    steps: int
    specs: dict[str, Spec]


def parts() -> dict[str, list[Part]]:
    """Return what is measured, by the names of the flag."""
    jax = {
        "ours": Spec("peers.ours", "memory"),
        "jax-manual": Spec("peers.jax_peer", "memory", {"attention": "manual"}),
        "jax-library": Spec("peers.jax_peer", "memory", {"attention": "library"}),
    }
    attention = {
        "ours-tiled": Spec("peers.ours", "memory", {"attention": "tiled"}),
        "ours-tiled-remat": Spec("peers.ours", "memory", {"attention": "tiled", "remat": True}),
        "ours-materialised": Spec("peers.ours", "memory", {"attention": "materialised"}),
        "jax-manual": jax["jax-manual"],
    }
    tiny = SETTINGS["tiny"]
    long = [dataclasses.replace(tiny, batch_size=1, seq_len=length) for length in LENGTHS]
    return {
        "attention": [Part(f"T = {one.seq_len}", one, 1, attention) for one in long],
        "big-vocab": [Part("big-vocab", SETTINGS["big-vocab"], 3, jax)],
        "training": [Part("tiny", tiny, 20, jax)],
    }


@dataclasses.dataclass
class Options:
    """What to run."""

    parts: tuple[str, ...] = ("attention", "big-vocab", "training")
    """What to measure."""
    repeats: int = 3
    """Processes for each figure."""
    longest: int = LENGTHS[-1]
    """Leave out sequences longer than this."""
    out: Path = Path("runs/benchmarks")
    """Where memory.json, memory.txt and memory.png are written."""


def main(options: Options) -> None:
    """Run the benchmark, part by part."""
    report, known = Report("memory"), parts()
    for name in pick(options.parts, known, "part"):
        for part in known[name]:
            if name != "attention" or part.setting.seq_len <= options.longest:
                measure(part, options.repeats, report)
                report.write(options.out)
    report.show(terminal())


def measure(part: Part, repeats: int, report: Report) -> None:
    """Run each process a few times, in turns, and add the figures."""
    peaks: dict[str, dict[int, float]] = {}
    bases: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        path = str(workload.write(part.setting, Path(folder) / "workload.npz"))
        for number in range(repeats):
            losses = {}
            for name, spec in part.specs.items():
                answer = once(name, spec, path, part.steps, report, part.group)
                if answer is None:
                    continue
                losses[name] = answer["losses"]
                peaks.setdefault(name, {})[number] = answer["peak"]
                bases.setdefault(name, []).append(answer["base"])
                report.raw.append({"group": part.group, "peer": name, **answer})
                say(f"{part.group} {name:18} {answer['peak']:8.0f} MiB")
            if len(losses) > 1:
                expect_equal_losses(losses)
    for name, values in peaks.items():
        note = f"{summary(bases[name]).median:.0f} after the imports"
        report.figures.append(Figure(part.group, name, "MiB", summary(list(values.values())), note))
    for first, other in itertools.combinations(peaks, 2):
        if first.startswith("ours"):
            report.aim(part.group, f"{first} / {other}", peaks[first], peaks[other])


def once(
    name: str, spec: Spec, path: str, steps: int, report: Report, group: str
) -> dict[str, Any] | None:
    """Return the answer of a new process, or None if it fails; the report says why."""
    try:
        with Peer(name, spec.module, spec.function, workload=path, **spec.keywords) as peer:
            report.peers[name] = peer.about
            return peer.ask("steps", n=steps)
    except PeerFailed as failure:
        say(str(failure))
        report.missing[f"{name} ({group})"] = str(failure).splitlines()[-1]
        return None


if __name__ == "__main__":
    if not sys.platform.startswith("linux"):
        raise SystemExit("memory is read from /proc: this benchmark needs Linux")
    main(tyro.cli(Options, description=__doc__))
