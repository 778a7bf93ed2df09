"""The wall time from the start of a process to its first finished training step.

    python tests/campaigns/benchmarks/startup.py [--rounds 7] [--text-file FILE]

ours-script     a script that uses the library, on random tokens
ours-command    functional-lm train on Tiny Shakespeare, until the line of the first step
ours-one-step   functional-lm train --steps 1, to its end: validation, sample and weights included
jax-script      the same model and batch in JAX, on random tokens
torch-script    in PyTorch, eager

All train the tiny model; a first round, which fills the caches of the disk, does not count. Needs
``pip install -e '.[bench,plot]'``.
"""

import dataclasses
import sys
import tempfile
from pathlib import Path

import tyro
from harness import machine
from harness.launch import MARK, launch
from harness.process import PeerFailed
from harness.report import Figure, Report, terminal
from harness.rounds import Turn, undisturbed
from harness.session import progress, say
from harness.settings import pick
from harness.statistics import summary

GROUP = "tiny"
SCRIPTS = Path(__file__).parent / "scripts"
COMMAND = Path(sys.executable).with_name("functional-lm")


@dataclasses.dataclass
class Options:
    """What to run."""

    peers: tuple[str, ...] = (
        "ours-script",
        "ours-command",
        "ours-one-step",
        "jax-script",
        "torch-script",
    )
    """What to start."""
    rounds: int = 7
    """Starts of each."""
    text_file: Path | None = None
    """The text for the command; not given: Tiny Shakespeare, as `load_corpus` finds it."""
    patience: float = 0.0
    """Seconds that a turn waits at most for other processes to leave the machine alone."""
    out: Path = Path("runs/benchmarks")
    """Where startup.json, startup.txt and startup.png are written."""


def main(options: Options) -> None:
    """Run the benchmark."""
    report, turns = Report("startup"), []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        known = commands(options.text_file or corpus(folder))
        peers = {peer: known[peer] for peer in pick(options.peers, known, "peer")}
        for number in range(-1, options.rounds):
            first = max(number, 0) % len(peers)
            names = list(peers)
            for peer in [*names[first:], *names[:first]]:
                machine.wait_until_quiet(options.patience)
                turn = start(peer, *peers[peer], folder, number, report)
                if turn and number >= 0:
                    turns.append(turn)
                    report.raw.append(turn.to_json())
                    progress(GROUP, turn)
    evaluate(turns, report)
    report.write(options.out)
    report.show(terminal())


def commands(text: Path) -> dict[str, tuple[list[str], str]]:
    """Return each command and the beginning of the line that ends its time, if any."""
    train = [str(COMMAND), "train", "--text-file", str(text), "--log-every", "1", "--out", "RUN"]
    return {
        "ours-script": (_script("ours_script"), MARK),
        "ours-command": ([*train, "--steps", "2"], "step 1/2"),
        "ours-one-step": ([*train, "--steps", "1"], ""),
        "jax-script": (_script("jax_script"), MARK),
        "torch-script": (_script("torch_script"), MARK),
    }


def _script(name: str) -> list[str]:
    return [sys.executable, "-m", f"scripts.{name}"]


def corpus(folder: Path) -> Path:
    """Write Tiny Shakespeare to a file."""
    from functional_lm.text import load_corpus

    text, source = load_corpus()
    say(f"text: {source}")
    path = folder / "text.txt"
    path.write_text(text, encoding="utf-8")
    return path


def start(
    peer: str, command: list[str], mark: str, folder: Path, number: int, report: Report
) -> Turn | None:
    """Start a command once; None if it fails, and the report says why."""
    own = [str(folder / f"run-{peer}-{number}") if part == "RUN" else part for part in command]
    try:
        found = launch(own, mark, path=SCRIPTS.parent)
    except PeerFailed as failure:
        if peer.startswith("ours"):
            raise
        report.missing[peer] = str(failure).splitlines()[-1]
        return None
    return Turn(peer, number, [found.seconds], found.disturbance)


def evaluate(turns: list[Turn], report: Report) -> None:
    """Add the figures and the ratios of a round."""
    quiet = undisturbed(turns)
    for name in quiet.turns:
        value = summary(quiet.seconds(name))
        report.figures.append(Figure(GROUP, name, "s", value, quiet.notes[name]))
    values = quiet.values
    for ours in ("ours-script", "ours-command"):
        for other in ("jax-script", "torch-script"):
            if ours in values and other in values:
                report.aim(
                    GROUP,
                    f"{ours} / {other}",
                    values[ours],
                    values[other],
                    disturbed=bool({ours, other} & quiet.disturbed),
                )


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
