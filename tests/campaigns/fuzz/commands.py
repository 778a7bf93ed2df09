"""The files of a run through the commands, an entry each, read as `readers` are.

A command must end with its work done, or with one to three lines; with no traceback, and no more
memory than twice the file and 64 MiB. What it accepts must not differ from what was written, but
for files that anybody may write: the settings, the records and the texts.
"""

import contextlib
import functools
import io
import os
import shutil
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
from readers import JSON_WORDS, TENSOR_WORDS, Reader, with_true_checksum

from functional_lm import pytree
from functional_lm.cli.main import main
from functional_lm.files import FileFormatError
from functional_lm.reports import page
from functional_lm.runs import load_checkpoint, open_run
from functional_lm.text import load_tokenizer

MORE = 64 * 2**20
RUN, COPY, PRISTINE = "run", "copy", "pristine"
SETTINGS = "--batch-size 2 --seq-len 8 --d-model 8 --shards 1 --steps 3"
EVERY = "--statistics-every 1 --eval-every 1 --sample-every 2 --checkpoint-every 1"
MODEL = """
from functional_lm.compose import serial
from functional_lm.layers import embedding, unembedding

model = serial(embedding=embedding, unembedding=unembedding)
"""
GENERATE = ("generate", "RUN", "--max-new-tokens", "1")
EVALUATE = ("evaluate", "RUN")
RESUME = ("train", "--resume", "RUN")
REPORT, DIAGNOSE, INFO, RUNS = ("report", "RUN"), ("diagnose", "RUN"), ("info", "RUN"), ("runs",)
SELDOM = 20
"""A report draws for a second, so it gets one input in so many."""


def of_run(file: str, *, custom: bool = False) -> Callable[[Path], list[bytes]]:
    """Return a `make` that trains a run, and gives the content of one of its files."""

    def make(folder: Path) -> list[bytes]:
        os.environ["XDG_STATE_HOME"] = str(folder / "state")
        (folder / "text.txt").write_text("the quick brown fox jumps over the lazy dog.\n" * 9)
        (folder / "net.py").write_text(MODEL)
        model = ["--n-heads", "1", "--n-layers", "1"]
        if custom:
            model = ["--model", str(folder / "net.py") + ":model"]
        text = ["--text-file", str(folder / "text.txt"), "--out", str(folder / RUN)]
        status, said = command("train", *text, *model, *SETTINGS.split(), *EVERY.split())
        assert status == 0, said
        shutil.copytree(folder / RUN, folder / PRISTINE)
        (folder / RUN / "checkpoints" / "step-00000003.safetensors").unlink()
        return [(folder / RUN / file).read_bytes()]

    return make


def command(*arguments: str) -> tuple[int, str]:
    """Return the exit status of a command and what it says on stderr."""
    said = io.StringIO()
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(said):
        status = main(arguments)
    return status, said.getvalue()


def through(*commands: tuple[str, ...]) -> Callable[[Path], object]:
    """Return a `read` after which a command, chosen by the content, uses a copy of the run."""

    def read(path: Path) -> None:
        folder = next(parent.parent for parent in path.parents if parent.name == RUN)
        copy, data = folder / COPY, path.read_bytes()
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(folder / RUN, copy)
        number = zlib.crc32(data)
        arguments = commands[number % len(commands)]
        if arguments is REPORT and len(commands) > 1 and number // len(commands) % SELDOM:
            arguments = commands[0]
        if arguments is REPORT:
            find_fonts(folder)
        before = memory()
        with contextlib.chdir(folder):
            status, said = command(*(part.replace("RUN", str(copy)) for part in arguments))
        used = memory(peak=True) - before
        assert used < 2 * len(data) + MORE, f"{arguments[0]} takes {used / 2**20:.0f} MiB"
        lines = said.splitlines()
        if status:
            assert status in (1, 2), f"{arguments[0]} ends with {status}"
            assert 1 <= len(lines) <= 3, f"{arguments[0]} says much: {said}"
            assert not any(ord(c) < 32 for line in lines for c in line), f"control: {said!r}"
            raise FileFormatError(path, lines[0][:300])
        expect_same(path.relative_to(folder / RUN), folder, arguments)

    return read


@functools.cache
def find_fonts(folder: Path) -> None:
    """Draw a first picture, which makes a list of the fonts."""
    command("plot", str(folder / PRISTINE))


