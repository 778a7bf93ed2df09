"""The parent's side: a peer in a process of its own, stopped while it is not its turn."""

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

CHILD = Path(__file__).parent.parent / "child.py"

REMOVED = (
    "OPENBLAS_CORETYPE",
    "OPENBLAS_NUM_THREADS",
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "XLA_FLAGS",
    "GLIBC_TUNABLES",
    "MALLOC_ARENA_MAX",
)
"""Variables that a child does not inherit: each peer chooses its kernels and threads by itself."""


class PeerFailed(RuntimeError):
    """A peer ended, or took too long; with the end of what it said."""


def environment(base: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Return the environment of every child."""
    kept = {name: value for name, value in base.items() if name not in REMOVED}
    return kept | {"JAX_PLATFORMS": "cpu"}


class Peer:
    """A child process that answers requests."""

    def __init__(
        self, name: str, module: str, function: str, *, timeout: float = 600.0, **keywords: Any
    ) -> None:
        self.name = name
        self.timeout = timeout
        self._said = tempfile.TemporaryFile("w+")  # noqa: SIM115  # closed with the peer
        self._process = subprocess.Popen(
            [sys.executable, str(CHILD), module, function, json.dumps(keywords)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._said,
            env=environment(),
            text=True,
            start_new_session=True,  # so that compilers it starts are stopped along with it
        )
        try:
            self.about = self._answer()
        except BaseException:
            self.close()
            raise

    def ask(self, do: str, **keywords: Any) -> dict[str, Any]:
        """Send a request and return the answer.

        Raises:
            PeerFailed: if there is none.
        """
        stdin = self._process.stdin
        assert stdin is not None
        try:
            stdin.write(json.dumps({"do": do, **keywords}) + "\n")
            stdin.flush()
        except BrokenPipeError:
            raise self._failure("ended") from None
        return self._answer()

    def pause(self) -> None:
        """Stop all threads of the process, and wait until they are: nothing of it runs then."""
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
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _answer(self) -> dict[str, Any]:
        stdout = self._process.stdout
        assert stdout is not None
        if not select.select([stdout], [], [], self.timeout)[0]:
            raise self._failure(f"did not answer in {self.timeout:.0f} s")
        line = stdout.readline()
        if not line:
            raise self._failure("ended")
        return json.loads(line)

    def _failure(self, what: str) -> PeerFailed:
        self._said.seek(0)
        end = self._said.read().strip().splitlines()[-12:]
        return PeerFailed("\n".join([f"{self.name} {what}; it said:", *end]))
