"""Llama (Touvron et al. 2023): RMS norms, rotary positions, grouped key/value heads, SwiGLU.

No biases. Unlike Llama, embeddings are tied by default.
"""

import dataclasses
import functools
from typing import Any, Literal, Self

from ..compose import bind
from ..contract import expect_bool, expect_choice, expect_fields, expect_int, expect_number
from ..heads import head_sizes
from ..layers import rms_norm, swiglu
from ..rotation import PAIRINGS
from . import llama_decoder, mlp, transformer
from .mixers import self_attention
from .transformer import Transformer
from .transformer_block import Block

__all__ = ["PRESETS", "SIZE", "Config", "architecture", "fast_decoder"]


@dataclasses.dataclass(frozen=True)
class Config:
    """The sizes and settings of a Llama. None means not given; see `resolved`.

    Attributes:
        vocab_size: V, the number of tokens.
        d_model: D, the size of the residual stream.
        n_heads: H, the query heads.
        n_kv_heads: G, the key/value heads, a divisor of n_heads. Default: n_heads.
        head_size: K, the size of a head, even where all of it is rotated. Default: d_model/n_heads.
        n_layers: the number of blocks.
        d_ff: F, the hidden size of the feed-forward layers. Default: int(2.5·d_model).
        max_seq_len: the longest sequence that the model takes, in tokens. Default: that of
            training, or 256.
        dropout: the rate of dropout after the embedding and on each residual branch.
        tie_embeddings: use the embedding's weight as the unembedding.
        norm_eps: added to the mean square inside the root of each norm.
        rope_theta: the base of the rotary wavelengths.
        rope_pairing: which entries of a head rotate together: neighbours ("interleaved"), or those
            half a head apart ("half").
        attention: "materialised" keeps all attention weights for the backward pass; "tiled"
            recomputes them there, at half as much time again, so that memory does not grow with
            the square of the length; "auto" tiles above 1024 tokens.
        init_scale: draw the matrices of each block from N(0, s²/d_in). Default: from
            N(0, 2/(d_in + d_out)).
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
    n_kv_heads: int | None = None
    head_size: int | None = None
    n_layers: int = 4
    d_ff: int | None = None
    max_seq_len: int | None = None
    dropout: float = 0.0
    tie_embeddings: bool = True
    norm_eps: float = 1e-6
    rope_theta: float = 10000.0
    rope_pairing: Literal["interleaved", "half"] = "interleaved"
    attention: Literal["auto", "materialised", "tiled"] = "auto"
    init_scale: float | None = None
    remat: bool = False
    boundary: int | None = None

    def __post_init__(self) -> None:
        """Check every setting."""
        expect_fields(
            self,
            (expect_int, "vocab_size d_model n_heads n_kv_heads head_size d_ff max_seq_len", SIZE),
            (expect_int, "n_layers", {"maximum": 10_000}),
            (expect_int, "boundary", {"minimum": 0, "maximum": self.vocab_size - 1}),
            (expect_number, "dropout", {"low": 0.0, "high": 1.0}),
            (expect_number, "norm_eps", {"low": 0.0}),
            (expect_number, "rope_theta init_scale", {"low": 1e-30}),
            (expect_bool, "tie_embeddings remat", {}),
            (expect_choice, "rope_pairing", {"choices": PAIRINGS}),
            (expect_choice, "attention", {"choices": self_attention.KINDS}),
        )
        _, _, K, _ = head_sizes(self.d_model, self.n_heads, self.n_kv_heads, self.head_size)
        if K % 2 and self.rotates_heads:
            raise ValueError(
                "the head size d_model/n_heads must be even for rotary positions: "
                f"got {K}; halve n_heads, double d_model, or give head_size"
            )

    @property
    def rotates_heads(self) -> bool:
        """Whether whole queries and keys are rotated: then their size is even."""
        return True

    def resolved(self) -> Self:
        """Return the config with a value for every setting that was not given."""
        _, G, K, _ = head_sizes(self.d_model, self.n_heads, self.n_kv_heads, self.head_size)
        return dataclasses.replace(
            self,
            n_kv_heads=G,
            head_size=K,
            d_ff=int(2.5 * self.d_model) if self.d_ff is None else self.d_ff,
            max_seq_len=256 if self.max_seq_len is None else self.max_seq_len,
        )


SIZE = {"maximum": 2**24}
"""The limit of each size; a larger one is a slip of the keyboard."""

PRESETS: dict[str, dict[str, int]] = {
    "tiny": {"d_model": 128, "n_heads": 4, "n_layers": 4},
    "small": {"d_model": 256, "n_heads": 8, "n_layers": 4},
    "medium": {"d_model": 512, "n_heads": 8, "n_layers": 4},
}
"""Sizes by name, for ``Config(vocab_size=..., **PRESETS["tiny"])``: 0.76, 3.0 and 12.1 million
parameters at a vocabulary of 65."""


def fast_decoder(config: Config) -> Any:
    """Return what makes the quick decoder of a Llama; None for one that keeps documents apart."""
    if config.boundary is not None:
        return None
    return functools.partial(llama_decoder.LlamaDecoder, config=config)


def architecture(config: Config) -> Transformer:
    """Return the layers of a Llama.

    Embeddings come from N(0, 0.02²), each matrix from N(0, 2/(d_in + d_out)), or from N(0, s²/d_in)
    with an ``init_scale`` s. The two matrices of a block that write to the residual stream are
    scaled by 1/√(2·n_layers), so that the variance there does not grow with depth (Radford et al.
    2019, section 2.3).
    """
    c = config.resolved()
    norm = bind(rms_norm, d_model=c.d_model, eps=c.norm_eps)
    output_scale = (2 * c.n_layers) ** -0.5
    block = Block(
        norm,
        bind(
            self_attention,
            d_model=c.d_model,
            n_heads=c.n_heads,
            n_kv_heads=c.n_kv_heads,
            head_size=c.head_size,
            rope_theta=c.rope_theta,
            rope_pairing=c.rope_pairing,
            attention=c.attention,
            output_scale=output_scale,
        ),
        norm,
        bind(
            mlp,
            d_model=c.d_model,
            d_ff=c.d_ff,
            gated=True,
            activation=swiglu,
            output_scale=output_scale,
        ),
    )
    return transformer.build(
        c.vocab_size,
        c.d_model,
        int(c.max_seq_len or 0),
        (block,) * c.n_layers,
        norm,
        dropout=c.dropout,
        tied=c.tie_embeddings,
        init_scale=c.init_scale,
        remat=c.remat,
        fast_decoder=fast_decoder(c),
        boundary=c.boundary,
    )
