"""The machine: what it is, and whether something else is running on it."""

import os
import platform
import time
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

PACKAGES = ("functional-lm", "numpy", "jax", "jaxlib", "optax", "torch")

BUSY = 0.05
"""A turn counts as disturbed if others took more than this share of the processor's time."""


class Usage(NamedTuple):
    """Processor time of the whole machine, in seconds, since it started."""

    at: float  # when this was read
    used: float  # by all processes
    stolen: float  # by other machines on the same hardware


class Disturbance(NamedTuple):
    """What happened during a turn besides the peer."""

    others: float  # share of the machine's time that other processes took
    stolen: float  # share that the hypervisor gave to other machines
    load: float  # the load average over a minute, at the end

    @property
    def busy(self) -> bool:
        """Whether the turn is not to be trusted."""
        return self.others + self.stolen > BUSY


def usage() -> Usage:
    """Read the counters of the kernel."""
    fields = Path("/proc/stat").read_text().splitlines()[0].split()[1:]
    user, nice, system, _, _, irq, softirq, stolen, *_ = (int(field) for field in fields)
    tick = os.sysconf("SC_CLK_TCK")
    return Usage(time.perf_counter(), (user + nice + system + irq + softirq) / tick, stolen / tick)


def disturbance(before: Usage, after: Usage, own_seconds: float) -> Disturbance:
    """Return what others did between two readings, given what the peer itself used."""
    available = (after.at - before.at) * (os.cpu_count() or 1)
    others = max(after.used - before.used - own_seconds, 0.0)
    return Disturbance(
        others=others / available,
        stolen=(after.stolen - before.stolen) / available,
        load=os.getloadavg()[0],
    )


def wait_until_quiet(patience: float, *, look: float = 0.3) -> None:
    """Return when nothing runs, or after so many seconds; while no peer is running.

    Args:
        patience: seconds to wait at most.
        look: seconds for which nothing must run.
    """
    end = time.perf_counter() + patience
    while time.perf_counter() < end:
        before = usage()
        time.sleep(look)
        if not disturbance(before, usage(), own_seconds=0.0).busy:
            return


def describe() -> dict[str, Any]:
    """Return what a reader must know to judge the figures."""
    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = None
    return {
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)),
        "system": platform.platform(),
        "python": platform.python_version(),
        "versions": versions,
        "time": time.strftime("%Y-%m-%d %H:%M:%S %Z"),
    }


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    fields = dict(line.split(":", 1) for line in lines if ":" in line)
    fields = {key.strip(): value.strip() for key, value in fields.items()}
    wide = [
        flag for flag in ("avx2", "avx512f", "asimd") if flag in fields.get("flags", "").split()
    ]
    return ", ".join(filter(None, [fields.get("model name"), *wide]))
