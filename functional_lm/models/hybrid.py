"""A Llama whose parts can be exchanged: norms, feed-forward layers, mixers of positions.

With the defaults it is `llama`, parameter by parameter. Each setting changes one part, so that
parts can be compared in otherwise equal models.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, Literal, Self

from ..compose import bind, serial
from ..contract import (
    Layer,
    expect_bool,
    expect_choice,
    expect_fields,
    expect_int,
    expect_number,
)
from ..heads import CAUSAL
from ..layers import (
    delta_gates,
    gated,
    gated_delta_rule,
    gelu,
    layer_norm,
    linear,
    linear_attention,
    relu,
    relu_squared,
    rms_norm,
    routed_experts,
    silu,
    swiglu,
    top_k_router,
    unembedding,
)
from ..losses import linear_cross_entropy
from . import llama, mixture_of_experts, mlp, parallel_block, transformer
from .mixers import (
    linear_mixer,
    mamba2,
    multi_latent_attention,
    self_attention,
    short_convolution,
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
        convolution: mix each input of a branch, channel by channel, with those before it: so many
            in all. Default: none.
        mlp: the activation of the feed-forward layers. Those that end in "glu" have a gate; "gelu"
            is exact, "gelu_tanh" approximate.
        mixer: what mixes positions: "attention"; "multi_latent_attention", whose keys and values
            come from a small vector that all heads share; or, with constant memory, "mamba2" (a
            state space), "linear_attention" or "gated_delta_rule". The keys of the last two have
            half of head_size.
        block: whether the feed-forward layer reads what the mixer wrote ("sequential"), or both
            read the same rows ("parallel").
        positions: how attention knows the order of tokens: queries and keys are rotated ("rotary"),
            distant keys score lower ("alibi"), or only by the causal mask ("none").
        rope_fraction: the share of each query and key that is rotated. Default: all.
        window: the tokens that attention sees, the current one included. Default: all so far.
        value_size: the size of a value. Default: head_size.
        qk_norm: normalise each query and each key.
        attention_sinks: let each head learn a score that takes weight away from the keys.
        attention_soft_cap: keep attention scores between -c and c, as c·tanh(scores/c).
        gated_attention: multiply the output of attention by a sigmoid gate.
        attention_dropout: the rate of dropout of attention weights.
        kv_rank: the size of the latent vector that keys and values come from, in multi-head latent
            attention. Default: d_model/4.
        q_rank: the same for queries. Default: one matrix makes them directly.
        rope_size: the rotated entries that multi-head latent attention adds to each query and key,
            an even number. Default: about half of head_size.
        state_size: the numbers in the state of each channel of mamba2. Default: 32.
        expand: the inner width of mamba2, in multiples of d_model. Default: 2.
        full_every: N gives every N-th block attention to the whole text, where the others have a
            window or a mixer of constant memory. Default: none.
        experts: E, the experts of each feed-forward layer. They divide d_ff so that a token takes
            as much arithmetic as in a dense model. Default: none, a dense model.
        experts_per_token: how many experts the router chooses for a token. Default: 2.
        shared_experts: how many more experts every token passes. Default: 0.
        balance_loss: the weight of the load-balancing loss in training. Default: 0.01.
        router_z_loss: the weight of the routers' z-loss in training. Default: 0.001.
        logit_soft_cap: keep the logits between -c and c, as c·tanh(logits/c).

    Raises:
        TypeError: for a setting of the wrong type.
        ValueError: for sizes that do not fit each other.
    """

    norm: Literal["rms_norm", "rms_norm_offset", "layer_norm", "layer_norm_without_bias"] = (
        "rms_norm"
    )
    convolution: int | None = None
    mlp: Literal[Gated, Plain] = "swiglu"
    mixer: Literal[
        "attention", "multi_latent_attention", "mamba2", "linear_attention", "gated_delta_rule"
    ] = "attention"
    block: Literal["sequential", "parallel"] = "sequential"
    positions: Literal["rotary", "alibi", "none"] = "rotary"
    rope_fraction: float | None = None
    window: int | None = None
    value_size: int | None = None
    qk_norm: bool = False
    attention_sinks: bool = False
    attention_soft_cap: float | None = None
    gated_attention: bool = False
    attention_dropout: float = 0.0
    kv_rank: int | None = None
    q_rank: int | None = None
    rope_size: int | None = None
    state_size: int | None = None
    expand: int | None = None
    full_every: int | None = None
    experts: int | None = None
    experts_per_token: int | None = None
    shared_experts: int | None = None
    balance_loss: float | None = None
    router_z_loss: float | None = None
    logit_soft_cap: float | None = None

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
            (expect_choice, "positions", {"choices": ("rotary", "alibi", "none")}),
            (expect_int, "window value_size", llama.SIZE),
            (expect_int, "convolution", {"minimum": 2, "maximum": 2**10}),
            (expect_number, "rope_fraction attention_dropout", {"low": 0.0, "high": 1.0}),
            (expect_number, "attention_soft_cap", {"low": 1e-30}),
            (expect_bool, "qk_norm attention_sinks gated_attention", {}),
            (expect_int, "full_every", {"minimum": 2, "maximum": self.n_layers}),
            (expect_int, "experts experts_per_token", {"maximum": 10_000}),
            (expect_int, "shared_experts", {"minimum": 0, "maximum": 10_000}),
            (expect_number, "balance_loss router_z_loss", {"low": 0.0}),
            (expect_number, "logit_soft_cap", {"low": 1e-30}),
        )
        if self.rope_fraction is not None and self.positions != "rotary":
            raise ValueError(
                "rope_fraction is a setting of rotary positions: got "
                f"positions={self.positions!r}; leave it out"
            )
        if self.rope_size and self.rope_size % 2:
            raise ValueError(
                f"rope_size must be even: got {self.rope_size}; try {self.rope_size + 1}"
            )
        self._refuse_ignored()
        if self.full_every and (self.mixer == "attention") != (self.window is not None):
            raise ValueError(
                "full_every needs attention with a window, or another mixer without one: got "
                f"mixer={self.mixer!r}, window={self.window}; change the window"
            )
        self._expect_experts()

    @property
    def rotates_heads(self) -> bool:
        """Whether whole queries and keys are rotated: then their size is even."""
        rotary = self.positions == "rotary" and self.rope_fraction is None
        return rotary and "attention" in self._mixers

    @property
    def _mixers(self) -> set[str]:
        with_attention = self.full_every and self.mixer in READ_BY["full_every"]
        return {self.mixer, *(["attention"] if with_attention else [])}

    def _refuse_ignored(self) -> None:
        """Refuse a setting that no mixer of the model reads."""
        used = self._mixers
        filled = {"n_kv_heads": self.n_heads, "head_size": self.d_model // self.n_heads}
        for field in dataclasses.fields(self):  # `resolved` fills in some
            mixers = READ_BY.get(field.name, (self.mixer,))
            value = getattr(self, field.name)
            if not used & {*mixers} and value not in (field.default, filled.get(field.name)):
                raise ValueError(
                    f"{field.name} is a setting of {' and '.join(mixers)}: "
                    f"got {field.name}={value} with mixer={self.mixer!r}; leave it out"
                )

    def resolved(self) -> Self:
        """Return the config with a value for every setting that was not given."""
        c = super().resolved()
        if c.experts is not None:
            c = dataclasses.replace(c, **c._of_experts)
        if c.mixer == "mamba2":
            return dataclasses.replace(c, state_size=c.state_size or 32, expand=c.expand or 2)
        if c.mixer != "multi_latent_attention":
            return c
        return dataclasses.replace(
            c,
            kv_rank=c.kv_rank or max(c.d_model // 4, 1),
            rope_size=c.rope_size or (int(c.head_size or 2) + 2) // 4 * 2,
        )

    def _expect_experts(self) -> None:
        """Check the settings of the experts, and refuse them if there are none."""
        if self.experts is None:
            for name in OF_EXPERTS:
                if getattr(self, name) is not None:
                    raise ValueError(
                        f"{name} is a setting of experts: got {getattr(self, name)} without any; "
                        "set experts=8, or leave it out"
                    )
        elif (k := self._of_experts["experts_per_token"]) > self.experts:
            raise ValueError(
                f"experts_per_token must be at most experts={self.experts}: got {k}; lower it"
            )

    @property
    def _of_experts(self) -> dict[str, Any]:
        return OF_EXPERTS | {n: v for n in OF_EXPERTS if (v := getattr(self, n)) is not None}


PRESETS = llama.PRESETS

OF_EXPERTS = {
    "experts_per_token": 2,
    "shared_experts": 0,
    "balance_loss": 0.01,
    "router_z_loss": 0.001,
}
"""The settings of a mixture of experts: two experts a token as in Mixtral (Jiang et al. 2024), the
weights of the losses as in the Switch Transformer and in ST-MoE; see `top_k_router`."""


def architecture(config: Config) -> Transformer:
    """Return the layers, initialised as those of a Llama are."""
    c = config.resolved()
    final = norm = _norm(c, d_model=c.d_model)
    if c.convolution is not None:
        taps = bind(short_convolution, d_model=c.d_model, width=c.convolution)
        norm = serial(norm=norm, convolution=taps)
    blocks = [BLOCKS[c.block](norm, MIXERS[c.mixer](c), _mlp(c))] * c.n_layers
    if c.full_every:
        full = BLOCKS[c.block](norm, _attention(c, None), _mlp(c))
        blocks[c.full_every - 1 :: c.full_every] = [full] * (c.n_layers // c.full_every)
    own = dataclasses.fields(Config)[len(dataclasses.fields(llama.Config)) :]
    is_llama = all(getattr(c, field.name) == field.default for field in own)
    model = transformer.build(
        c.vocab_size,
        c.d_model,
        int(c.max_seq_len or 0),
        tuple(blocks),
        final,
        dropout=c.dropout,
        tied=c.tie_embeddings,
        init_scale=c.init_scale,
        remat=c.remat,
        fast_decoder=llama.fast_decoder(c) if is_llama else None,
        boundary=c.boundary,
    )
    if c.logit_soft_cap is None:
        return model
    cap = {"soft_cap": c.logit_soft_cap}
    return model._replace(
        unembedding=bind(unembedding, vocab_size=c.vocab_size, d_model=c.d_model, **cap),
        loss=bind(linear_cross_entropy, **cap),
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


def _norm(c: Config, **size: int) -> Layer:
    layer, settings = NORMS[c.norm]
    return bind(layer, eps=c.norm_eps, **settings, **size)


def _mlp(c: Config) -> Layer:
    activation, gated = MLPS[c.mlp]
    same = {"gated": gated, "activation": activation, "output_scale": _output_scale(c)}
    if c.experts is None:
        return bind(mlp, d_model=c.d_model, d_ff=c.d_ff, **same)
    k, n_shared = c.experts_per_token or 0, c.shared_experts or 0
    size = max(1, round((c.d_ff or 0) / (k + n_shared)))
    losses = {"balance_loss": c.balance_loss, "z_loss": c.router_z_loss}
    shared = bind(mlp, d_model=c.d_model, d_ff=n_shared * size, **same) if n_shared else None
    return bind(
        mixture_of_experts,
        d_model=c.d_model,
        n_experts=c.experts,
        k=k,
        gate=bind(top_k_router, **losses),
        experts=bind(routed_experts, d_ff=size, **same),
        shared=shared,
    )


def _attention(c: Config, window: int | None) -> Layer:
    norm = _norm(c) if c.qk_norm else None
    pairs = int(c.head_size or 0) // 2
    return bind(
        self_attention,
        d_model=c.d_model,
        n_heads=c.n_heads,
        n_kv_heads=c.n_kv_heads,
        head_size=c.head_size,
        value_size=c.value_size,
        visibility=CAUSAL._replace(window=window),
        rope_theta=c.rope_theta if c.positions == "rotary" else None,
        rope_pairing=c.rope_pairing,
        rope_size=None if c.rope_fraction is None else 2 * max(round(c.rope_fraction * pairs), 1),
        alibi=c.positions == "alibi",
        sinks=c.attention_sinks,
        soft_cap=c.attention_soft_cap,
        attention_dropout=c.attention_dropout,
        attention=c.attention,
        q_norm=norm,
        k_norm=norm,
        gate=linear if c.gated_attention else None,
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
        visibility=CAUSAL._replace(window=c.window),
        rope_theta=c.rope_theta,
        rope_pairing=c.rope_pairing,
        sinks=c.attention_sinks,
        soft_cap=c.attention_soft_cap,
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


def _linear_mixer(c: Config, core: Layer, gates: Layer | None) -> Layer:
    size = int(c.head_size or 2)
    return bind(
        linear_mixer,
        d_model=c.d_model,
        n_heads=c.n_heads,
        key_size=size // 2,
        value_size=size,
        core=core,
        gates=gates,
        norm=bind(rms_norm, eps=c.norm_eps),
        output_scale=_output_scale(c),
    )


MIXERS: dict[str, Callable[[Config], Layer]] = {
    "attention": lambda c: _attention(c, c.window),
    "multi_latent_attention": _multi_latent_attention,
    "mamba2": _mamba2,
    "linear_attention": lambda c: _linear_mixer(c, linear_attention, None),
    "gated_delta_rule": lambda c: _linear_mixer(c, gated_delta_rule, delta_gates),
}
"""What makes each mixer from the settings."""

ATTENTION = ("attention", "multi_latent_attention")
LINEAR = ("linear_attention", "gated_delta_rule")
READ_BY = {
    "n_kv_heads": ("attention",),
    "head_size": (*ATTENTION, *LINEAR),
    "rope_theta": ATTENTION,
    "rope_pairing": ATTENTION,
    "positions": ("attention",),
    "rope_fraction": ("attention",),
    "window": ATTENTION,
    "value_size": ("attention",),
    "qk_norm": ("attention",),
    "attention_sinks": ATTENTION,
    "attention_soft_cap": ATTENTION,
    "gated_attention": ("attention",),
    "attention_dropout": ("attention",),
    "attention": ATTENTION,
    "kv_rank": ("multi_latent_attention",),
    "q_rank": ("multi_latent_attention",),
    "rope_size": ("multi_latent_attention",),
    "state_size": ("mamba2",),
    "expand": ("mamba2",),
    "full_every": ("attention", "mamba2", *LINEAR),
}
"""The mixers that read a setting; with any other it is refused."""


def _output_scale(c: Config) -> float:
    """Return the factor of the matrices that write to the residual stream, as in `llama`."""
    return (2 * c.n_layers) ** -0.5
