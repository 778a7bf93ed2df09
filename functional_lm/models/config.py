"""The sizes and settings of a transformer, and presets of them by name."""

import dataclasses
from typing import Any

from ..contract import expect_bool, expect_choice, expect_int, expect_number
from ..rotation import PAIRINGS
from . import self_attention

MAX_PARAMETERS = 10**11
"""More than any machine of today can hold twice; a size beyond is a slip of the keyboard."""


@dataclasses.dataclass(frozen=True)
class Config:
    """The sizes and settings of a transformer.

    Settings not given are resolved at once, so `dataclasses.replace` keeps them: pass
    ``d_ff=None, n_kv_heads=None`` along with another ``d_model`` or ``n_heads``.

    Attributes:
        vocab_size: V, the number of tokens.
        d_model: D, the size of the residual path.
        n_heads: H, the query heads; a divisor of d_model, with an even head size d_model/n_heads.
        n_kv_heads: G, the key/value heads; a divisor of n_heads. Not given: n_heads.
        n_layers: the number of blocks.
        d_ff: F, the hidden size of the feed-forward layers. Not given: int(2.5·d_model).
        max_seq_len: the longest sequence that forward takes, in tokens.
        dropout: the rate of dropout after the embedding and on each residual branch.
        tie_embeddings: whether the unembedding is the embedding's weight.
        norm_eps: added to the mean square inside the root of each norm.
        rope_theta: the base of the rotary wavelengths.
        rope_pairing: "interleaved" or "half"; see `layers.rotary`.
        attention: "materialised" keeps the weights of all queries and keys for the backward pass;
            "tiled" computes them again there, so that memory does not grow with the square of the
            length, in about half as much time again; "auto" tiles above 1024 tokens.
        remat: keep no residuals inside of a block but its input, and run its forward again in the
            backward pass: less memory for a third more arithmetic.

    Raises:
        TypeError: for a setting of the wrong type.
        ValueError: for sizes that do not fit each other.
    """

    vocab_size: int
    d_model: int = 128
    n_heads: int = 4
    n_kv_heads: int | None = None
    n_layers: int = 4
    d_ff: int | None = None
    max_seq_len: int = 256
    dropout: float = 0.0
    tie_embeddings: bool = True
    norm_eps: float = 1e-6
    rope_theta: float = 10000.0
    rope_pairing: str = "interleaved"
    attention: str = "auto"
    remat: bool = False

    def __post_init__(self) -> None:
        """Check every setting and resolve those not given."""
        for name in ("vocab_size", "d_model", "n_heads", "n_layers", "max_seq_len"):
            self._set(name, expect_int(name, getattr(self, name)))
        n_kv_heads = self.n_heads if self.n_kv_heads is None else self.n_kv_heads
        self._set("n_kv_heads", expect_int("n_kv_heads", n_kv_heads))
        d_ff = int(2.5 * self.d_model) if self.d_ff is None else self.d_ff
        self._set("d_ff", expect_int("d_ff", d_ff))
        size = min(self.n_parameters, 10**300)  # which is still a float, to be printed
        if size > MAX_PARAMETERS:
            raise ValueError(
                f"a model must have at most {MAX_PARAMETERS:.0e} parameters: got {size:.1e}; "
                "lower n_layers, d_model or d_ff"
            )
        self_attention.expect_heads(self.d_model, self.n_heads, int(n_kv_heads))
        if self.d_model // self.n_heads % 2:
            raise ValueError(
                "the head size d_model/n_heads must be even for rotary positions: "
                f"got {self.d_model}/{self.n_heads}; halve n_heads or double d_model"
            )
        self._set("dropout", expect_number("dropout", self.dropout, low=0.0, high=1.0))
        self._set("norm_eps", expect_number("norm_eps", self.norm_eps, low=0.0))
        self._set("rope_theta", expect_number("rope_theta", self.rope_theta, low=1e-30))
        self._set("tie_embeddings", expect_bool("tie_embeddings", self.tie_embeddings))
        self._set("remat", expect_bool("remat", self.remat))
        expect_choice("rope_pairing", self.rope_pairing, PAIRINGS)
        expect_choice("attention", self.attention, self_attention.KINDS)

    @property
    def n_parameters(self) -> int:
        """The number of parameters of the transformer."""
        D, table = self.d_model, self.vocab_size * self.d_model
        keys_and_values = 2 * int(self.n_kv_heads or 0) * (D // self.n_heads)
        block = D * (2 * D + keys_and_values + 3 * int(self.d_ff or 0) + 2)
        return table * (1 if self.tie_embeddings else 2) + self.n_layers * block + D

    def _set(self, name: str, value: Any) -> None:
        object.__setattr__(self, name, value)


PRESETS: dict[str, dict[str, int]] = {
    "tiny": {"d_model": 128, "n_heads": 4, "n_layers": 4},
    "small": {"d_model": 256, "n_heads": 8, "n_layers": 4},
    "medium": {"d_model": 512, "n_heads": 8, "n_layers": 4},
}
"""Sizes by name, for ``Config(vocab_size=..., **PRESETS["tiny"])``: 0.76, 3.0 and 12.1 million
parameters at a vocabulary of 65."""
