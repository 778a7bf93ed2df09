"""What whole processes take: the peak memory of training, and the time to the first step."""

import dataclasses
import itertools
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from harness import (
    Peer,
    PeerFailed,
    Report,
    Spec,
    Turn,
    available,
    environment,
    expect_equal_losses,
    progress,
    say,
    share_of_others,
    usage,
)
from speed import RESULTS
from workload import SETTINGS, Setting

LENGTHS = (1024, 2048, 4096, 8192)
JAX = {
    f"jax-{kind}": Spec("peer_jax", "memory", {"attention": kind}) for kind in ("manual", "library")
}
OURS = {
    "ours-tiled": Spec("peer_ours", "memory", {"attention": "tiled"}),
    "ours-tiled-remat": Spec("peer_ours", "memory", {"attention": "tiled", "remat": True}),
    "ours-materialised": Spec("peer_ours", "memory", {"attention": "materialised"}),
}


def memory(
    parts: tuple[str, ...] = ("attention", "big-vocab", "training"),
    repeats: int = 3,
    longest: int = LENGTHS[-1],
    out: Path = RESULTS,
) -> None:
    """Measure the peak resident memory of a process that trains, by the kernel's VmHWM.

    "attention" is one step at batch 1 and T = 1024 to 8192: tiled, tiled with rematerialised
    blocks, and materialised; "big-vocab" three steps at a vocabulary of 50,257; "training" twenty
    steps of the tiny model.

    Args:
        parts: what to measure.
        repeats: processes for each figure.
        longest: leave out sequences longer than this.
        out: where memory.json is written.
    """
    tiny, both = SETTINGS["tiny"], {"ours": Spec("peer_ours", "memory"), **JAX}
    attention = {**OURS, "jax-manual": JAX["jax-manual"]}
    lengths = [T for T in LENGTHS if longest >= T]
    long = [dataclasses.replace(tiny, name=f"T={T}", batch_size=1, seq_len=T) for T in lengths]
    known = {
        "attention": [(setting, 1, attention) for setting in long],
        "big-vocab": [(SETTINGS["big-vocab"], 3, both)],
        "training": [(tiny, 20, both)],
    }
    report = Report("memory")
    chosen = [
        (setting, steps, available(specs, report))
        for part in parts
        for setting, steps, specs in known[part]
    ]
    with progress(repeats * sum(len(specs) for _, _, specs in chosen)) as done:
        for setting, steps, specs in chosen:
            _peaks(setting, steps, specs, repeats, report, done)
    report.write(out)


def _peaks(
    setting: Setting,
    steps: int,
    specs: Mapping[str, Spec],
    repeats: int,
    report: Report,
    done: Callable[[], None],
) -> None:
    """Add the peaks of the peers at a setting to the report."""
    peaks: dict[str, list[float]] = {}
    bases: dict[str, float] = {}
    for _ in range(repeats):
        losses = {}
        for name, spec in specs.items():
            keywords = {**spec.keywords, "setting": dataclasses.asdict(setting)}
            try:
                with Peer(name, spec._replace(keywords=keywords)) as peer:
                    answer = peer.ask(n=steps)
            except PeerFailed as failure:
                say(str(failure))
                report.missing[f"{name} ({setting.name})"] = str(failure).splitlines()[-1]
                continue
            finally:
                done()
            losses[name], bases[name] = answer["losses"], answer["base"]
            peaks.setdefault(name, []).append(answer["peak"])
            say(f"{setting.name:12} {name:24} {answer['peak']:9.0f} MiB")
        expect_equal_losses(losses)
    for name, values in peaks.items():
        note = f"{bases[name]:.0f} after the imports"
        report.add(setting.name, f"{name}, MiB", values, note)
    for one, other in itertools.combinations(peaks, 2):
        if one.startswith("ours") and len(peaks[one]) == len(peaks[other]):
            ratios = [a / b for a, b in zip(peaks[one], peaks[other], strict=True)]
            report.add(setting.name, f"{one} / {other}", ratios)


