"""Disturb runs in every way that a machine can, and compare what becomes of them.

    python tests/campaigns/kills/run.py MODE [--count N] [--steps 60] [--seed 0] [--started]

kills       A small run is trained once without a disturbance. Then the same run is started, killed
            with SIGKILL and resumed until it reaches its end, again and again until that many
            kills have been made. After each kill every checkpoint must be readable, and the newest
            must be the one that the run goes on from. At each end the weights, the checkpoints and
            the samples must have the same bytes as those of the undisturbed run, and the metrics
            the same lines, but for the times in them.
overwrite   New runs replace one another with --overwrite, and the starts are killed: under the
            name there must be one whole run at any time, the old or the new.
ranks       The same run is started and resumed by mpiexec, each time with one to four processes.
            One of them, drawn at random, is killed: all must end within ten seconds, with one
            message, and the rest is as with kills. Half of the time the state of the optimizer is
            divided. The undisturbed run is made by one process.
starts      Two to eight runs start at the same moment, with one name or without any: each that
            says "saved" must be there, whole and its own.
power       What a run and a run with --overwrite ask of the file system is recorded, then replayed
            up to a random point: what was not synced is kept, dropped, zeroed or torn at a random
            byte, and renames may be undone. The run must resume to the undisturbed end, or one
            line must say that there is none.
encodings   One or two processes encode a corpus with --data into one cache, and are killed. What
            the cache holds as a whole encoding must have the bytes of an undisturbed one, also
            where the text was changed in between, and the next process must end well with it.
steps       An error of the disk, or Ctrl-C, comes at each call that eight steps make in turn, with
            and without a validation, a sample, a best and a checkpoint. The run is continued in
            the same session or resumed, and must end as the undisturbed one.

A run is a fork of a process that has imported everything, or with --started the command as anyone
starts it.
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
from functional_lm.runs import load_checkpoint, open_run, read_metrics

TIMES = ("step_ms", "tokens_per_second")
TINY = [
    *("--batch-size", "2", "--seq-len", "8", "--d-model", "8", "--n-heads", "1"),
    *("--n-layers", "1", "--shards", "1"),
]
SETTINGS = [
    *("--checkpoint-every", "1", "--eval-every", "7", "--sample-every", "20"),
    *("--statistics-every", "10", "--batch-size", "4", "--seq-len", "16", "--d-model", "16"),
    *("--n-heads", "2", "--n-layers", "2", "--dropout", "0.1", "--shards", "2"),
    *("--optimizer", "muon", "--normuon", "--windows", "shuffled", "--ema-decay", "0.9"),
    *("--gradient-accumulation-steps", "2"),
]
COUNTS = {
    "kills": 1000,
    "overwrite": 500,
    "ranks": 100,
    "starts": 200,
    "power": 300,
    "encodings": 200,
    "steps": 0,
}


def main() -> None:
    """Run the campaign; the exit status tells whether all was well."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("mode", choices=COUNTS)
    parser.add_argument("--count", type=int, help="kills, rounds or injections")
    parser.add_argument("--steps", type=int, default=60, help="of a run")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--started", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        draw = random.Random(options.seed)
        campaign = Campaign(Path(folder), draw, options.started, options.steps)
        count = COUNTS[options.mode] if options.count is None else options.count
        getattr(campaign, options.mode)(count)


