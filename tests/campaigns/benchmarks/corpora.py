"""What corpora larger than memory take: encoding, and training from the map."""

import json
import os
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import numpy as np
from harness import PeerFailed, Report, environment, say, share_of_others, usage
from speed import RESULTS

WORDS = 50_000
"""Made-up words, drawn by Zipf's law."""

MEASURED = """
import json, sys, time
from pathlib import Path
from functional_lm.speed import runtime
runtime.tune()
from functional_lm.text import CharTokenizer, FileCorpus, Part, load_tokenizer
from functional_lm.training import Experiment, TrainConfig

def memory():
    lines = Path("/proc/self/status").read_text().splitlines()
    return {n: int(v.split()[0]) / 1024 for n, v in (line.split(":") for line in lines)
            if n in ("VmRSS", "VmHWM")}

text, cache, steps, *files = sys.argv[1:]
ascii = "".join(map(chr, range(128)))
tokenizer = load_tokenizer(files[0]) if files else CharTokenizer(ascii)
corpus = FileCorpus((Part(Path(text)),), cache=Path(cache))
corpus.sources
start = time.perf_counter()
tokens, _ = corpus.encode(tokenizer)
seconds = time.perf_counter() - start
print(json.dumps({"tokens": len(tokens), "seconds": seconds}), flush=True)
if int(steps):
    experiment = Experiment.build(corpus, TrainConfig(steps=int(steps)), tokenizer=tokenizer)
    for step in experiment.run():
        pass
    experiment.validation_loss(step.state.params, limit=2**16)
    print(json.dumps(memory()))
"""


def corpora(
    megabytes: tuple[str, ...] = ("10", "1000"),
    tokenizer: Path | None = None,
    steps: int = 300,
    out: Path = RESULTS,
) -> None:
    """Measure the time and memory of encoding a corpus, and the memory of training from the map.

    The text is made up, as documents of .jsonl. The memory of encoding is the largest sum of the
    resident memory of all processes, sampled each tenth of a second; that of training is what is
    resident at its end, in a process that finds the encoding in the cache.

    Args:
        megabytes: the sizes of the text.
        tokenizer: the file of a tokenizer; not given: characters.
        steps: to train.
        out: where corpora.json is written.
    """
    report = Report("corpora")
    with tempfile.TemporaryDirectory() as folder:
        for size in megabytes:
            text = Path(folder) / f"{size}.jsonl"
            _write_text(text, int(float(size) * 1e6))
            arguments, before = [str(text), f"{folder}/cache"], usage()
            own_tokenizer = [] if tokenizer is None else [str(tokenizer)]
            answers, peak, own = _run([*arguments, "0", *own_tokenizer])
            others = share_of_others(before, usage(), own)
            rate = text.stat().st_size / 1e6 / answers[0]["seconds"]
            note = f"{answers[0]['tokens']:,} tokens; others took {others:.0%}"
            report.add(f"{size} MB", "encoding, MB/s", [rate], note)
            report.add(f"{size} MB", "encoding, peak MiB of all processes", [peak])
            answers, _, _ = _run([*arguments, str(steps), *own_tokenizer])
            report.add(f"{size} MB", "training, resident MiB", [answers[1]["VmRSS"]])
            report.add(f"{size} MB", "training, peak MiB", [answers[1]["VmHWM"]])
            say(f"{size} MB: {rate:.1f} MB/s, peak {peak:.0f} MiB, trained {answers[1]}")
            text.unlink()
    report.write(out)


def _write_text(path: Path, size: int) -> None:
    """Write made-up documents of 300 words each."""
    draw = np.random.default_rng(0)
    letters = np.array(list("etaoinshrdlucmfwypvbgk"))
    lengths = draw.integers(2, 11, WORDS)
    words = np.array(["".join(draw.choice(letters, n)) for n in lengths], object)
    shares = np.cumsum(1 / np.arange(1, WORDS + 1))
    written = 0
    with path.open("w", encoding="utf-8") as file:
        while written < size:
            places = np.searchsorted(shares, draw.uniform(0, shares[-1], (1000, 300)))
            documents = [" ".join(words[row]) + ".\n" for row in places]
            lines = "".join(json.dumps({"text": text}) + "\n" for text in documents)
            written += file.write(lines)


def _run(arguments: list[str]) -> tuple[list[dict[str, float]], float, float]:
    """Return what `MEASURED` prints, the peak MiB of its processes, and their processor time."""
    command = [sys.executable, "-c", MEASURED, *arguments]
    process = subprocess.Popen(command, env=environment(), stdout=subprocess.PIPE, text=True)
    peak, own, over = 0.0, {}, threading.Event()

    def watch() -> None:
        nonlocal peak
        while not over.wait(0.1):
            found = [_of_process(pid) for pid in (process.pid, *_children(process.pid))]
            peak = max(peak, sum(resident for resident, _ in found))
            own.update(enumerate(seconds for _, seconds in found))

    thread = threading.Thread(target=watch)
    thread.start()
    said, _ = process.communicate()
    over.set()
    thread.join()
    if process.returncode:
        raise PeerFailed(f"{command[-1]} failed with status {process.returncode}")
    return [json.loads(line) for line in said.splitlines()], peak, sum(own.values())


def _children(pid: int) -> list[int]:
    try:
        return list(map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split()))
    except OSError:
        return []


def _of_process(pid: int) -> tuple[float, float]:
    """Return the resident MiB of a process, and the seconds that it has used."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
        times = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]
    except (OSError, ValueError, IndexError):
        return 0.0, 0.0
    size, ticks = os.sysconf("SC_PAGE_SIZE"), os.sysconf("SC_CLK_TCK")
    return pages * size / 2**20, sum(map(int, times)) / ticks
