"""The resident memory of this process, by the kernel's own count. Linux only."""

from pathlib import Path

MIB = 2**20


def resident() -> dict[str, float]:
    """Return the resident set now and its peak so far, in MiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    fields = dict(line.split(":", 1) for line in lines)
    return {
        name: int(fields[key].split()[0]) * 1024 / MIB
        for name, key in (("now", "VmRSS"), ("peak", "VmHWM"))
    }