def expect_same(file: Path, folder: Path, arguments: tuple[str, ...]) -> None:
    """Require that what a command accepted is what was written."""
    mutated, valid = folder / RUN / file, folder / PRISTINE / file
    if file.name == "model.py":
        assert mutated.read_bytes() == valid.read_bytes(), "other code ran"
    if arguments is RESUME:
        before, after = (
            load_checkpoint(max((folder / name / "checkpoints").iterdir())).metadata["run"]
            for name in (PRISTINE, COPY)
        )
        if before["settings"] == after["settings"] and not forged(folder, file):
            ends = [(folder / run / "last.safetensors").read_bytes() for run in (COPY, PRISTINE)]
            assert ends[0] == ends[1], "the resumed run ends otherwise"
    elif arguments in (GENERATE, EVALUATE):
        if file.name == "model.safetensors" and not forged(folder, file):
            found, wanted = load_checkpoint(mutated), load_checkpoint(folder / "valid")
            assert found.metadata == wanted.metadata
            for one, other in zip(*map(pytree.leaves, (found.tree, wanted.tree)), strict=True):
                np.testing.assert_array_equal(one, other, strict=True)
        elif file.name == "tokenizer.json":
            assert load_tokenizer(mutated) == load_tokenizer(valid)
        elif file.name == "config.json":
            assert open_run(folder / RUN).model.config == open_run(folder / PRISTINE).model.config


def forged(folder: Path, file: Path) -> bool:
    """Tell whether a checkpoint has another checksum, so that it was changed on purpose."""
    if file.suffix != ".safetensors":
        return False
    valid = folder / "valid"
    checksum = load_checksum(valid.read_bytes())
    return checksum not in (folder / RUN / file).read_bytes()


def load_checksum(data: bytes) -> bytes:
    """Return the checksum of the description in a checkpoint."""
    return data.partition(b'functional_lm.checkpoint.1":"')[2][:64]


def memory(*, peak: bool = False) -> int:
    """Return the resident memory of this process, or the most since this was called last."""
    if not os.path.exists("/proc/self/clear_refs"):
        return 0
    if not peak:
        Path("/proc/self/clear_refs").write_text("5")
    name = "VmHWM:" if peak else "VmRSS:"
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line for line in lines if line.startswith(name)).split()[1])


def kept_valid(file: str, **how: bool) -> Callable[[Path], list[bytes]]:
    """Return a `make` that also keeps the valid content of a file of weights."""

    def make(folder: Path) -> list[bytes]:
        contents = of_run(file, **how)(folder)
        (folder / "valid").write_bytes(contents[0])
        return contents

    return make


def evaluated(folder: Path) -> list[bytes]:
    """Return an evaluation; the pictures of a report, which do not show it, are not drawn."""
    of_run("config.json")(folder)
    page._pictures = lambda *_: []
    return [EVALUATION]


EVALUATION = b'{"loss": 2.5, "tokens": 39, "step": 3}\n'
CHECKPOINT = "checkpoints/step-00000002.safetensors"
READERS: dict[str, Reader] = {
    f"run {name}": Reader(f"{RUN}/{name}", make, through(*commands), words, repair)
    for name, make, commands, words, repair in (
        ("config.json", of_run("config.json"),
         (GENERATE, EVALUATE, RESUME, REPORT, DIAGNOSE, INFO, RUNS), JSON_WORDS, bytes),
        ("tokenizer.json", of_run("tokenizer.json"), (GENERATE, EVALUATE), JSON_WORDS, bytes),
        ("model.safetensors", kept_valid("model.safetensors"), (GENERATE, EVALUATE),
         TENSOR_WORDS, with_true_checksum),
        ("last.safetensors", kept_valid("last.safetensors"), (RESUME, REPORT), TENSOR_WORDS,
         with_true_checksum),
        (CHECKPOINT, kept_valid(CHECKPOINT), (RESUME,), TENSOR_WORDS, with_true_checksum),
        ("metrics.jsonl", of_run("metrics.jsonl"), (DIAGNOSE, REPORT, RESUME, RUNS), JSON_WORDS,
         bytes),
        ("evaluation.json", evaluated, (REPORT,), JSON_WORDS, bytes),
        (".lock", of_run(".lock"), (RESUME,), JSON_WORDS, bytes),
        ("sample.txt", of_run("sample.txt"), (RESUME, REPORT), (), bytes),
        ("model.py", of_run("model.py", custom=True), (GENERATE, RESUME), (), bytes),
    )
}  # fmt: skip
"""By name, as on the command line."""