class Campaign:
    """Victims, one after another."""

    def __init__(self, folder: Path, draw: random.Random, started: bool, steps: int) -> None:
        self.text = folder / "text.txt"
        self.text.write_text("the quick brown fox jumps over the lazy dog.\n" * 40)
        self.straight, self.victim = folder / "straight", folder / "victim"
        self.draw, self.length = draw, steps
        self.start: Callable[[list[str]], Process] = Started if started else Forked

    def kills(self, kills: int) -> None:
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

    def ranks(self, kills: int) -> None:
        """Make that many kills of one process of several; exit at the first fault."""
        expect(
            self.start(self.arguments(self.straight)).wait() == 0, "the undisturbed run ends well"
        )
        seconds = [0.0] * 5  # that a whole run takes, by the number of processes
        made = ends = lost = 0
        slowest = 0.0
        while made < kills:
            expected = self.newest()
            size = self.draw.randint(1, 4)
            begin = time.perf_counter()
            divided = ["--shard-optimizer"] * (self.draw.random() < 0.5)
            cluster = Launched(size, [*self.arguments(self.victim), *divided])
            seconds[size] = seconds[size] or 4.0
            time.sleep(self.draw.uniform(0, seconds[size]))
            ranks = cluster.ranks()
            if ranks and cluster.process.poll() is None:
                killed_at = time.perf_counter()
                os.kill(self.draw.choice(ranks), signal.SIGKILL)
                status, said = cluster.wait()
                slowest = max(slowest, time.perf_counter() - killed_at)
            else:
                status, said = cluster.wait()
            if status == 0:
                seconds[size] = time.perf_counter() - begin
                expect("\noptimizer   " in said, "the memory of the processes is said")
                self.compare()
                ends += 1
                shutil.rmtree(self.victim)
                continue
            made += 1
            expect(said.count("BAD TERMINATION") == 1, f"there is one message: {said}")
            ours = "functional-lm train:" in said or "Traceback" in said
            expect(not ours, f"there is no other message: {said}")
            expect(slowest < 10, f"all end within ten seconds, not {slowest:.1f}")
            expect(not any(map(running, ranks)), "no process is left")
            lost += self.look(expected)
            if made % 20 == 0:
                print(f"{made} kills, {ends} runs ended the same", flush=True)
        last = Launched(2, self.arguments(self.victim)).wait()
        expect(last[0] == 0, f"the last run ends well: {last[1]}")
        self.compare()
        print(
            f"{made} kills of one process of one to four, {ends + 1} runs to their end: all others "
            f"ended within {slowest:.1f} s, no checkpoint was unreadable, {lost} steps were lost "
            "beyond the last save, and all ends are bit for bit the run of one process"
        )

    def overwrite(self, kills: int) -> None:
        """Kill that many starts of runs that replace one another."""
        began = time.perf_counter()
        expect(self.start([*self.arguments(self.victim), "--steps", "1"]).wait() == 0, "it starts")
        seconds, made, seeds = time.perf_counter() - began, 0, {0}
        while made < kills:
            new = self.arguments(self.victim, new=True)
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

    def starts(self, rounds: int) -> None:
        """Start several runs at the same moment, that many times."""
        started = saved = 0
        for number in range(rounds):
            folder = self.text.parent / f"round-{number}"
            folder.mkdir()
            named, many = number % 2 == 1, self.draw.randint(2, 8)
            read, write = os.pipe()
            arguments = ["train", "--text-file", str(self.text), *TINY, "--steps", "3"]
            arguments += ["--out", "run"] if named else []
            processes = []
            for seed in range(many):
                said = folder / f"said-{seed}"
                begin = (folder, said, read, write)
                processes.append(Forked([*arguments, "--seed", str(seed)], begin))
            os.close(read)
            os.close(write)  # now all of them begin
            folders = []
            for seed, process in enumerate(processes):
                status, said = process.wait(), (folder / f"said-{seed}").read_text()
                if status == 0:
                    name = said.partition("saved in ")[2].partition("\n")[0]
                    expect_own_run(folder / name, seed)
                    folders.append(folder / name)
                else:
                    told = "is held by" in said or "holds one" in said
                    expect(told and "Traceback" not in said, f"a start is told why: {said}")
            expect(len(set(folders)) == len(folders), "each has a folder of its own")
            expect(len(folders) == 1 if named else len(folders) == many, "they have what they can")
            left = set((folder if named else folder / "runs").iterdir())
            said = {path for path in left if path.name.startswith("said-")}
            expect(left - said == set(folders), f"nothing else is left, such as {left}")
            started, saved = started + many, saved + len(folders)
            shutil.rmtree(folder)
            if number % 50 == 49:
                print(f"{number + 1} rounds", flush=True)
        print(f"{rounds} rounds, {started} starts, {saved} runs saved, each whole and its own")

    def power(self, cuts: int) -> None:
        """Cut the power at that many points of a run that was recorded."""
        import power

        expect(self.start(self.arguments(self.straight)).wait() == 0, "the undisturbed run ends")
        old = [*self.arguments(self.victim), "--seed", "1", "--steps", "2"]
        outcomes: dict[str, int] = {}
        lost = 0
        logs = {}
        for overwrite in (False, True):
            if overwrite:
                expect(self.start(old).wait() == 0, "the old run ends well")
            new = self.arguments(self.victim, new=True)
            record = self.text.parent / "record"
            folder = self.victim.parent
            logs[overwrite] = power.recorded(
                Forked, [*new, *["--overwrite"] * overwrite], folder, record
            )
            shutil.rmtree(self.victim)
        for number in range(cuts):
            log = logs[number % 4 == 3]
            early = number % 2 == 1  # the start is the most delicate
            end = self.draw.randrange(log.started + 40 if early else len(log.operations) + 1)
            saved = power.after_cut(log, end, self.victim.parent, self.draw)
            found = self.told(["generate", str(self.victim), "--max-new-tokens", "1"])
            resumed = self.told(["train", "--resume", str(self.victim)])
            status, said = resumed
            expect("Traceback" not in said + found[1], f"no traceback: {said}{found[1]}")
            if status == 0:
                step = int(said.partition("after step ")[2].split(",")[0].split("\n")[0] or 0)
                lost += max(saved - step, 0)
                config = json.loads((self.victim / "config.json").read_text())
                if config["given"]["seed"] == 0:
                    self.compare(strict=False)
                    outcome = "resumed to the undisturbed end"
                else:
                    outcome = "the old run is there"
            else:
                expect(len(said.splitlines()) == 1 and saved < 0, f"one clear message: {said}")
                outcome = said.partition(": ")[2].partition(" in ")[0].partition(":")[0]
            outcomes[outcome] = outcomes.get(outcome, 0) + 1
            for path in self.victim.parent.iterdir():
                if path not in (self.text, self.straight):
                    shutil.rmtree(path) if path.is_dir() else path.unlink()
            if number % 50 == 49:
                print(f"{number + 1} cuts: {outcomes}, {lost} steps lost", flush=True)
        expect(not lost, "no step of a checkpoint that was saved is lost")
        print(f"{cuts} cuts of the power: {outcomes}; no saved step was lost")

    def encodings(self, kills: int) -> None:
        """Kill that many processes that encode a corpus."""
        data, caches = self.text.parent / "data.jsonl", self.text.parent / "caches"
        lines = [json.dumps({"text": "the quick brown fox " * n}) + "\n" for n in range(60)]
        versions = ["".join(lines), "".join(reversed(lines))]
        encode = ["train", "--data", str(data), *TINY, "--dry-run"]

        def start(cache: Path) -> Forked:
            os.environ["XDG_CACHE_HOME"] = str(cache)
            return Forked(encode, prepare=in_small_parts)

        def whole(cache: Path) -> dict[str, bytes]:
            folders = (cache / "functional_lm" / "corpora").glob("*")
            places = [f for f in folders if f.is_dir() and f.suffix != ".partial"]
            return {f.name: (f / "tokens.bin").read_bytes() for f in places}

        expected: dict[str, bytes] = {}
        for version in versions:
            data.write_text(version)
            began = time.perf_counter()
            expect(start(caches / "straight").wait() == 0, "the undisturbed encoding ends well")
            seconds = time.perf_counter() - began
            expected |= whole(caches / "straight")
        expect(len(expected) == 2, "each text has an encoding of its own")
        made = ends = resumed = 0
        while made < kills:
            if self.draw.random() < 0.1:
                data.write_text(self.draw.choice(versions))
            resumed += any(caches.glob("victim/*/*/*.partial/encoding.json"))
            many = self.draw.randint(1, min(2, kills - made))
            processes = [start(caches / "victim") for _ in range(many)]
            for process in processes:
                if process.kill_after(self.draw.uniform(0, 1.5 * seconds)):
                    made += 1
                else:
                    expect(process.wait() == 0, f"the encoding ends well after {made} kills")
                    ends += 1
            if made % 50 < many:
                print(f"{made} kills, {resumed} starts with a part, {ends} ends", flush=True)
            found = whole(caches / "victim")
            expect(found.items() <= expected.items(), "a whole encoding is the undisturbed one")
            if found and self.draw.random() < 0.9:  # else the next process finds it
                shutil.rmtree(caches / "victim")
        while start(caches / "victim").wait() != 0:
            expect(False, "the last encoding ends well")
        found = whole(caches / "victim")
        expect(found and found.items() <= expected.items(), "the last encoding is whole")
        print(
            f"{made} kills of processes that encode, {resumed} starts with a part of the encoding, "
            f"{ends} ends: whatever was taken for whole has the bytes of the undisturbed one"
        )

    def told(self, arguments: list[str]) -> tuple[int, str]:
        """Return the exit status of a command and all it says."""
        said = self.text.parent / "said"
        status = Forked(arguments, (self.text.parent, said, None, None)).wait()
        text = said.read_text()
        said.unlink()
        return status, text

    def steps(self, count: int) -> None:
        """Interrupt eight steps at each of their calls, or at that many of them."""
        import steps

        steps.campaign(self.text.parent, self.draw, count)

    def arguments(self, out: Path, *, new: bool = False) -> list[str]:
        """Return the arguments that start the run, or resume it if it is there."""
        if out.exists() and not new:
            return ["train", "--resume", str(out)]
        start = ["train", "--out", str(out), "--text-file", str(self.text), *SETTINGS]
        return [*start, "--steps", str(self.length)]

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

    def compare(self, *, strict: bool = True) -> None:
        """Require that the victim ended as the undisturbed run did.

        Args:
            strict: whether no damaged file may be left.
        """
        names = [
            "model.safetensors",
            "last.safetensors",
            "sample.txt",
            "tokenizer.json",
            "config.json",
        ]
        names.append(f"checkpoints/step-{self.length:08}.safetensors")
        for name in names:
            same = (self.victim / name).read_bytes() == (self.straight / name).read_bytes()
            expect(same, f"{name} is that of the undisturbed run")
        # Where the disk is slower than the training, some of the checkpoints before are left out.
        kept = list(self.victim.glob("checkpoints/*"))
        expect(len(kept) <= 3, "the last two checkpoints and the best are kept")
        known = {path.name for path in [*self.straight.rglob("*"), *kept]}
        strangers = {path.name for path in self.victim.rglob("*")} - known
        if not strict:
            strangers = {name for name in strangers if not name.endswith(".damaged")}
            kept = [path for path in kept if path.suffix != ".damaged"]
        expect(not strangers, f"nothing else is left, such as {sorted(strangers)[:3]}")
        expect(all(path.suffix == ".safetensors" for path in kept), "no checkpoint is damaged")
        found, wanted = metrics(self.victim), metrics(self.straight)
        expect(found == wanted, "the metrics are those")
        expect([record["step"] for record in found] == [*range(1, self.length + 1)], "each once")


