"""What all peers compute: models, batches and the optimizer's settings.

Each peer draws the workload itself, with NumPy alone and the same seed, so that all start from the
same bits and nothing of one library reaches another.
"""

import dataclasses
import time
from collections.abc import Callable
from typing import Any, NamedTuple

N_BATCHES = 64
OPTIMIZER = {"lr": 1e-3, "b1": 0.9, "b2": 0.99, "eps": 1e-8, "weight_decay": 0.1, "max_norm": 1.0}
"""AdamW after clipping by the global norm; matrices alone decay."""


@dataclasses.dataclass(frozen=True)
class Setting:
    """A Llama with tied embeddings, and its batch (B, T)."""

    name: str
    d_model: int
    n_layers: int
    n_heads: int
    d_ff: int
    batch_size: int
    seq_len: int
    vocab_size: int = 65

    @property
    def model(self) -> dict[str, int]:
        """The fields of the library's `Config`."""
        fields = dataclasses.asdict(self)
        del fields["name"], fields["batch_size"]
        fields["max_seq_len"] = fields.pop("seq_len")
        return fields

    @property
    def flops(self) -> int:
        """The arithmetic of a training step: three forwards."""
        D, F, L, T = self.d_model, self.d_ff, self.n_layers, self.seq_len
        matrices = self.vocab_size * D + L * (4 * D * D + 3 * D * F)
        return 3 * (2 * matrices + 4 * L * T * D) * self.batch_size * T


SETTINGS = {
    setting.name: setting
    for setting in (
        Setting("tiny", 128, 4, 4, 320, batch_size=16, seq_len=64),
        Setting("tiny-long", 128, 4, 4, 320, batch_size=8, seq_len=256),
        Setting("small", 256, 4, 8, 640, batch_size=16, seq_len=128),
        Setting("deep", 384, 6, 6, 960, batch_size=12, seq_len=256),
        Setting("big-vocab", 256, 4, 8, 640, batch_size=4, seq_len=256, vocab_size=50257),
    )
}


class Workload(NamedTuple):
    """A setting with its arrays."""

    setting: Setting
    params: dict[str, Any]  # float32, by path, such as "blocks.0.qkv"
    tokens: Any  # (N_BATCHES, B, T + 1) int32: inputs and, one further, targets

    def batch(self, step: int) -> tuple[Any, Any]:
        """Return inputs and targets (B, T) of an update."""
        tokens = self.tokens[step % len(self.tokens)]
        return tokens[:, :-1], tokens[:, 1:]


def draw(setting: dict[str, Any], gain: float = 1.0, trained: str | None = None) -> Workload:
    """Return the workload of a setting, given as its fields.

    Args:
        setting: the fields of a `Setting`.
        gain: multiplies the matrices of the blocks; with 2, an untrained model does not repeat
            one token.
        trained: an .npz file with parameters by path, and ``tokens``, in place of random ones.
    """
    import numpy as np

    one, rng = Setting(**setting), np.random.default_rng(0)
    if trained is not None:
        with np.load(trained) as file:
            arrays = dict(file)
        return Workload(one, arrays, arrays.pop("tokens"))
    D, F = one.d_model, one.d_ff
    sizes: dict[str, tuple[int, ...]] = {"embedding": (one.vocab_size, D)}
    for i in range(one.n_layers):
        matrices = {"qkv": (D, 3 * D), "out": (D, D), "gate_up": (D, 2 * F), "down": (F, D)}
        sizes |= {f"blocks.{i}.{name}": size for name, size in matrices.items()}
    params = {
        name: rng.standard_normal(size, np.float32)
        * np.float32(0.02 if name == "embedding" else gain * (2 / sum(size)) ** 0.5)
        for name, size in sizes.items()
    }
    norms = [f"blocks.{i}.norm{j}" for i in range(one.n_layers) for j in (1, 2)]
    params |= {name: np.ones(D, np.float32) for name in [*norms, "norm"]}
    shape = (N_BATCHES, one.batch_size, one.seq_len + 1)
    return Workload(one, params, rng.integers(one.vocab_size, size=shape, dtype=np.int32))


def timed(n: int, call: Callable[[], Any]) -> tuple[list[float], list[Any]]:
    """Return the seconds that each of n calls took, and what they returned."""
    seconds, values = [], []
    for _ in range(n):
        start = time.perf_counter()
        values.append(call())
        seconds.append(time.perf_counter() - start)
    return seconds, values


def resident() -> dict[str, float]:
    """Return the resident memory of this process and its peak, in MiB, by the kernel's count."""
    with open("/proc/self/status") as file:
        fields = dict(line.split(":", 1) for line in file)
    named = (("now", "VmRSS"), ("peak", "VmHWM"))
    return {name: int(fields[key].split()[0]) / 1024 for name, key in named}
