"""PyTorch: eager or compiled, with the fused AdamW."""

import os
import time
from typing import Any

import torch
from harness.protocol import Actions
from harness.workload import Workload, read

from .torch_model import Model


def step(workload: str, *, compiled: bool) -> tuple[dict[str, Any], Actions]:
    """Return a trainer; compiled, the loss and its gradient are one compiled function each."""
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    given = read(workload)
    update = trainer(given, compiled)
    number = 0

    def steps(n: int) -> dict[str, Any]:
        nonlocal number
        seconds, losses = [], []
        for _ in range(n):
            start = time.perf_counter()
            loss = update(number)
            seconds.append(time.perf_counter() - start)
            losses.append(loss.item())
            number += 1
        return {"seconds": seconds, "losses": losses}

    about = {"torch": torch.__version__, "threads": torch.get_num_threads()}
    return about | {"capability": torch.backends.cpu.get_cpu_capability()}, {"steps": steps}


def trainer(given: Workload, compiled: bool):
    """Return a function of the step's number that makes an update and returns its loss."""
    model = Model(given)
    loss_of = torch.compile(model.loss) if compiled else model.loss
    params = list(model.parameters())
    settings = given.optimizer
    optimizer = torch.optim.AdamW(
        [
            {
                "params": [p for p in params if p.ndim >= 2],
                "weight_decay": settings["weight_decay"],
            },
            {"params": [p for p in params if p.ndim < 2], "weight_decay": 0.0},
        ],
        betas=(settings["b1"], settings["b2"]),
        eps=settings["eps"],
        fused=True,
    )

    def update(number: int) -> torch.Tensor:
        tokens, targets = (torch.from_numpy(part).long() for part in given.batch(number))
        for group in optimizer.param_groups:
            group["lr"] = float(given.rates[number])
        loss = loss_of(tokens, targets)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(params, settings["max_grad_norm"])
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return loss.detach()

    return update
