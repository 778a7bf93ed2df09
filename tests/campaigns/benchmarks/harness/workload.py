"""One workload for all peers, as a file: parameters, batches and learning rates.

The library draws them once, in a process that measures nothing; each peer reads them with NumPy
alone, so that all start from the same bits.
"""

import dataclasses
import json
from pathlib import Path
from typing import Any, NamedTuple

from .settings import Setting

N_BATCHES = 64
N_STEPS = 10_000
"""The length of the learning rate's schedule; no benchmark gets there."""


class Workload(NamedTuple):
    """What a file holds; arrays are NumPy's."""

    setting: Setting
    params: dict[str, Any]  # by path, such as "blocks.0.attention.qkv"
    tokens: Any  # (N_BATCHES, B, T + 1) int32: inputs and, one further, targets
    rates: Any  # (N_STEPS,) float64, the learning rate of each update
    optimizer: dict[str, float]  # b1, b2, eps, weight_decay, max_grad_norm

    def take_params(self) -> dict[str, Any]:
        """Return the parameters and forget them, so that the first ones do not stay in memory."""
        params = dict(self.params)
        self.params.clear()
        return params

    def batch(self, step: int) -> tuple[Any, Any]:
        """Return inputs and targets (B, T) of an update."""
        tokens = self.tokens[step % len(self.tokens)]
        return tokens[:, :-1], tokens[:, 1:]


def write(setting: Setting, path: Path, *, gain: float = 1.0) -> Path:
    """Draw a workload and write it as .npz.

    Args:
        setting: the model and the batches.
        path: of the file.
        gain: multiplies the matrices of the blocks; more than 1 makes an untrained model say
            different things, where it would repeat itself.
    """
    import numpy as np

    from functional_lm import prng, pytree
    from functional_lm.models import transformer
    from functional_lm.training import TrainConfig

    training = TrainConfig(batch_size=setting.batch_size, seq_len=setting.seq_len)
    schedule = training.schedule(N_STEPS)
    shape = (N_BATCHES, setting.batch_size, setting.seq_len + 1)
    config = transformer.Config(**setting.model)
    optimizer = {
        "b1": 0.9,
        "b2": 0.99,
        "eps": 1e-8,
        "weight_decay": training.weight_decay,
        "max_grad_norm": training.max_grad_norm,
    }
    params = dict(pytree.leaves_with_path(transformer.init((0,), config=config)))
    np.savez(
        path,
        setting=json.dumps(dataclasses.asdict(setting)),
        optimizer=json.dumps(optimizer),
        tokens=prng.integers((1,), shape, low=0, high=setting.vocab_size).astype(np.int32),
        rates=np.array([schedule(step) for step in range(N_STEPS)]),
        **{
            f"params/{name}": leaf * np.float32(gain if leaf.ndim > 1 and "blocks" in name else 1)
            for name, leaf in params.items()
        },
    )
    return path


def read(path: str | Path) -> Workload:
    """Read what `write` wrote."""
    import numpy as np

    with np.load(path) as file:
        params = {
            name.removeprefix("params/"): file[name] for name in file if name.startswith("params/")
        }
        return Workload(
            setting=Setting(**json.loads(str(file["setting"]))),
            params=params,
            tokens=file["tokens"],
            rates=file["rates"],
            optimizer=json.loads(str(file["optimizer"])),
        )


def invent(setting: Setting, *, n_batches: int = 1) -> Workload:
    """Return a workload of random numbers, with NumPy alone, for programs that read no file."""
    import numpy as np

    rng = np.random.default_rng(0)
    D, F = setting.d_model, setting.d_ff
    sizes = {"embedding.weight": (setting.vocab_size, D), "norm.scale": (D,)}
    for i in range(setting.n_layers):
        sizes |= {
            f"blocks.{i}.norm1.scale": (D,),
            f"blocks.{i}.attention.qkv": (D, 3 * D),
            f"blocks.{i}.attention.out": (D, D),
            f"blocks.{i}.norm2.scale": (D,),
            f"blocks.{i}.mlp.gate_up": (2, D, F),
            f"blocks.{i}.mlp.down": (F, D),
        }
    shape = (n_batches, setting.batch_size, setting.seq_len + 1)
    return Workload(
        setting,
        {name: rng.standard_normal(size, np.float32) / D**0.5 for name, size in sizes.items()},
        rng.integers(setting.vocab_size, size=shape, dtype=np.int32),
        np.full(N_STEPS, 1e-3),
        {"b1": 0.9, "b2": 0.99, "eps": 1e-8, "weight_decay": 0.1, "max_grad_norm": 1.0},
    )
