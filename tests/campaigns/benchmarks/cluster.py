"""What several processes take over MPI, and by a model of that what many hosts would.

This file is also what each process runs: ``mpiexec -n 2 python cluster.py REQUEST``.
"""

import contextlib
import dataclasses
import json
import math
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from workload import OPTIMIZER, SETTINGS, draw

MICROBATCHES = 4
MODES = {
    "tree": {},
    "tree, all at the end": {"overlap": False},
    "fast": {"reduce": "fast"},
    "tree, optimizer divided": {"divide": True},
}
SIZES = [2**k for k in range(3, 23)]  # bytes of the messages that are timed


class Link(NamedTuple):
    """What a message of n bytes takes: latency + n/bandwidth."""

    latency: float  # seconds
    bandwidth: float  # bytes a second, in each direction


NETWORKS = {
    "10 Gb/s Ethernet": Link(50e-6, 1.1e9),
    "100 Gb/s InfiniBand": Link(3e-6, 11e9),
}
"""Assumed, not measured."""


class Costs(NamedTuple):
    """What a process takes for the parts of a step, in seconds; measured with one process."""

    microbatch: float  # forward and backward of one
    rest: float  # the optimizer and whatever else does not depend on the batch
    window: float  # to draw one window of the batch
    part: float  # to cut out one microbatch
    add: float  # to add one entry of the gradient to another
    entries: int  # of the gradient
    buckets: int  # that it is sent in


