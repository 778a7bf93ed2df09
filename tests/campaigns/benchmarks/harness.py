"""Peers in processes of their own that take turns, and a table of their figures.

Only the peer whose turn it is runs; the others are stopped. The order rotates from round to round,
so that no peer always follows the same one. A turn in which other processes, or other
machines on the same hardware, took more than `BUSY` of the processor's time does not count, unless
a peer has fewer than `QUIET_TURNS` others.
"""

import contextlib
import importlib.util
import json
import os
import platform
import select
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console
from rich.progress import Progress

HERE = Path(__file__).parent
ROOT = HERE.parents[2]
BUSY = 0.05
QUIET_TURNS = 3
PAUSE = 0.05
"""Seconds for the machine to settle between turns."""

TOLERANCE = 1e-4
"""How far losses of two peers may be apart, relative to the first."""

REMOVED = ("OPENBLAS_CORETYPE", "OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS")
REMOVED += ("XLA_FLAGS", "GLIBC_TUNABLES", "MALLOC_ARENA_MAX")
"""Variables that a child does not inherit: each peer chooses its own kernels and threads."""


class PeerFailed(RuntimeError):
    """A peer ended or took too long; the message holds its last output."""


class Spec(NamedTuple):
    """How to make a peer."""

    module: str  # such as "peer_ours"
    function: str
    keywords: dict[str, Any] = {}  # noqa: RUF012  # never written
    checkout: Path = ROOT  # where its functional_lm is


def environment(checkout: Path = ROOT) -> dict[str, str]:
    """Return the environment of every child."""
    kept = {name: value for name, value in os.environ.items() if name not in REMOVED}
    return kept | {"JAX_PLATFORMS": "cpu", "PYTHONPATH": f"{checkout}{os.pathsep}{HERE}"}


def say(line: str) -> None:
    """Write to stderr."""
    print(line, file=sys.stderr, flush=True)


@contextlib.contextmanager
def progress(total: int) -> Iterator[Callable[[], None]]:
    """Yield what to call after each of some parts; on a terminal show them and the time left."""
    bar = Progress(
        console=Console(stderr=True),
        transient=True,
        auto_refresh=False,  # no thread beside what is timed
        redirect_stdout=sys.stdout.isatty(),  # a table that goes to a file stays there
    )
    with bar:
        task = bar.add_task("", total=total)

        def done() -> None:
            bar.update(task, advance=1, refresh=True)

        yield done


