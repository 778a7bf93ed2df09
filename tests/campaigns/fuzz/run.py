"""Fuzz the readers of files from outside.

    python tests/campaigns/fuzz/run.py [--seconds 60] [--seed 0] [READER...]

Each reader is fed changed copies of valid files, in a process of its own. An input must give a
value or a FileFormatError that names the file; anything else is a failure: another exception, a
warning, a crash, more than 4 GiB of memory, or more than five seconds. The report says where the
input is kept, and the exit status is 1. The same seed makes the same inputs. The readers are those
of `readers`; all by default.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
LIMIT = 5.0
"""Seconds of the processor that an input may take."""

STARTING = 60.0
"""Seconds until the first input, or that one may wait for something."""


def run_reader(
    name: str, *arguments: str, readers: Path = HERE / "readers.py", limit: float = LIMIT
) -> dict[str, Any]:
    """Fuzz one reader; the report has inputs, outcomes and slowest, or a fault.

    Args:
        name: of the reader.
        arguments: how long; see `child`.
        readers: the file that defines it.
        limit: seconds of the processor that an input may take.
    """
    folder = Path(tempfile.mkdtemp(prefix="functional-lm-fuzz-", dir=_in_memory()))
    output = folder / "output"
    command = [sys.executable, str(HERE / "child.py"), str(readers), name, str(folder)]
    with output.open("w") as file:
        child = subprocess.Popen([*command, *arguments], stdout=file, stderr=subprocess.STDOUT)
        hung = not _ends(child, folder / "progress", limit)
    said = output.read_text(errors="replace").strip()
    if hung:
        report = {"fault": f"an input takes more than {limit:g} seconds"}
    elif child.returncode not in (0, 1) or not said.startswith("{"):
        report = {"fault": f"the process ended with {child.returncode}: {said[-2000:]}"}
    else:
        report = json.loads(said)
    if "fault" in report:
        report["fault"] += f"\nthe input is in {folder}"
    else:
        shutil.rmtree(folder)
    return report


def _in_memory() -> str | None:
    """Return a folder in memory, if there is one, so that no slow disk is taken for a hang."""
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


def _ends(child: subprocess.Popen, progress: Path, limit: float) -> bool:
    """Wait for a process; kill it and return False if one input takes too long."""
    count, since, spent = b"", time.monotonic(), 0.0
    while True:
        try:
            child.wait(timeout=limit / 20)
        except subprocess.TimeoutExpired:
            now = progress.read_bytes() if progress.exists() else b""
            if now != count:
                count, since, spent = now, time.monotonic(), _processor_seconds(child.pid)
            waited = time.monotonic() - since
            worked = _processor_seconds(child.pid) - spent
            if waited > STARTING or (count and worked > limit):
                child.kill()
                child.wait()
                return False
        else:
            return True


def _processor_seconds(process: int) -> float:
    """Return a process's CPU time, so that a busy machine is not taken for a hang; or the time."""
    try:
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return time.monotonic()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def main() -> int:
    """Fuzz and print a line for each reader."""
    from child import load_readers

    known = load_readers(str(HERE / "readers.py"))
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("readers", nargs="*", metavar="READER", help=", ".join(known))
    parser.add_argument("--seconds", type=float, default=60.0, help="for each reader")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    unknown = sorted(set(given.readers) - set(known))
    if unknown:
        parser.error(f"there is no reader {unknown[0]}: the readers are {', '.join(known)}")
    failed = 0
    print(f"{'reader':20}{'inputs':>10}{'values':>10}{'refused':>10}{'reasons':>9}{'slowest':>12}")
    names = given.readers or list(known)
    for i, name in enumerate(names):
        if sys.stderr.isatty():
            left = (len(names) - i) * given.seconds / 60
            print(f"reader {i + 1} of {len(names)}, {left:.0f} min left\r", end="", file=sys.stderr)
        report = run_reader(name, "--seconds", str(given.seconds), "--seed", str(given.seed))
        if "fault" in report:
            failed += 1
            print(f"{name:20}FAILED: {report['fault']}", flush=True)
            continue
        outcomes = report["outcomes"]
        values = outcomes.pop("a value", 0)
        slowest = f"{1000 * report['slowest']:.1f} ms"
        print(
            f"{name:20}{report['inputs']:>10,}{values:>10,}{sum(outcomes.values()):>10,}"
            f"{len(outcomes):>9}{slowest:>12}",
            flush=True,
        )
    print(f"{failed} failed" if failed else "none failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
