"""JAX: the whole step in one `jit`, with optax, and the buffers of the old state donated."""

import time
from functools import partial
from typing import Any

import jax
import optax
from harness.protocol import Actions
from harness.resident import resident
from harness.workload import Workload, read

from . import jax_model


def step(workload: str, *, attention: str) -> tuple[dict[str, Any], Actions]:
    """Return a trainer with one of `jax_model.ATTENTION`."""
    given = read(workload)
    update, state = trainer(given, attention)
    number = 0

    def steps(n: int) -> dict[str, Any]:
        nonlocal state, number
        seconds, losses = [], []
        for _ in range(n):
            start = time.perf_counter()
            state, loss = update(state, *given.batch(number))
            jax.block_until_ready((state, loss))
            seconds.append(time.perf_counter() - start)
            losses.append(float(loss))
            number += 1
        return {"seconds": seconds, "losses": losses}

    return {"jax": jax.__version__, "attention": attention}, {"steps": steps}


def memory(workload: str, *, attention: str) -> tuple[dict[str, Any], Actions]:
    """Return a trainer that answers with the memory of its process."""
    jax.devices()  # the backend belongs to the import
    base = resident()["now"]
    given = read(workload)
    update, state = trainer(given, attention)

    def steps(n: int) -> dict[str, Any]:
        nonlocal state
        losses = []
        for number in range(n):
            state, loss = update(state, *given.batch(number))
            losses.append(float(loss))
        return {"losses": losses, "base": base, "peak": resident()["peak"]}

    return {"jax": jax.__version__, "attention": attention}, {"steps": steps}


def trainer(given: Workload, attention: str):
    """Return ``update(state, tokens, targets) -> (state, loss)``, compiled, and the first state."""
    rates = jax.numpy.asarray(given.rates, jax.numpy.float32)
    settings = given.optimizer
    optimizer = optax.chain(
        optax.clip_by_global_norm(settings["max_grad_norm"]),
        optax.adamw(
            lambda count: rates[count],
            settings["b1"],
            settings["b2"],
            settings["eps"],
            weight_decay=settings["weight_decay"],
            mask=lambda params: jax.tree.map(lambda leaf: leaf.ndim >= 2, params),
        ),
    )
    loss_of = partial(
        jax_model.loss, n_heads=given.setting.n_heads, attention=jax_model.ATTENTION[attention]
    )

    @partial(jax.jit, donate_argnums=0)
    def update(state, tokens, targets):
        params, optimizer_state = state
        loss, grads = jax.value_and_grad(loss_of)(params, tokens, targets)
        updates, optimizer_state = optimizer.update(grads, optimizer_state, params)
        return (optax.apply_updates(params, updates), optimizer_state), loss

    params = jax_model.parameters(given)
    return update, (params, optimizer.init(params))
