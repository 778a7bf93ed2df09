"""This library, as a user trains with it: `training.train` and the recipe of `TrainConfig`."""

import time
from typing import Any

from harness.protocol import Actions
from harness.resident import resident
from harness.workload import N_STEPS, Workload, read

from functional_lm.speed import runtime


def step(
    workload: str, *, tuned: bool = True, shards: int | None = None
) -> tuple[dict[str, Any], Actions]:
    """Return a trainer.

    Args:
        workload: its file.
        tuned: whether to call `runtime.tune` first.
        shards: parts of a batch; not given: one for each core. With one, the gradient is that of
            the plain `value_and_grad`.
    """
    if tuned:
        runtime.tune()  # before NumPy is loaded
    training = _training(read(workload), runtime.cores() if shards is None else shards)

    def steps(n: int) -> dict[str, Any]:
        seconds, losses = [], []
        for _ in range(n):
            start = time.perf_counter()
            losses.append(next(training).loss)
            seconds.append(time.perf_counter() - start)
        return {"seconds": seconds, "losses": losses}

    return about(), {"steps": steps}


def memory(workload: str, **options: Any) -> tuple[dict[str, Any], Actions]:
    """Return a trainer that answers with the memory of its process.

    Args:
        workload: its file.
        options: further fields of `Config`, such as ``attention`` and ``remat``.
    """
    runtime.tune()
    import functional_lm.training  # noqa: F401

    said, base = about(), resident()["now"]
    training = _training(read(workload), runtime.cores(), options)

    def steps(n: int) -> dict[str, Any]:
        losses = [next(training).loss for _ in range(n)]
        return {"losses": losses, "base": base, "peak": resident()["peak"]}

    return said, {"steps": steps}


def _training(given: Workload, shards: int, options: dict[str, Any] | None = None) -> Any:
    import numpy as np

    from functional_lm import pytree
    from functional_lm.speed.sharding import sharded
    from functional_lm.training import TrainConfig, init_state, train

    def batch_at(number: int) -> tuple[np.ndarray, dict[str, Any]]:
        x, y = given.batch(number)
        return x, {"targets": y}

    optimizer = TrainConfig().make_optimizer(TrainConfig().schedule(N_STEPS))
    return train(
        objective(given, **(options or {})),
        init_state(pytree.from_paths(given.take_params()), optimizer),
        optimizer=optimizer,
        batch_at=batch_at,
        steps=N_STEPS,
        value_and_grad=sharded(shards),
    )


def objective(given: Workload, **options: Any) -> Any:
    """Return the model and its loss; the options are further fields of `Config`."""
    from functional_lm.models import transformer
    from functional_lm.training.objective import Objective

    return Objective(transformer, transformer.Config(**given.setting.model, **options))


def about() -> dict[str, Any]:
    """Return which BLAS NumPy loaded."""
    import numpy  # noqa: F401  # so that there is one to find
    from threadpoolctl import threadpool_info

    kept = ("internal_api", "architecture", "version", "num_threads")
    return {"blas": [{key: pool.get(key) for key in kept} for pool in threadpool_info()]}
