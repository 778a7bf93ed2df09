"""A first training step of the tiny model with JAX."""

import jax
from harness.launch import MARK
from harness.settings import SETTINGS
from harness.workload import invent
from peers.jax_peer import trainer

given = invent(SETTINGS["tiny"])
update, state = trainer(given, "manual")
jax.block_until_ready(update(state, *given.batch(0)))
print(MARK, flush=True)
