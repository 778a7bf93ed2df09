"""The models that are measured, and what the figures are to show."""

import dataclasses
from collections.abc import Iterable


@dataclasses.dataclass(frozen=True)
class Setting:
    """A model and a batch.

    Attributes:
        name: short, for tables and flags.
        d_model, n_layers, n_heads, d_ff, vocab_size: of the model.
        batch_size: B.
        seq_len: T, also the longest sequence of the model.
    """

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
        return {
            "vocab_size": self.vocab_size,
            "d_model": self.d_model,
            "n_layers": self.n_layers,
            "n_heads": self.n_heads,
            "d_ff": self.d_ff,
            "max_seq_len": self.seq_len,
        }


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

STEP_AIMS = {
    "tiny": {"jax": 0.50, "torch": 0.58, "peak": 0.48},
    "tiny-long": {"jax": 0.38, "torch": 0.58},
    "small": {"jax": 0.50, "torch": 0.58},
    "deep": {"jax": 0.48, "torch": 0.58, "peak": 0.70},
    "big-vocab": {"jax": 0.78, "torch": 0.58},
}
"""Time of a step over that of the better variant of a framework, at most; and the arithmetic of
the model over the peak of sgemm, at least."""


def pick(names: Iterable[str], known: Iterable[str], what: str) -> list[str]:
    """Return the names as a list.

    Raises:
        SystemExit: for one that is not known.
    """
    names, known = list(names), list(known)
    for name in names:
        if name not in known:
            raise SystemExit(f"unknown {what} {name!r}: choose from {', '.join(known)}")
    return names
