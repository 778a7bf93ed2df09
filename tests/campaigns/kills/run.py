"""Kill a run that saves all the time, at random instants, and compare what becomes of it.

    python tests/campaigns/kills/run.py [--kills 1000] [--seed 0] [--fork] [--overwrite]

A small run is trained once without a disturbance. Then the same run is started, killed with
SIGKILL and resumed until it reaches its end, again and again until that many kills have been made.
After each kill every checkpoint must be readable, and the newest must be the one that the run goes
on from. At each end the weights, the checkpoints and the samples must have the same bytes as those
of the undisturbed run, and the metrics the same lines, but for the times in them.

With ``--overwrite`` new runs replace one another, and the starts are killed: under the name there
must be one whole run at any time, the old or the new.

With ``--fork`` a run is a fork of a process that has imported everything, which saves most of the
time between two kills. Else it is the command as anyone starts it.
"""

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from functional_lm.cli.main import main as command
from functional_lm.runs import load_checkpoint, open_run

STEPS = 60
TIMES = ("step_ms", "tokens_per_second")
SETTINGS = """
    --steps 60 --checkpoint-every 1 --eval-every 7 --sample-every 20 --statistics-every 10
    --batch-size 4 --seq-len 16 --d-model 16 --n-heads 2 --n-layers 2 --dropout 0.1 --shards 2
"""


