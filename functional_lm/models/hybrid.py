"""A Llama whose parts can be exchanged: norms, feed-forward layers, mixers of positions.

With the defaults it is `llama`, parameter by parameter. Each setting changes one part, so that
parts can be compared in otherwise equal models.
"""

import dataclasses
import functools
from typing import Literal

from ..compose import bind
from ..contract import Layer, expect_choice, expect_fields
from ..layers import gelu, layer_norm, rms_norm, swiglu
from . import llama, llama_decoder, mlp, self_attention, transformer
from .transformer import Transformer
from .transformer_block import Block

__all__ = ["PRESETS", "Config", "architecture"]


@dataclasses.dataclass(frozen=True)
class Config(llama.Config):
    """The settings of a `llama`, and which parts it has. None means not given; see `resolved`.

    Attributes:
        norm: what normalises the input of each branch: "rms_norm" or "layer_norm".
        mlp: the activation of the feed-forward layers: "swiglu", or "gelu" without a gate.
        mixer: what mixes positions: "attention".

    Raises:
        TypeError: for a setting of the wrong type.
        ValueError: for sizes that do not fit each other.
    """

    norm: Literal["rms_norm", "layer_norm"] = "rms_norm"
    mlp: Literal["swiglu", "gelu"] = "swiglu"
    mixer: Literal["attention"] = "attention"

    def __post_init__(self) -> None:
        """Check every setting."""
        super().__post_init__()
        expect_fields(
            self,
            (expect_choice, "norm", {"choices": tuple(NORMS)}),
            (expect_choice, "mlp", {"choices": tuple(MLPS)}),
            (expect_choice, "mixer", {"choices": tuple(MIXERS)}),
        )


PRESETS = llama.PRESETS


def architecture(config: Config) -> Transformer:
    """Return the layers, initialised as those of a Llama are."""
    c = config.resolved()
    norm = _norm(c)
    block = Block(norm, MIXERS[c.mixer](c), norm, _mlp(c))
    plain = {f.name: getattr(c, f.name) for f in dataclasses.fields(llama.Config)}
    is_llama = c == Config(**plain)
    return transformer.build(
        c.vocab_size,
        c.d_model,
        int(c.max_seq_len or 0),
        (block,) * c.n_layers,
        norm,
        dropout=c.dropout,
        tied=c.tie_embeddings,
        remat=c.remat,
        fast_decoder=functools.partial(llama_decoder.LlamaDecoder, config=c) if is_llama else None,
    )


NORMS = {"rms_norm": rms_norm, "layer_norm": layer_norm}
MLPS = {"swiglu": (swiglu, True), "gelu": (gelu, False)}
"""The activation of a feed-forward layer, and whether it has a gate."""


def _norm(c: Config) -> Layer:
    return bind(NORMS[c.norm], d_model=c.d_model, eps=c.norm_eps)


def _mlp(c: Config) -> Layer:
    activation, gated = MLPS[c.mlp]
    return bind(
        mlp,
        d_model=c.d_model,
        d_ff=c.d_ff,
        gated=gated,
        activation=activation,
        output_scale=_output_scale(c),
    )


def _attention(c: Config) -> Layer:
    return bind(
        self_attention,
        d_model=c.d_model,
        n_heads=c.n_heads,
        n_kv_heads=c.n_kv_heads,
        head_size=c.head_size,
        rope_theta=c.rope_theta,
        rope_pairing=c.rope_pairing,
        attention=c.attention,
        output_scale=_output_scale(c),
    )


MIXERS = {"attention": _attention}
"""What makes each mixer from the settings."""


def _output_scale(c: Config) -> float:
    """Return the factor of the matrices that write to the residual stream, as in `llama`."""
    return (2 * c.n_layers) ** -0.5