class Peer:
    """A child process that answers requests; see `child`."""

    def __init__(self, name: str, spec: Spec, timeout: float = 600.0) -> None:
        """Start it and wait until it is ready.

        Raises:
            PeerFailed: if it does not get there.
        """
        self.name = name
        self._timeout = timeout
        self._said = tempfile.TemporaryFile("w+")  # noqa: SIM115  # closed with the peer
        self._process = subprocess.Popen(
            [sys.executable, str(HERE / "child.py"), *spec[:2], json.dumps(spec.keywords)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._said,
            env=environment(spec.checkout),
            text=True,
            start_new_session=True,  # so that compilers it starts are stopped along with it
        )
        try:
            self.about = self._answer()
        except BaseException:
            self.close()
            raise

    def ask(self, **request: Any) -> dict[str, Any]:
        """Send a request and return the answer.

        Raises:
            PeerFailed: if there is none.
        """
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
        return self._answer()

    def pause(self) -> None:
        """Stop all threads of the process, and wait until they are stopped."""
        os.killpg(self._process.pid, signal.SIGSTOP)
        os.waitid(os.P_PID, self._process.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)

    def resume(self) -> None:
        """Let it run again."""
        os.killpg(self._process.pid, signal.SIGCONT)

    def cpu_seconds(self) -> float:
        """Return the processor time of all its threads so far."""
        fields = Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def close(self) -> None:
        """End the process and those that it started."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout, self._said):
            with contextlib.suppress(OSError):
                stream.close()  # type: ignore[union-attr]

    def __enter__(self) -> "Peer":
        """Return the peer itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close it."""
        self.close()

    def _answer(self) -> dict[str, Any]:
        stdout = self._process.stdout
        assert stdout is not None
        ready = select.select([stdout], [], [], self._timeout)[0]
        if line := stdout.readline() if ready else "":
            return json.loads(line)
        self._said.seek(0)
        end = self._said.read().strip().splitlines()[-12:]
        what = "ended" if ready else f"did not answer in {self._timeout:.0f} s"
        raise PeerFailed("\n".join([f"{self.name} {what}; its last output:", *end]))


def available(specs: Mapping[str, Spec], report: "Report") -> dict[str, Spec]:
    """Return the peers whose framework is installed; say at once which are left out."""
    kept = {}
    for name, spec in specs.items():
        framework = spec.module.removeprefix("peer_")
        if framework == "ours" or importlib.util.find_spec(framework):
            kept[name] = spec
        else:
            report.missing[name] = f"needs {framework}: pip install 'functional-lm[bench]'"
            say(f"without {name}, which {report.missing[name]}")
    return kept


@contextlib.contextmanager
def started(specs: Mapping[str, Spec], report: "Report", **request: Any) -> Iterator[Any]:
    """Yield ``{name: peer}``, stopped, and ``{name: answer to the first request}``.

    A peer that fails is left out, and the report says why: a framework may not be installed. Our
    own must not fail.
    """
    with contextlib.ExitStack() as stack:
        peers, answers = {}, {}
        for name, spec in available(specs, report).items():
            say(f"{name} starts")
            try:
                peer = stack.enter_context(Peer(name, spec))
                answers[name] = peer.ask(**request)
            except PeerFailed as failure:
                if name.startswith("ours"):
                    raise
                report.missing[name] = str(failure).splitlines()[-1]
                continue
            peer.pause()
            peers[name], report.peers[name] = peer, peer.about
        yield peers, answers


class Usage(NamedTuple):
    """Processor time of the whole machine, in seconds, since it started."""

    at: float  # when this was read
    used: float  # by all processes
    stolen: float  # by other machines on the same hardware


def usage() -> Usage:
    """Read the counters of the kernel; Linux only."""
    fields = Path("/proc/stat").read_text().splitlines()[0].split()[1:]
    user, nice, system, _, _, irq, softirq, stolen, *_ = (int(field) for field in fields)
    tick = os.sysconf("SC_CLK_TCK")
    return Usage(time.perf_counter(), (user + nice + system + irq + softirq) / tick, stolen / tick)


def share_of_others(before: Usage, after: Usage, own_seconds: float) -> float:
    """Return the share of the machine's time that others took, given what the peer used."""
    available = (after.at - before.at) * (os.cpu_count() or 1)
    others = max(after.used - before.used - own_seconds, 0.0)
    return (others + after.stolen - before.stolen) / available


class Turn(NamedTuple):
    """One peer's part of a round."""

    name: str
    round: int
    seconds: list[float]  # of each step
    others: float  # share of the processor's time that others took


def alternate(
    runners: Mapping[str, tuple[Peer, dict[str, Any]]], *, rounds: int, skip: int = 0
) -> list[Turn]:
    """Let the runners take turns.

    Args:
        runners: by name, a stopped peer and what to ask of it; several may share a peer.
        rounds: turns of each.
        skip: steps at the beginning of a turn that warm the caches and do not count.
    """
    turns, names, begin = [], list(runners), time.perf_counter()
    for number in range(rounds):
        first = number % len(names)
        for name in [*names[first:], *names[:first]]:
            peer, request = runners[name]
            time.sleep(PAUSE)
            peer.resume()
            own, before = peer.cpu_seconds(), usage()
            seconds = peer.ask(**request)["seconds"][skip:]
            others = share_of_others(before, usage(), peer.cpu_seconds() - own)
            peer.pause()
            turns.append(Turn(name, number, seconds, others))
            busy = f"  DISTURBED: others took {others:.0%}" if others > BUSY else ""
            left = (time.perf_counter() - begin) * (rounds * len(names) / len(turns) - 1) / 60
            turn = f"{number + 1:3}/{rounds} {name:24} {statistics.median(seconds) * 1e3:9.2f} ms"
            say(f"{turn}  {left:.1f} min left{busy}")
    return turns


class Summary(NamedTuple):
    """The median, the quartiles and the number of some values."""

    median: float
    low: float
    high: float
    count: int


def summary(values: Sequence[float]) -> Summary:
    """Return median and quartiles of at least one value."""
    if len(values) == 1:
        return Summary(values[0], values[0], values[0], 1)
    low, median, high = statistics.quantiles(values, n=4, method="inclusive")
    return Summary(median, low, high, len(values))


class Report:
    """The results of a benchmark: rows of figures, printed as one table and written as JSON."""

    def __init__(self, name: str) -> None:
        """Start without figures."""
        self.name = name
        self.rows: list[dict[str, Any]] = []
        self.peers: dict[str, Any] = {}
        self.missing: dict[str, str] = {}

    def add(self, group: str, what: str, values: Sequence[float], note: str = "") -> None:
        """Add the median and the quartiles of some values."""
        figures = {**summary(values)._asdict(), "values": list(values)}
        self.rows.append({"group": group, "what": what, **figures, "note": note})

    def add_turns(
        self,
        group: str,
        turns: Sequence[Turn],
        unit: str,
        scale: Mapping[str, float] | float,
        pairs: Sequence[tuple[str, str]],
    ) -> None:
        """Add each runner's figure, and ratios of two runners in the rounds in which both count.

        Args:
            group: such as the name of a setting.
            turns: from `alternate`.
            unit: of the figures; with a "/", they are rates, such as tokens/s.
            scale: what seconds are multiplied by, or divided from; by runner, or the same for all.
            pairs: the runners to compare, as ratios of their figures.
        """
        figures: dict[str, dict[int, float]] = {}
        notes = {}
        for name in dict.fromkeys(turn.name for turn in turns):
            own = [turn for turn in turns if turn.name == name]
            kept = [turn for turn in own if turn.others <= BUSY]
            lost = len(own) - len(kept)
            notes[name] = f"{lost} of {len(own)} turns left out: disturbed" if lost else ""
            if len(kept) < min(QUIET_TURNS, len(own)):
                kept, notes[name] = own, f"{lost} of {len(own)} turns DISTURBED"
            factor = scale if isinstance(scale, (int, float)) else scale[name]
            medians = {turn.round: statistics.median(turn.seconds) for turn in kept}
            figures[name] = {
                number: factor / seconds if "/" in unit else factor * seconds
                for number, seconds in medians.items()
            }
            self.add(group, f"{name}, {unit}", list(figures[name].values()), notes[name])
        for one, other in pairs:
            if one in figures and other in figures:
                both = sorted(figures[one].keys() & figures[other].keys())
                ratios = [figures[one][number] / figures[other][number] for number in both]
                if ratios:
                    self.add(group, f"{one} / {other}", ratios, notes[one] or notes[other])

    def write(self, folder: Path) -> None:
        """Print the table, and write it with every sample as ``<name>.json``."""
        for row in self.rows:
            spread = f"{row['low']:,.4g} – {row['high']:,.4g}"
            head = f"{row['group']:12} {row['what']:46} {row['median']:>10,.4g}"
            print(f"{head}   {spread:22} {row['count']:3}  {row['note']}".rstrip())
        for name, reason in self.missing.items():
            print(f"not available: {name}: {reason}")
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{self.name}.json"
        path.write_text(json.dumps({**vars(self), "machine": machine()}, indent=1) + "\n")
        say(f"written: {path}")


def machine() -> dict[str, Any]:
    """Return what a reader must know to judge the figures."""
    versions = {}
    for name in ("functional-lm", "numpy", "jax", "jaxlib", "optax", "torch"):
        with contextlib.suppress(metadata.PackageNotFoundError):
            versions[name] = metadata.version(name)
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    models = [line.partition(": ")[2] for line in lines if line.startswith("model name")]
    cores = len(os.sched_getaffinity(0))
    system = {"system": platform.platform(), "python": platform.python_version()}
    return {"processor": models[:1], "cores": cores, **system, "versions": versions}


class Disagreement(SystemExit):
    """Two peers do not compute the same thing, and nothing is timed."""


def expect_equal_losses(losses: Mapping[str, Sequence[float]]) -> None:
    """Require the losses of the first peer of all others, to `TOLERANCE`.

    Raises:
        Disagreement: naming the peer and the step.
    """
    (first, expected), *others = losses.items()
    for name, received in others:
        for step, (a, b) in enumerate(zip(expected, received, strict=True)):
            if not abs(a - b) <= TOLERANCE * abs(a):  # also for NaN
                raise Disagreement(
                    f"{name} and {first} must have the same losses: at step {step} they are "
                    f"{b:.6f} and {a:.6f}; nothing was timed"
                )


def expect_equal_tokens(tokens: Mapping[str, Sequence[Sequence[int]]]) -> None:
    """Require the same first token of all texts, and nine texts of ten the same to the end.

    Two largest logits may be so close that rounding decides; from there on a text differs.

    Raises:
        Disagreement: naming the peer.
    """
    (first, expected), *others = tokens.items()
    for name, received in others:
        pairs = list(zip(expected, received, strict=True))
        same = sum(a == b for a, b in pairs)
        if any(a[0] != b[0] for a, b in pairs) or same < 0.9 * len(expected):
            raise Disagreement(
                f"{name} and {first} must decode the same tokens: {same} of {len(expected)} texts "
                "are the same; nothing was timed"
            )
