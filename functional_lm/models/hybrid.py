"""A Llama whose parts can be exchanged: norms, feed-forward layers, mixers of positions.

With the defaults it is `llama`, parameter by parameter. Each setting changes one part, so that
parts can be compared in otherwise equal models.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, Literal, Self

from ..compose import bind
from ..contract import Layer, expect_choice, expect_fields, expect_int
from ..layers import gated, gelu, layer_norm, relu, relu_squared, rms_norm, silu, swiglu
from . import (
    llama,
    llama_decoder,
    mamba2,
    mlp,
    multi_latent_attention,
    parallel_block,
    self_attention,
    transformer,
)
from .transformer import Transformer
from .transformer_block import Block

__all__ = ["PRESETS", "Config", "architecture"]


Gated = Literal["swiglu", "geglu", "geglu_tanh", "reglu", "relu_squared_glu"]
Plain = Literal["silu", "gelu", "gelu_tanh", "relu", "relu_squared"]


@dataclasses.dataclass(frozen=True)
class Config(llama.Config):
    """The settings of a `llama`, and which parts it has. None means not given; see `resolved`.

    Attributes:
        norm: what normalises the input of each branch. "rms_norm_offset" multiplies by 1 + scale,
            as Gemma does.
        mlp: the activation of the feed-forward layers. Those that end in "glu" have a gate; "gelu"
            is exact, "gelu_tanh" approximate.
        mixer: what mixes positions: "attention"; "multi_latent_attention", whose keys and values
            come from one small vector for all heads; or "mamba2", a state space whose memory does
            not grow with the text.
        block: whether the feed-forward layer reads what the mixer wrote ("sequential"), or both
            read the same rows ("parallel").
        kv_rank: of multi-head latent attention: the size of the vector that keys and values come
            from. Default: d_model/4.
        q_rank: of multi-head latent attention: the size of such a vector for the queries. Default:
            none, one matrix makes them.
        rope_size: of multi-head latent attention: how much longer rotary positions make queries
            and keys, an even number. Default: about half of head_size.
        state_size: of mamba2: how many numbers the state has for each channel. Default: 32.
        expand: of mamba2: how many times wider than d_model it is inside. Default: 2.

    Raises:
        TypeError: for a setting of the wrong type.
        ValueError: for sizes that do not fit each other.
    """

    norm: Literal["rms_norm", "rms_norm_offset", "layer_norm", "layer_norm_without_bias"] = (
        "rms_norm"
    )
    mlp: Literal[Gated, Plain] = "swiglu"
    mixer: Literal["attention", "multi_latent_attention", "mamba2"] = "attention"
    block: Literal["sequential", "parallel"] = "sequential"
    kv_rank: int | None = None
    q_rank: int | None = None
    rope_size: int | None = None
    state_size: int | None = None
    expand: int | None = None

    def __post_init__(self) -> None:
        """Check every setting."""
        super().__post_init__()
        expect_fields(
            self,
            (expect_choice, "norm", {"choices": tuple(NORMS)}),
            (expect_choice, "mlp", {"choices": tuple(MLPS)}),
            (expect_choice, "mixer", {"choices": tuple(MIXERS)}),
            (expect_choice, "block", {"choices": tuple(BLOCKS)}),
            (expect_int, "kv_rank q_rank rope_size state_size expand", llama.SIZE),
        )
        if self.rope_size and self.rope_size % 2:
            raise ValueError(
                f"rope_size must be even: got {self.rope_size}; try {self.rope_size + 1}"
            )
        self._refuse_ignored()

    def _refuse_ignored(self) -> None:
        """Refuse a setting that the mixer does not read."""
        filled = {"n_kv_heads": self.n_heads, "head_size": self.d_model // self.n_heads}
        for field in dataclasses.fields(self):  # `resolved` fills in some
            mixers = READ_BY.get(field.name, (self.mixer,))
            value = getattr(self, field.name)
            if self.mixer not in mixers and value not in (field.default, filled.get(field.name)):
                raise ValueError(
                    f"{field.name} is a setting of {' and '.join(mixers)}: "
                    f"got {field.name}={value} with mixer={self.mixer!r}; leave it out"
                )

    def resolved(self) -> Self:
        """Return the config with a value for every setting that was not given."""
        c = super().resolved()
        if c.mixer == "mamba2":
            return dataclasses.replace(c, state_size=c.state_size or 32, expand=c.expand or 2)
        if c.mixer != "multi_latent_attention":
            return c
        return dataclasses.replace(
            c,
            kv_rank=max(c.d_model // 4, 1) if c.kv_rank is None else c.kv_rank,
            rope_size=(int(c.head_size or 2) + 2) // 4 * 2 if c.rope_size is None else c.rope_size,
        )


PRESETS = llama.PRESETS


def architecture(config: Config) -> Transformer:
    """Return the layers, initialised as those of a Llama are."""
    c = config.resolved()
    norm = _norm(c)
    block = BLOCKS[c.block](norm, MIXERS[c.mixer](c), _mlp(c))
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


BLOCKS: dict[str, Callable[[Layer, Layer, Layer], Any]] = {
    "sequential": lambda norm, mixer, mlp: Block(norm, mixer, norm, mlp),
    "parallel": parallel_block.Block,
}
NORMS: dict[str, tuple[Layer, dict[str, Any]]] = {
    "rms_norm": (rms_norm, {}),
    "rms_norm_offset": (rms_norm, {"offset": 1.0}),
    "layer_norm": (layer_norm, {}),
    "layer_norm_without_bias": (layer_norm, {"bias": False}),
}
EXACT, TANH = bind(gelu, approximate=False), bind(gelu, approximate=True)
MLPS = {
    "swiglu": (swiglu, True),
    "geglu": (bind(gated, activation=EXACT), True),
    "geglu_tanh": (bind(gated, activation=TANH), True),
    "reglu": (bind(gated, activation=relu), True),
    "relu_squared_glu": (bind(gated, activation=relu_squared), True),
    "silu": (silu, False),
    "gelu": (EXACT, False),
    "gelu_tanh": (TANH, False),
    "relu": (relu, False),
    "relu_squared": (relu_squared, False),
}
"""The activation of a feed-forward layer, and whether it has a gate."""


def _norm(c: Config) -> Layer:
    layer, settings = NORMS[c.norm]
    return bind(layer, d_model=c.d_model, eps=c.norm_eps, **settings)


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


def _multi_latent_attention(c: Config) -> Layer:
    norm = bind(rms_norm, eps=c.norm_eps)
    return bind(
        multi_latent_attention,
        d_model=c.d_model,
        n_heads=c.n_heads,
        kv_rank=c.kv_rank,
        q_rank=c.q_rank,
        rope_size=c.rope_size,
        head_size=c.head_size,
        rope_theta=c.rope_theta,
        rope_pairing=c.rope_pairing,
        attention=c.attention,
        q_norm=norm,
        kv_norm=norm,
        output_scale=_output_scale(c),
    )


def _mamba2(c: Config) -> Layer:
    return bind(
        mamba2,
        d_model=c.d_model,
        n_heads=c.n_heads,
        state_size=c.state_size,
        expand=c.expand,
        norm=bind(rms_norm, eps=c.norm_eps),
        output_scale=_output_scale(c),
    )


MIXERS = {
    "attention": _attention,
    "multi_latent_attention": _multi_latent_attention,
    "mamba2": _mamba2,
}
"""What makes each mixer from the settings."""

ATTENTION = ("attention", "multi_latent_attention")
READ_BY = {
    "n_kv_heads": ("attention",),
    "head_size": ATTENTION,
    "rope_theta": ATTENTION,
    "rope_pairing": ATTENTION,
    "attention": ATTENTION,
    "kv_rank": ("multi_latent_attention",),
    "q_rank": ("multi_latent_attention",),
    "rope_size": ("multi_latent_attention",),
    "state_size": ("mamba2",),
    "expand": ("mamba2",),
}
"""The mixers that read a setting; with any other it is refused."""


def _output_scale(c: Config) -> float:
    """Return the factor of the matrices that write to the residual stream, as in `llama`."""
    return (2 * c.n_layers) ** -0.5