MARK = "first step done"
FIRST_STEP = (
    "import dataclasses, {module}, workload\n{module}.{call}\nprint({mark!r}, flush=True)\n"
)
TINY = f"dataclasses.asdict(workload.SETTINGS[{'tiny'!r}])"


def startup(rounds: int = 7, text_file: Path | None = None, out: Path = RESULTS) -> None:
    """Measure the wall time from the start of a process to its first finished training step.

    "script" trains the tiny model on random tokens in a script; "command" is `functional-lm train`
    until the line of its first step; "one-step" is `functional-lm train --steps 1` to its end.

    Args:
        rounds: starts of each, after one that fills the caches of the disk.
        text_file: the text for the command; not given: Tiny Shakespeare.
        out: where startup.json is written.
    """
    report, turns = Report("startup"), []
    with tempfile.TemporaryDirectory() as folder:
        if text_file is None:
            from functional_lm.text import load_corpus

            text_file = Path(folder) / "text.txt"
            text_file.write_text(load_corpus().text, encoding="utf-8")
        train = [sys.executable, "-m", "functional_lm", "train", "--text-file", str(text_file)]
        train += ["--log-every", "1", "--out", "RUN", "--steps"]
        commands = {
            "ours-script": (_script("peer_ours", f"step({TINY})[1](1)"), MARK),
            "ours-command": ([*train, "2"], "step 1/2"),
            "ours-one-step": ([*train, "1"], ""),
            "jax-script": (_script("peer_jax", f"step({TINY}, 'manual')[1](1)"), MARK),
            "torch-script": (_script("peer_torch", f"step({TINY}, False)[1](1)"), MARK),
        }
        peers = available(
            {n: Spec(f"peer_{n.partition('-')[0]}", "step") for n in commands}, report
        )
        with progress((rounds + 1) * len(peers)) as done:
            for number, name in itertools.product(range(-1, rounds), peers):
                command, mark = commands[name]
                own = [f"{folder}/{name}{number}" if part == "RUN" else part for part in command]
                try:
                    seconds, others = launch(own, mark)
                except PeerFailed as failure:
                    if name.startswith("ours"):
                        raise
                    report.missing[name] = str(failure).splitlines()[-1]
                    continue
                finally:
                    done()
                say(f"{number + 1:3} {name:16} {seconds:.2f} s, others {others:.0%}")
                turns += [Turn(name, number, [seconds], others)] * (number >= 0)
    pairs = [(f"ours-{a}", f"{b}-script") for a in ("script", "command") for b in ("jax", "torch")]
    report.add_turns("tiny", turns, "s", 1.0, pairs)
    report.write(out)


def _script(module: str, call: str) -> list[str]:
    return [sys.executable, "-c", FIRST_STEP.format(module=module, call=call, mark=MARK)]


def launch(command: Sequence[str], mark: str) -> tuple[float, float]:
    """Run a command up to the line that begins with a mark, or to its end without one.

    Returns:
        The seconds that it took, and the share of the processor's time that others took.

    Raises:
        PeerFailed: if there is no mark, or the exit status is not 0; with its last output.
    """
    before, said, found = usage(), [], False
    process = subprocess.Popen(
        command, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    assert process.stdout is not None
    with process.stdout:
        for line in process.stdout:
            said.append(line)
            if found := bool(mark) and line.startswith(mark):
                seconds = usage().at - before.at
                process.kill()
                break
    _, status, used = os.wait4(process.pid, 0)
    process.returncode, after = os.waitstatus_to_exitcode(status), usage()
    if not found:
        seconds = after.at - before.at
        if mark or process.returncode:
            raise PeerFailed(
                "".join([f"{command[0]} failed; its last output:\n", *said[-12:]]).strip()
            )
    return seconds, share_of_others(before, after, used.ru_utime + used.ru_stime)
