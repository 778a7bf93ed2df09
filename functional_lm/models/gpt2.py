"""GPT-2 (Radford et al. 2019): layer norms, learned positions, a GELU, biases everywhere.

The tanh form of GELU; embeddings are tied.
"""

import dataclasses
from typing import Literal

from ..compose import bind
from ..contract import expect_bool, expect_choice, expect_fields, expect_int, expect_number
from ..heads import head_sizes
from ..layers import gelu, layer_norm, learned_positions, linear
from . import mlp, transformer
from .mixers import self_attention
from .transformer import Transformer
from .transformer_block import Block

__all__ = ["PRESETS", "Config", "architecture"]


@dataclasses.dataclass(frozen=True)
class Config:
    """The sizes and settings of a GPT-2. None means not given; see `resolved`.

    Attributes:
        vocab_size: V, the number of tokens.
        d_model: D, the size of the residual stream.
        n_heads: H, a divisor of d_model.
        n_layers: the number of blocks.
        d_ff: F, the hidden size of the feed-forward layers. Default: 4·d_model.
        max_seq_len: the longest sequence that the model takes, in tokens; each position has a
            vector of its own. Default: that of training, or 256.
        dropout: the rate of dropout after the embedding and on each residual branch.
        attention_dropout: the rate of dropout of attention weights.
        norm_eps: added to the variance inside the root of each norm.
        attention: "materialised", "tiled" (less memory, more time) or "auto", which tiles above
            1024 tokens.
        remat: keep only the input of each block and rerun it in the backward pass: less memory for
            a third more arithmetic.
        boundary: the token that begins a document, which then sees none before it; see
            ``isolate_documents`` of training. Default: none does.

    Raises:
        TypeError: for a setting of the wrong type.
        ValueError: for sizes that do not fit each other.
    """

    vocab_size: int
    d_model: int = 128
    n_heads: int = 4
    n_layers: int = 4
    d_ff: int | None = None
    max_seq_len: int | None = None
    dropout: float = 0.0
    attention_dropout: float = 0.0
    norm_eps: float = 1e-5
    attention: Literal["auto", "materialised", "tiled"] = "auto"
    remat: bool = False
    boundary: int | None = None

    def __post_init__(self) -> None:
        """Check every setting."""
        expect_fields(
            self,
            (expect_int, "vocab_size d_model n_heads d_ff max_seq_len", {"maximum": 2**24}),
            (expect_int, "n_layers", {"maximum": 10_000}),
            (expect_int, "boundary", {"minimum": 0, "maximum": self.vocab_size - 1}),
            (expect_number, "dropout attention_dropout", {"low": 0.0, "high": 1.0}),
            (expect_number, "norm_eps", {"low": 0.0}),
            (expect_bool, "remat", {}),
            (expect_choice, "attention", {"choices": self_attention.KINDS}),
        )
        head_sizes(self.d_model, self.n_heads)

    def resolved(self) -> "Config":
        """Return the config with a value for every setting that was not given."""
        return dataclasses.replace(
            self,
            d_ff=4 * self.d_model if self.d_ff is None else self.d_ff,
            max_seq_len=256 if self.max_seq_len is None else self.max_seq_len,
        )


PRESETS: dict[str, dict[str, int]] = {
    "tiny": {"d_model": 128, "n_heads": 4, "n_layers": 4},
    "small": {"d_model": 256, "n_heads": 8, "n_layers": 4},
    "medium": {"d_model": 512, "n_heads": 8, "n_layers": 4},
    "gpt2": {"d_model": 768, "n_heads": 12, "n_layers": 12, "max_seq_len": 1024},
}
"""Sizes by name; "gpt2" is the smallest of the paper, 124 million parameters with its vocabulary
of 50257."""


def architecture(config: Config) -> Transformer:
    """Return the layers of a GPT-2, initialised as those of a Llama are."""
    c = config.resolved()
    norm = bind(layer_norm, d_model=c.d_model, eps=c.norm_eps)
    projection = bind(linear, bias=True)
    output_scale = (2 * c.n_layers) ** -0.5
    block = Block(
        norm,
        bind(
            self_attention,
            d_model=c.d_model,
            n_heads=c.n_heads,
            rope_theta=None,
            attention_dropout=c.attention_dropout,
            attention=c.attention,
            output_scale=output_scale,
            qkv=projection,
            out=projection,
        ),
        norm,
        bind(
            mlp,
            d_model=c.d_model,
            d_ff=c.d_ff,
            gated=False,
            activation=bind(gelu, approximate=True),
            output_scale=output_scale,
            up=projection,
            down=projection,
        ),
    )
    return transformer.build(
        c.vocab_size,
        c.d_model,
        int(c.max_seq_len or 0),
        (block,) * c.n_layers,
        norm,
        dropout=c.dropout,
        positions=bind(learned_positions, max_seq_len=c.max_seq_len, d_model=c.d_model),
        remat=c.remat,
        boundary=c.boundary,
    )