def in_small_parts() -> None:
    """Have a small text read in many parcels, by processes, and saved often."""
    from functional_lm.text import documents, file_corpus

    documents.PIECE = file_corpus.PIECE = 1000
    file_corpus.SMALL, file_corpus.SAVE_EVERY = 0, 3


def expect_own_run(folder: Path, seed: int) -> None:
    """Require that a run of three steps is whole, and of one seed."""
    expect(open_run(folder).settings["given"]["seed"] == seed, f"{folder} is of seed {seed}")
    load_checkpoint(folder / "last.safetensors")
    metadata = load_checkpoint(folder / "checkpoints" / "step-00000003.safetensors").metadata
    expect(metadata["run"]["settings"]["seed"] == seed, "its checkpoint is")
    records = read_metrics(folder / "metrics.jsonl")
    expect([record["step"] for record in records] == [1, 2, 3], "it has its records")


def metrics(run: Path) -> list[dict]:
    """Return the records without their times."""
    lines = (run / "metrics.jsonl").read_text().splitlines()
    records = [json.loads(line) for line in lines]
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


class Launched:
    """The command in several processes, as mpiexec starts it."""

    def __init__(self, size: int, arguments: list[str]) -> None:
        folder = Path(sys.executable).parent
        program = [folder / "mpiexec", "-n", str(size), folder / "functional-lm", *arguments]
        self.process = subprocess.Popen(
            program, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )

    def ranks(self) -> list[int]:
        """Return the processes that mpiexec's helper has started."""
        return [rank for helper in children(self.process.pid) for rank in children(helper)]

    def wait(self) -> tuple[int, str]:
        """Return the exit status and all that was said."""
        said, _ = self.process.communicate()
        return self.process.returncode, said


