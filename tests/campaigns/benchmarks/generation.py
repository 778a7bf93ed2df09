"""Greedy generation: tokens per second, against JAX's and PyTorch's cached loops.

    python tests/campaigns/benchmarks/generation.py [--configs tiny deep] [--peers ours jax]

After a prompt of 16 tokens, 256 are decoded, the prompt's own pass included. All peers must decode
the same tokens before anything is timed. Batches are 1 and 16. PyTorch runs on all cores and on
one, since a token is little work. Needs ``pip install -e '.[bench,plot]'``.
"""

import dataclasses
import tempfile
from functools import partial
from pathlib import Path

import tyro
from harness import workload
from harness.agreement import expect_equal_tokens
from harness.report import Figure, Report, terminal
from harness.rounds import Runner, Turn, alternate, undisturbed
from harness.session import Spec, progress, started
from harness.settings import SETTINGS, Setting, pick
from harness.statistics import summary

N_PROMPT, N_NEW, BATCH = 16, 256, 16
GAIN = 2.0
"""The matrices of the untrained model times this, so that it does not repeat one token."""

PEERS = {
    "ours": Spec("peers.ours_generation", "generation"),
    "jax": Spec("peers.jax_generation", "generation"),
    "torch": Spec("peers.torch_generation", "generation"),
    "torch-one-thread": Spec("peers.torch_generation", "generation", {"threads": 1}),
}


@dataclasses.dataclass
class Options:
    """What to run."""

    configs: tuple[str, ...] = ("tiny", "deep")
    """Names of `harness.settings.SETTINGS`."""
    peers: tuple[str, ...] = tuple(PEERS)
    """Names of `PEERS`; the first is what the others' tokens are compared with."""
    rounds: int = 7
    """Turns of each peer and batch."""
    patience: float = 0.0
    """Seconds that a turn waits at most for other processes to leave the machine alone."""
    out: Path = Path("runs/benchmarks")
    """Where generation.json, generation.txt and generation.png are written."""


def main(options: Options) -> None:
    """Run the benchmark, setting by setting."""
    report = Report("generation")
    specs = {name: PEERS[name] for name in pick(options.peers, PEERS, "peer")}
    for setting in [SETTINGS[name] for name in pick(options.configs, SETTINGS, "config")]:
        turns = measure(setting, specs, options, report)
        evaluate(setting, turns, report)
        report.write(options.out)
    report.show(terminal())


def measure(
    setting: Setting, specs: dict[str, Spec], options: Options, report: Report
) -> list[Turn]:
    """Compare the tokens, and let the peers take turns at each batch."""
    setting = dataclasses.replace(setting, batch_size=BATCH, seq_len=N_PROMPT + N_NEW)
    sizes = {"n_prompt": N_PROMPT, "n_new": N_NEW}
    first = {"do": "texts", "batch": BATCH, "n": 1}
    with tempfile.TemporaryDirectory() as folder:
        path = workload.write(setting, Path(folder) / "workload.npz", gain=GAIN)
        with started(specs, report, first, workload=str(path), **sizes) as peers:
            expect_equal_tokens({name: one.answer["tokens"] for name, one in peers.items()})
            runners = []
            for batch in (1, BATCH):
                request = {"do": "texts", "batch": batch, "n": 1}
                for name, one in peers.items():
                    one.peer.resume()
                    one.peer.ask(**request)  # compiles
                    one.peer.pause()
                    runners.append(Runner(label(name, batch), one.peer, request))
            turns = alternate(
                runners,
                rounds=options.rounds,
                patience=options.patience,
                report=partial(progress, setting.name),
            )
    report.raw += [{"setting": setting.name, **turn.to_json()} for turn in turns]
    return turns


def evaluate(setting: Setting, turns: list[Turn], report: Report) -> None:
    """Add tokens per second, and ratios of them by round, to the report."""
    quiet = undisturbed(turns)
    rates = {
        name: {number: batch_of(name) * N_NEW / seconds for number, seconds in own.items()}
        for name, own in quiet.values.items()
    }

    def compare(name: str, other: str) -> None:
        disturbed = bool({name, other} & quiet.disturbed)
        pair = rates[name], rates[other]
        report.aim(setting.name, f"rate of {name} / {other}", *pair, disturbed=disturbed)

    for name, own in rates.items():
        value = summary(list(own.values()))
        report.figures.append(Figure(setting.name, name, "tokens/s", value, quiet.notes[name]))
    for batch in (1, BATCH):
        ours = label("ours", batch)
        for name in rates:
            if ours in rates and batch_of(name) == batch and name != ours:
                compare(ours, name)
    one, many = label("ours", 1), label("ours", BATCH)
    if one in rates:
        compare(many, one)


def label(name: str, batch: int) -> str:
    """Return the name of a peer at a batch."""
    return f"{name}, batch {batch}"


def batch_of(name: str) -> int:
    """Return the batch of a `label`."""
    return int(name.rpartition(" ")[2])


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
