"""The process that feeds inputs to one reader; `run` starts it and watches it.

    python tests/campaigns/fuzz/child.py READERS.py NAME FOLDER --seed 0 (--seconds N | --inputs N)

The fuzzed file lies in FOLDER, so the input that ends this process can be found there.
FOLDER/progress counts the inputs. Prints one JSON object.
"""

import argparse
import importlib.util
import json
import mmap
import random
import re
import sys
import time
import traceback
import warnings
from pathlib import Path
from typing import Any

from mutations import mutate

from functional_lm.files import FileFormatError

MEMORY = 4 * 2**30
"""Bytes of address space; a reader that wants more fails."""

LONGEST_MESSAGE = 2000
KEPT = 300
"""Inputs kept to be changed further: at most this many that gave a value or a new error, each."""


def load_readers(path: str) -> dict[str, Any]:
    """Return the readers that a file defines."""
    spec = importlib.util.spec_from_file_location("fuzzed_readers", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.READERS


def outcome(reader: Any, path: Path) -> str:
    """Return "a value", or what the FileFormatError says, without its details.

    Raises:
        BaseException: anything else that reading raises.
        AssertionError: for an error whose message lacks something.
    """
    try:
        reader.read(path)
    except FileFormatError as error:
        return _said(error, path)
    return "a value"


def _said(error: FileFormatError, path: Path) -> str:
    said = str(error)
    assert said.startswith(str(path.parent)), f"the message must name the file: {said}"
    assert len(error.reason) > 10, f"the message must give a reason: {said}"
    assert len(said) < LONGEST_MESSAGE, f"the message is long: {len(said)} characters"
    assert said.encode(), "the message must be text"
    return re.sub(r"'.*?'|\".*?\"|[\d,]+|0x\w+", "_", error.reason)


def fuzz(reader: Any, folder: Path, seed: int, seconds: float, inputs: float) -> dict[str, Any]:
    """Feed a reader until the time or the number of inputs is reached."""
    draw = random.Random(seed)
    kept = reader.make(folder)
    valid = list(kept)
    path = folder / reader.file
    outcomes: dict[str, int] = {}
    progress = folder / "progress"
    progress.write_bytes(bytes(8))
    start = time.perf_counter()
    count, slowest = 0, 0.0
    with progress.open("r+b") as file, mmap.mmap(file.fileno(), 8) as counter:
        while count < inputs and time.perf_counter() - start < seconds:
            if count < len(kept):  # each content as it is, before any is changed
                data = kept[count]
            else:
                data = mutate(draw.choice(draw.choice((kept, valid))), kept, reader.words, draw)
                data = reader.repair(data) if draw.random() < 0.8 else data
            path.unlink(missing_ok=True)  # to overwrite a file makes some systems wait for the disk
            path.write_bytes(data)
            count += 1
            counter[:] = count.to_bytes(8, "little")
            began = time.perf_counter()
            said = outcome(reader, path)
            slowest = max(slowest, time.perf_counter() - began)
            outcomes[said] = outcomes.get(said, 0) + 1
            if outcomes[said] == 1 and len(kept) < KEPT:
                kept.append(data)
            if said == "a value" and len(valid) < KEPT:
                valid.append(data)
    return {"inputs": count, "outcomes": outcomes, "slowest": slowest}


def main() -> int:
    """Print the report; return 1 if an input failed."""
    parser = argparse.ArgumentParser()
    parser.add_argument("readers")
    parser.add_argument("name")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=float("inf"))
    parser.add_argument("--inputs", type=float, default=float("inf"))
    given = parser.parse_args()
    reader = load_readers(given.readers)[given.name]
    try:
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    except (ImportError, ValueError, OSError):
        pass  # Windows has no such limit, macOS does not hold it
    warnings.simplefilter("error")
    try:
        report = fuzz(reader, given.folder, given.seed, given.seconds, given.inputs)
    except BaseException:
        lines = traceback.format_exc().splitlines()
        report = {"fault": "\n".join(line[:300] for line in lines)}
    print(json.dumps(report))
    return 1 if "fault" in report else 0


if __name__ == "__main__":
    sys.exit(main())