def children(pid: int) -> list[int]:
    """Return the processes that a process has started."""
    try:
        return list(map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split()))
    except OSError:
        return []


def running(pid: int) -> bool:
    """Tell whether a process is there and no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


class Forked(Process):
    """A fork of this process.

    Args:
        arguments: of the command.
        begin: where to work, where to write what is said, and the two ends of a pipe that is
            closed when it shall begin, or None.
        prepare: called before it begins.
        finish: called at its end.
    """

    def __init__(
        self,
        arguments: list[str],
        begin: tuple | None = None,
        prepare: Callable[[], object] = lambda: None,
        finish: Callable[[], object] = lambda: None,
    ) -> None:
        self.pid = os.fork()
        if self.pid:
            return
        status = 70
        try:
            folder, said, read, write = begin or (None, os.devnull, None, None)
            output = os.open(said, os.O_WRONLY | os.O_CREAT, 0o644)
            os.dup2(output, 1)
            if begin:
                os.dup2(output, 2)
                os.chdir(folder)
            if read is not None:
                os.close(write)
                os.read(read, 1)
            prepare()
            status = command(arguments)
            finish()
        except BaseException:
            import traceback

            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)


def expect(good: bool, what: str) -> None:
    """End the campaign unless something holds."""
    if not good:
        sys.exit(f"it does not hold that {what}")


if __name__ == "__main__":
    main()