def modelled(
    costs: Costs,
    link: Link,
    processes: int,
    *,
    microbatches: int,
    windows: int,
    per_core: float = 1,
    fast: bool = False,
) -> float:
    """Return the seconds of a step, without any overlap.

    Each process sends a slice of each bucket to every other, adds what it gets, and sends the sum
    to every other: 2·(R − 1) messages for each bucket, and 2·(R − 1)/R of the gradient. MPI's own
    reduction moves as much in 2·log₂(R) messages.

    Args:
        costs: of one process.
        link: between two processes; each pair has one, and a process sends one message at a time.
        processes: R.
        microbatches: of a batch.
        windows: of a batch; every process draws all.
        per_core: how many processes share a core.
        fast: whether MPI reduces.
    """
    R = processes
    own = -(-microbatches // R)
    messages = 2 * (math.log2(R) if fast else R - 1) * costs.buckets * link.latency
    moved = 2 * (R - 1) / R * 4 * costs.entries / link.bandwidth
    added = costs.add * costs.entries * (own - 1 + (R - 1) / R)
    computed = own * costs.microbatch + costs.rest + added
    return (
        per_core * (computed + windows * costs.window + microbatches * costs.part)
        + messages
        + moved
    )


def cluster(
    settings: tuple[str, ...] = ("tiny", "small"),
    sizes: tuple[str, ...] = ("1", "2", "4"),
    steps: int = 12,
    rounds: int = 3,
    out: Path = Path("runs/benchmarks"),
) -> None:
    """Time a step in 1, 2 and 4 processes of one thread each, and predict it for many hosts.

    The batch of a setting has 4 microbatches. A model of latency and bandwidth, with the costs of
    one process and the time of messages between two, is compared with what was measured; then
    it says what 8 to 512 hosts would do with a given network, each host with one such process:
    with the batch of a setting 128 times as large whatever the number of hosts (strong), and with
    the batch of the setting for each host (weak).

    Args:
        settings: of the workload.
        sizes: numbers of processes.
        steps: that are timed at a time, after two.
        rounds: of all numbers of processes.
        out: where cluster.json is written.
    """
    from harness import Report, say

    report, cores = Report("cluster"), len(os.sched_getaffinity(0))
    link = Link(**run(2, {"what": "messages"}))
    report.add("messages", "latency, µs", [1e6 * link.latency])
    report.add("messages", "bandwidth, GB/s", [1e-9 * link.bandwidth])
    for name in settings:
        setting = SETTINGS[name]
        costs = Costs(**run(1, {"what": "costs", "setting": name, "steps": steps}))
        for what, value in costs._asdict().items():
            unit = "" if isinstance(value, int) else ", µs"
            report.add(name, f"{what}{unit}", [value if not unit else 1e6 * value])
        seconds: dict[tuple[int, str], list[float]] = {}
        for number in range(rounds):
            for R in map(int, sizes):
                request = {"what": "steps", "setting": name, "steps": steps}
                for mode, values in run(R, request).items():
                    seconds.setdefault((R, mode), []).append(statistics.median(values))
            say(f"{name}: round {number + 1} of {rounds}")
        for (R, mode), values in seconds.items():
            report.add(name, f"{R} processes, {mode}, ms", [1e3 * value for value in values])
        for R in map(int, sizes):
            shared = max(1.0, R / cores)
            batch = {"microbatches": MICROBATCHES, "windows": setting.batch_size}
            predicted = modelled(costs, link, R, per_core=shared, **batch)
            report.add(name, f"{R} processes, by the model, ms", [1e3 * predicted])
            measured = statistics.median(seconds[R, "tree, all at the end"])
            report.add(name, f"{R} processes, measured / model", [measured / predicted])
        for network, wire in NETWORKS.items():
            for hosts in (8, 32, 128, 512):
                for kind, factor, fast in (
                    ("strong", 128, False),
                    ("weak", hosts, False),
                    ("weak, fast", hosts, True),
                ):
                    batch = {
                        "microbatches": MICROBATCHES * factor,
                        "windows": setting.batch_size * factor,
                    }
                    many = modelled(costs, wire, hosts, fast=fast, **batch)
                    one = modelled(costs, wire, 1, **batch)
                    label = f"{hosts} hosts, {kind}, {network}"
                    report.add(name, f"{label}, ms", [1e3 * many])
                    report.add(name, f"{label}, efficiency", [one / many / hosts])
    report.write(out)


def run(processes: int, request: dict[str, Any]) -> dict[str, Any]:
    """Return what the first of several processes answers."""
    mpiexec = Path(sys.executable).with_name("mpiexec")
    command = [mpiexec, "-n", str(processes), sys.executable, __file__, json.dumps(request)]
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{processes} processes fail: {done.stdout}{done.stderr}")
    return json.loads(done.stdout)


def messages(comm: Any) -> dict[str, float]:
    """Fit latency and bandwidth to messages that two processes send each other at once."""
    import numpy as np

    from functional_lm.speed.processes import wait

    times = []
    for size in SIZES:
        sent, received, taken = np.zeros(size, np.uint8), np.empty(size, np.uint8), []
        for _ in range(30):
            start = time.perf_counter()
            wait([comm.Irecv(received, 1 - comm.rank), comm.Isend(sent, 1 - comm.rank)])
            taken.append(time.perf_counter() - start)
        times.append(statistics.median(taken))
    weights = 1 / np.array(times)  # relative errors count
    columns = np.stack([np.ones(len(SIZES)), np.array(SIZES)], axis=1)
    (latency, slope), *_ = np.linalg.lstsq(
        columns * weights[:, None], np.array(times) * weights, rcond=None
    )
    return {"latency": float(latency), "bandwidth": float(1 / slope)}


def costs(comm: Any, setting: str, steps: int) -> dict[str, float]:
    """Return the `Costs` of one process."""
    import numpy as np

    from functional_lm import pytree
    from functional_lm.speed.processes import _buckets
    from functional_lm.speed.sharding import Parts, kept_targets

    by_parts = {}
    for parts in (2, MICROBATCHES):  # of one size, so that twice the work is twice the batch
        with training(comm, setting, parts / MICROBATCHES, parts, {}) as (step, params):
            by_parts[parts] = statistics.median([step() for _ in range(steps + 2)][2:])
    microbatch = (by_parts[MICROBATCHES] - by_parts[2]) / (MICROBATCHES - 2)
    given, gradient = draw(dataclasses.asdict(SETTINGS[setting])), np.ones(2**22, np.float32)

    def median(call: Any) -> float:
        taken = []
        for _ in range(20):
            start = time.perf_counter()
            call()
            taken.append(time.perf_counter() - start)
        return statistics.median(taken)

    x, y = given.batch(0)
    many, targets = np.repeat(x, 64, axis=0), np.repeat(y, 64, axis=0)
    tokens, n = np.zeros(2**20, np.uint8), x.shape[1]
    from functional_lm.text import batch_at

    size = {"batch_size": len(many), "seq_len": n}
    window = median(lambda: batch_at(tokens, (0,), 1, **size)) / len(many)
    cut = median(lambda: Parts(many, {"targets": targets}, len(many), ("targets",), kept_targets))
    add = median(lambda: np.add(gradient, gradient, out=gradient)) / gradient.size
    return {
        "microbatch": microbatch,
        "rest": by_parts[2] - 2 * microbatch,
        "window": window,
        "part": cut / len(many),
        "add": add,
        "entries": pytree.count(params),
        "buckets": len(_buckets(params)),
    }


def steps(comm: Any, setting: str, steps: int) -> dict[str, Any]:
    """Return the seconds of steps by mode."""
    found = {}
    for mode, options in MODES.items():
        with training(comm, setting, 1, MICROBATCHES, options) as (step, _):
            found[mode] = [step() for _ in range(steps + 2)][2:]
    return found


@contextlib.contextmanager
def training(
    comm: Any, name: str, share: float, microbatches: int, options: dict[str, Any]
) -> Iterator[Any]:
    """Give a function that makes a step of a share of the batch and returns its seconds."""
    from peer_ours import _model

    from functional_lm import value_and_grad
    from functional_lm.optimizers import adamw, chain, clip_by_global_norm
    from functional_lm.speed import processes
    from functional_lm.training import init_state, train

    given, before = draw(dataclasses.asdict(SETTINGS[name])), processes.when_ready
    settings = dict(OPTIMIZER)
    lr, clip = settings.pop("lr"), clip_by_global_norm(settings.pop("max_norm"))
    optimizer = chain(clip, adamw(lr, **settings))
    windows = round(share * given.setting.batch_size)

    def batch_at(number: int) -> tuple[Any, dict[str, Any]]:
        x, y = given.batch(number)
        return x[:windows], {"targets": y[:windows]}

    loss, params, _ = _model(given)
    ownership, state = None, init_state(params, optimizer)
    if options.get("divide"):
        ownership = processes.Ownership(comm, params, optimizer.by_leaf)
        own = optimizer.init(ownership.own(params))
        state = state._replace(optimizer_state=own)
    if not options.get("overlap", True):
        processes.when_ready = lambda tell: contextlib.nullcontext()
    gradient = processes.distributed(
        value_and_grad,
        comm,
        microbatches=microbatches,
        reduce=options.get("reduce", "tree"),
        ownership=ownership,
    )
    run = train(
        loss,
        state,
        optimizer=optimizer,
        batch_at=batch_at,
        steps=10**6,
        value_and_grad=gradient,
        ownership=ownership,
    )

    def step() -> float:
        comm.Barrier()
        return next(run).seconds

    try:
        yield step, params
    finally:
        processes.when_ready = before


def main() -> None:
    """Answer a request in one of several processes; the first prints."""
    from functional_lm.speed import runtime

    runtime.tune()
    from functional_lm.speed.processes import world

    comm, request = world(), json.loads(sys.argv[1])
    answer = {"messages": messages, "costs": costs, "steps": steps}[request.pop("what")]
    found = answer(comm, **request)
    if comm.rank == 0:
        print(json.dumps(found))


if __name__ == "__main__":
    main()