def main() -> None:
    """Run the campaign; the exit status tells whether all was well."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--fork", action="store_true")
    parser.add_argument("--overwrite", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        campaign = Campaign(Path(folder), random.Random(options.seed), options.fork)
        (campaign.overwrite if options.overwrite else campaign.run)(options.kills)


class Campaign:
    """Victims, one after another."""

    def __init__(self, folder: Path, draw: random.Random, fork: bool) -> None:
        self.text = folder / "text.txt"
        self.text.write_text("the quick brown fox jumps over the lazy dog.\n" * 40)
        self.straight, self.victim = folder / "straight", folder / "victim"
        self.draw = draw
        self.start: Callable[[list[str]], Process] = Forked if fork else Started

    def run(self, kills: int) -> None:
        """Make that many kills; exit at the first fault."""
        begin = time.perf_counter()
        first = self.start(self.arguments(self.straight))
        expect(first.wait() == 0, "the undisturbed run ends well")
        seconds = time.perf_counter() - begin
        made = ends = lost = 0
        while made < kills:
            expected = self.newest()
            process = self.start(self.arguments(self.victim))
            killed = process.kill_after(self.draw.uniform(0, seconds))
            if killed:
                made += 1
                lost += self.look(expected)
            else:
                expect(process.wait() == 0, f"the run ends well after {made} kills")
                self.compare()
                ends += 1
                shutil.rmtree(self.victim)
            if made % 50 == 0 and killed:
                print(f"{made} kills, {ends} runs ended the same", flush=True)
        while self.start(self.arguments(self.victim)).wait() != 0:
            expect(False, "the last run ends well")
        self.compare()
        print(
            f"{made} kills, {ends + 1} runs to their end: no checkpoint was unreadable, {lost} "
            "steps were lost beyond the last save, and all ends are bit for bit the undisturbed one"
        )

    def overwrite(self, kills: int) -> None:
        """Kill that many starts of runs that replace one another."""
        began = time.perf_counter()
        expect(self.start([*self.arguments(self.victim), "--steps", "1"]).wait() == 0, "it starts")
        seconds, made, seeds = time.perf_counter() - began, 0, {0}
        while made < kills:
            new = ["train", "--out", str(self.victim), "--text-file", str(self.text)]
            new += SETTINGS.split()
            process = self.start([*new, "--overwrite", "--seed", str(made + 1), "--steps", "1"])
            made += process.kill_after(self.draw.uniform(0, seconds))
            run = open_run(self.victim)
            checkpoint = load_checkpoint(max((self.victim / "checkpoints").iterdir()))
            seed = run.settings["training"]["seed"]
            expect(checkpoint.metadata["run"]["settings"]["seed"] == seed, "a run is not mixed")
            seeds.add(seed)
        while self.start([*new, "--overwrite", "--seed", "0", "--steps", "1"]).wait() != 0:
            expect(False, "the last run starts")
        left = {path.name for path in self.text.parent.iterdir()}
        expect(left == {"text.txt", "victim"}, f"nothing else is left, such as {sorted(left)}")
        print(f"{made} kills of --overwrite: always one whole run, {len(seeds)} different ones")

    def arguments(self, out: Path) -> list[str]:
        """Return the arguments that start the run or go on with it."""
        if out.exists():
            return ["train", "--resume", str(out)]
        return ["train", "--out", str(out), "--text-file", str(self.text), *SETTINGS.split()]

    def newest(self) -> int:
        """Return the newest step that is saved, or -1 if there is no run."""
        found = self.victim.glob("checkpoints/step-*.safetensors")
        return max((int(path.stem.removeprefix("step-")) for path in found), default=-1)

    def look(self, before: int) -> int:
        """Check what a kill has left; return the steps that were saved once and are no more."""
        for path in self.victim.glob("checkpoints/step-*.safetensors"):
            load_checkpoint(path)
        if self.victim.exists():
            expect(self.newest() >= 0, "a run that exists has a checkpoint")
            for line in (self.victim / "metrics.jsonl").read_text().splitlines()[:-1]:
                json.loads(line)
        return max(before - self.newest(), 0)

    def compare(self) -> None:
        """Require that the victim ended as the undisturbed run did."""
        names = [
            "model.safetensors",
            "last.safetensors",
            "sample.txt",
            "tokenizer.json",
            "config.json",
        ]
        names.append(f"checkpoints/step-{STEPS:08}.safetensors")
        for name in names:
            same = (self.victim / name).read_bytes() == (self.straight / name).read_bytes()
            expect(same, f"{name} is that of the undisturbed run")
        # Where the disk is slower than the training, some of the checkpoints before are left out.
        kept = list(self.victim.glob("checkpoints/*"))
        expect(len(kept) <= 3, "the last two checkpoints and the best are kept")
        known = {path.name for path in [*self.straight.rglob("*"), *kept]}
        strangers = {path.name for path in self.victim.rglob("*")} - known
        expect(not strangers, f"nothing else is left, such as {sorted(strangers)[:3]}")
        expect(all(path.suffix == ".safetensors" for path in kept), "no checkpoint is damaged")
        expect(metrics(self.victim) == metrics(self.straight), "the metrics are those")


def metrics(run: Path) -> list[dict]:
    """Return the records without their times."""
    lines = (run / "metrics.jsonl").read_text().splitlines()
    records = [json.loads(line) for line in lines]
    expect([record["step"] for record in records] == list(range(1, STEPS + 1)), "each step once")
    return [{k: v for k, v in record.items() if k not in TIMES} for record in records]


class Process:
    """A run under way in a process of its own."""

    pid: int

    def wait(self) -> int:
        """Return the exit status when it ends."""
        _, status = os.waitpid(self.pid, 0)
        return os.waitstatus_to_exitcode(status)

    def kill_after(self, seconds: float) -> bool:
        """Kill it after a time; tell whether it was still there. If not, its status is kept."""
        time.sleep(seconds)
        os.kill(self.pid, signal.SIGKILL)
        status = self.wait()
        self.wait = lambda: status  # type: ignore[method-assign]
        return status == -signal.SIGKILL


class Started(Process):
    """The command, as anyone starts it."""

    def __init__(self, arguments: list[str]) -> None:
        program = [str(Path(sys.executable).with_name("functional-lm")), *arguments]
        self.process = subprocess.Popen(program, stdout=subprocess.DEVNULL)
        self.pid = self.process.pid


class Forked(Process):
    """A fork of this process."""

    def __init__(self, arguments: list[str]) -> None:
        self.pid = os.fork()
        if self.pid == 0:
            status = 70
            try:
                os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
                status = command(arguments)
            finally:
                sys.stdout.flush()
                os._exit(status)


def expect(good: bool, what: str) -> None:
    """End the campaign unless something holds."""
    if not good:
        sys.exit(f"it does not hold that {what}")


if __name__ == "__main__":
    main()
