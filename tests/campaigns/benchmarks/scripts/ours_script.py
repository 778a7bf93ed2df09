"""A first training step of the tiny model with this library."""

from functional_lm.speed import runtime

runtime.tune()

import numpy as np  # noqa: E402
from harness.launch import MARK  # noqa: E402
from harness.settings import SETTINGS  # noqa: E402

from functional_lm import prng  # noqa: E402
from functional_lm.models import language_model  # noqa: E402
from functional_lm.models.transformer import Config  # noqa: E402
from functional_lm.speed.sharding import sharded  # noqa: E402
from functional_lm.training import TrainConfig, init_state, train  # noqa: E402

setting = SETTINGS["tiny"]
config = Config(**setting.model)
optimizer = TrainConfig().make_optimizer(TrainConfig().schedule(2000))
state = init_state(language_model.init((0,), config=config), optimizer)


def batch_at(step: int) -> tuple[np.ndarray, dict]:
    """Return random tokens."""
    shape = (setting.batch_size, setting.seq_len + 1)
    tokens = prng.integers((1, step), shape, low=0, high=setting.vocab_size)
    return tokens[:, :-1], {"targets": tokens[:, 1:], "config": config}


next(
    train(
        language_model,
        state,
        optimizer=optimizer,
        batch_at=batch_at,
        steps=1,
        value_and_grad=sharded(runtime.cores()),
    )
)
print(MARK, flush=True)
