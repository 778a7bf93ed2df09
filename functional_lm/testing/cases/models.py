"""Inputs for the models."""

import dataclasses
from types import SimpleNamespace
from typing import Any

import numpy as np

from ...contract import Stream, Tree
from .draws import BATCHES, HEADS, Cases, Draws, Inputs, Layers, Maker

__all__ = ["LAYERS"]

_SIZES = (24, 6, 2)  # D, H, G; K = 4


def _mlp(
    draw: Draws, m: Any, leading: Any, D: int, F: int, *, init: dict[str, Any] | None = None
) -> Inputs:
    sizes = {"d_model": D, "d_ff": F, **(init or {})}
    params = draw.near(m.init(draw.key(), **sizes, dtype=np.float64))
    return params, draw.normal(*leading, D), {}


def _mlp_cases(draw: Draws, make: Maker) -> Cases:
    from ...compose import bind
    from ...layers import linear, silu

    projections = {"up": bind(linear, bias=True), "down": _transposed()}
    plain = {**projections, "gated": False}
    return {
        **make.each(BATCHES, 6, 7),
        "a bias, not gated": make((2, 3), 6, 7, init=plain, activation=silu, **projections),
    }


def _transposed() -> Any:
    """Return a projection with a vjp of its own: its weight is (D_out, D_in), as in PyTorch."""
    from ...layers import linear, unembedding

    def init(key: Any, **sizes: Any) -> Tree:
        return {"weight": linear.init(key, **sizes)["weight"].T.copy()}

    twin = SimpleNamespace(forward=lambda params, x: x @ params["weight"].T)
    functions = {name: getattr(unembedding, name) for name in ("forward", "vjp", "jvp")}
    return SimpleNamespace(init=init, twin=twin, **functions)


def _short_convolution(draw: Draws, _: Any, leading: Any, D: int, *, W: int = 4) -> Inputs:
    return {"weight": draw.normal(W, D)}, draw.normal(*leading, D), {}


def _short_convolution_cases(draw: Draws, make: Maker) -> Cases:
    return {**make.each(BATCHES, 7), "long": make((2, 11), 5, W=3), "one tap": make((2, 3), 5, W=1)}


def _linear_mixer(
    draw: Draws, m: Any, leading: Any, D: int, H: int, K: int, *, others: Any = None
) -> Inputs:
    sizes = {"d_model": D, "n_heads": H, "key_size": K, "value_size": 3, **(others or {})}
    params = draw.near(m.init(draw.key(), **sizes, dtype=np.float64))
    return params, draw.normal(*leading, D), {"n_heads": H, "positions": np.arange(leading[-1])}


def _linear_mixer_cases(draw: Draws, make: Maker) -> Cases:
    from ...compose import bind
    from ...layers import causal_convolution, delta_gates, gated_delta_rule

    gates = {"gates": delta_gates}
    parts = {
        **gates,
        "convolution": bind(causal_convolution, width=3, bias=True),
        "out": _transposed(),
    }
    return {
        "linear attention": make((2, 5), 7, 3, 2),
        **make.each(
            {"delta rule": (2, 5), "T=1": (2, 1), "B=0": (0, 5)},
            7,
            3,
            2,
            others=gates,
            core=gated_delta_rule,
            **gates,
        ),
        "other parts, in chunks": make(
            (2, 7), 5, 2, 4, others=parts, core=bind(gated_delta_rule, chunk_size=3), **parts
        ),
    }


def _mamba2(
    draw: Draws, m: Any, leading: Any, D: int, H: int, G: int, *, others: Any = None
) -> Inputs:
    sizes = {"d_model": D, "n_heads": H, "n_groups": G, "state_size": 3, **(others or {})}
    params = draw.near(m.init(draw.key(), **sizes, dtype=np.float64))
    side = {"n_groups": G, "positions": np.arange(leading[-1])}
    return params, draw.normal(*leading, D), side


def _mamba2_cases(draw: Draws, make: Maker) -> Cases:
    from ...compose import bind
    from ...layers import causal_convolution, selective_scan

    parts = {
        "convolution": bind(causal_convolution, width=3, bias=True),
        "scan": bind(selective_scan, chunk_size=4),
        "out": _transposed(),
    }
    return {
        **make.each(HEADS, *_SIZES),
        "other parts, in chunks": make((2, 7), 6, 3, 1, others={**parts, "expand": 1}, **parts),
    }


def _self_attention(
    draw: Draws, m: Any, leading: Any, D: int, H: int, G: int, *, others: Any = None
) -> Inputs:
    side: dict[str, Any] = {"n_heads": H, "n_kv_heads": G}
    sizes = {**side, "d_model": D, **(others or {})}
    params = draw.near(m.init(draw.key(), **sizes, dtype=np.float64))
    return params, draw.normal(*leading, D), {**side, "positions": np.arange(leading[-1])}


def _self_attention_cases(draw: Draws, make: Maker) -> Cases:
    from ...compose import bind
    from ...layers import layer_norm, prefix, rms_norm

    def fronted(size: int, leading: Any, **settings: Any) -> Inputs:
        own = {"prefix": bind(prefix, size=size, n_kv_heads=2, key_size=4, value_size=3)}
        others = {"others": {**own, "value_size": 3}, "value_size": 3}
        return make(leading, *_SIZES, **own, **others, **settings)

    mask = draw.integers(2, 1, 1, 5, below=2) > 0
    padded = {"causal": True, "mask": mask, "rope_pairing": "half", "positions": np.arange(5) + 3}
    other = {"others": {"head_size": 2, "value_size": 3}, "value_size": 3}
    out, gate = {"out": _transposed()}, {"gate": _transposed()}
    one_norm = gate | {"k_norm": layer_norm}
    norms = {"q_norm": bind(rms_norm, eps=0.1), "k_norm": layer_norm}
    sinks = {"sinks": True}
    begins = np.array([[0, 0, 2, 3, 3], [0, 1, 1, 1, 1]])
    tiled = {"attention": "tiled", "causal": True, "window": 3}
    extras = {"soft_cap": 2.0, "rope_size": 2, "attention_dropout": 0.3, "key": (5,)}
    return {
        **make.each(HEADS, *_SIZES),
        "padding, half": make((2, 5), *_SIZES, **padded),
        "full, another projection": make(
            (2, 5), *_SIZES, causal=False, rope_theta=50.0, others=out, **out
        ),
        "tiled, padding, half": make((2, 5), *_SIZES, **padded, attention="tiled"),
        "tiled, several tiles": make((1, 131), *_SIZES, attention="tiled"),
        "window, not turned": make((2, 7), *_SIZES, causal=True, window=3, rope_theta=None),
        "heads of other sizes": make((2, 5), *_SIZES, **other),
        "norms": make((2, 5), *_SIZES, others=norms, **norms),
        "gate, one norm": make((2, 5), *_SIZES, others=one_norm, **one_norm),
        "everything": make((2, 5), *_SIZES, others=sinks | norms | gate, **norms, **gate, **extras),
        "everything, tiled": make(
            (2, 5),
            *_SIZES,
            others=sinks | norms | gate,
            **norms,
            **gate,
            **extras,
            attention="tiled",
        ),
        "alibi": make((2, 7), *_SIZES, rope_theta=None, alibi=True),
        "documents": make((2, 5), *_SIZES, begins=begins),
        "documents, tiled, window": make((2, 5), *_SIZES, begins=begins, **tiled),
        "documents, prefix": fronted(2, (2, 5), begins=begins),
        "prefix": fronted(5, (2, 3)),
        "prefix of one, T=1": fronted(1, (2, 1), soft_cap=2.0),
        "prefix, window, alibi": fronted(
            2, (2, 5), causal=True, window=2, rope_theta=None, alibi=True
        ),
        "prefix, padding, tiled": fronted(2, (2, 5), **padded, attention="tiled"),
        "prefix, B=0": fronted(2, (0, 5)),
    }


def _multi_latent_attention(
    draw: Draws, m: Any, leading: Any, D: int, H: int, *, others: Any = None
) -> Inputs:
    side: dict[str, Any] = {"n_heads": H, "rope_size": 2}
    sizes = {**side, "d_model": D, "kv_rank": 5, **(others or {})}
    params = draw.near(m.init(draw.key(), **sizes, dtype=np.float64))
    return params, draw.normal(*leading, D), {**side, "positions": np.arange(leading[-1])}


def _multi_latent_attention_cases(draw: Draws, make: Maker) -> Cases:
    heads = {"q_rank": 7, "head_size": 3, "value_size": 5, "rope_size": 4}
    low_rank = {"others": heads, "rope_size": 4, "q_rank": 7, "rope_pairing": "half"}
    mask = draw.integers(2, 1, 1, 5, below=2) > 0
    swapped = {name: _transposed() for name in ("q", "kv_down", "kv", "out")}
    return {
        **make.each({"H=3": (2, 5), "T=1": (2, 1), "B=0": (0, 5)}, 12, 3),
        "low-rank queries, other sizes": make((2, 5), 11, 3, **low_rank),
        "tiled, padding": make((2, 5), 12, 3, attention="tiled", causal=True, mask=mask),
        "documents": make((2, 3), 12, 3, begins=np.array([[0, 1, 1], [0, 0, 2]])),
        "sinks, soft cap": make((2, 5), 12, 3, others={"sinks": True}, soft_cap=2.0),
        "other projections": make((2, 3), 12, 3, others=swapped, rope_theta=50.0, **swapped),
    }


def _llama(vocabulary: int, D: int, H: int, G: int, F: int, L: int, settings: Any) -> Any:
    from ...models import llama

    sizes: dict[str, Any] = {"d_model": D, "n_heads": H, "n_kv_heads": G, "d_ff": F, "n_layers": L}
    return llama.architecture(llama.Config(vocabulary, **sizes, **(settings or {})))


class _Router:
    """A linear layer whose auxiliary loss is the mean square of its input."""

    @staticmethod
    def init(key: Any, *, dtype: Any) -> Tree:
        return _linear().init(key, d_in=24, d_out=24, dtype=dtype)

    @staticmethod
    def forward(params: Tree, x: Any) -> tuple[Stream, Any]:
        y, r_linear = _linear().forward(params, x)
        return Stream(y, (x * x).mean()), (r_linear, x)

    @staticmethod
    def vjp(residuals: Any, g: Stream) -> tuple[Tree, Any]:
        r_linear, x = residuals
        d_params, d_x = _linear().vjp(r_linear, g.x)
        return d_params, d_x + g.auxiliary * 2 * x / x.size

    @staticmethod
    def jvp(residuals: Any, t: Any) -> Stream:
        r_linear, x = residuals
        return Stream(_linear().jvp(r_linear, t), 2 * (x * t[1]).mean())

    class twin:
        @staticmethod
        def forward(params: Tree, x: Any) -> Stream:
            return Stream(x @ params["weight"], (x * x).mean())


def _linear() -> Any:
    from ...layers import linear

    return linear


def _transformer_block(
    draw: Draws, m: Any, leading: Any, *sizes: int, config: Any = None, mlp: Any = None
) -> Inputs:
    D, H, G, F = sizes
    (block,) = _llama(2, D, H, G, F, 1, config).blocks
    layers = {name: getattr(block, name) for name in ("mixer", "mlp", "dropout")}
    layers |= {name: block.norm1 for name in m.Block._fields if name.startswith("norm")}
    block = m.Block(**(layers | ({"mlp": mlp} if mlp else {})))
    params = draw.near(m.init(draw.key(), block=block, dtype=np.float64))
    return params, draw.normal(*leading, D), {"block": block, "positions": np.arange(leading[-1])}


def _transformer_block_cases(draw: Draws, make: Maker) -> Cases:
    dropout = {"dropout": 0.3, "norm_eps": 0.1}
    plain = make((2, 3), *_SIZES, 7, key=(5,))
    routed = make((2, 3), *_SIZES, 7, config={"dropout": 0.3}, mlp=_Router(), key=(5,))
    loss = np.asarray(draw.normal())
    return {
        **make.each(HEADS, *_SIZES, 7, key=(5,)),
        "dropout": make((2, 5), *_SIZES, 7, config=dropout, key=(5,)),
        "auxiliary loss before": (plain[0], Stream(plain[1], loss), plain[2]),
        "auxiliary losses": (routed[0], Stream(routed[1], loss), routed[2]),
    }


def _transformer(
    draw: Draws, m: Any, leading: Any, *sizes: int, config: Any = None, model: Any = None
) -> Inputs:
    D, H, G, F, V, L = sizes
    model = model or _llama(V, D, H, G, F, L, {"max_seq_len": leading[-1], **(config or {})})
    params = draw.near(m.init(draw.key(), model=model, dtype=np.float64))
    return params, draw.integers(*leading, below=V), {"model": model}


def _language_model(
    draw: Draws, m: Any, leading: Any, *sizes: int, config: Any = None, model: Any = None
) -> Inputs:
    params, tokens, side = _transformer(draw, m, leading, *sizes, config=config, model=model)
    return params, tokens, {**side, "targets": draw.integers(*leading, below=sizes[4])}


def _transformer_cases(draw: Draws, make: Maker) -> Cases:
    from ...compose import bind
    from ...layers import prompt
    from ...models import gpt2, parallel_block

    other = gpt2.Config(13, d_model=24, n_heads=6, d_ff=7, n_layers=2, max_seq_len=7, dropout=0.2)
    other = dataclasses.replace(other, attention_dropout=0.3)
    gpt = gpt2.architecture(other)
    first, second = gpt.blocks
    routed = gpt._replace(blocks=(first._replace(mlp=_Router()), second), remat=True)
    parallel = parallel_block.Block(first.norm1, first.mixer, _Router(), first.dropout)
    mixed = gpt._replace(blocks=(second, parallel))
    side_by_side = gpt._replace(blocks=(parallel,), boundary=2, vocab_size=13)
    prompted = gpt._replace(prompt=bind(prompt, size=3, d_model=24))
    others = {
        "documents": make((3, 5), *_SIZES, 7, 3, 1, config={"boundary": 1}, key=(7,)),
        "documents, GPT-2": make((3, 5), *_SIZES, 7, 13, 2, model=gpt._replace(boundary=3)),
        "blocks side by side, documents": make((2, 5), *_SIZES, 7, 3, 1, model=side_by_side),
        "GPT-2, no batch": make((5,), *_SIZES, 7, 13, 2, model=gpt, key=(7,)),
        "auxiliary loss, rematerialised": make((3, 5), *_SIZES, 7, 13, 2, model=routed, key=(7,)),
        "blocks of two kinds": make((2, 5), *_SIZES, 7, 13, 2, model=mixed, key=(7,)),
        "a prompt": make((3, 5), *_SIZES, 7, 13, 2, model=prompted, key=(7,)),
    }
    untied = {"tie_embeddings": False, "rope_pairing": "half"}
    tiled = {"attention": "tiled", "rope_theta": 50.0, "head_size": 6}
    return {
        "H=6 G=2": make((3, 5), *_SIZES, 7, 13, 2, key=(7,)),
        "T=1": make((3, 1), *_SIZES, 7, 13, 1, key=(7,)),
        "B=0": make((0, 5), *_SIZES, 7, 13, 1, key=(7,)),
        "untied, half": make((3, 5), *_SIZES, 7, 13, 1, config=untied, key=(7,)),
        "tiled": make((3, 5), *_SIZES, 7, 13, 1, config=tiled, key=(7,)),
        **others,
    }


def _language_model_cases(draw: Draws, make: Maker) -> Cases:
    cases = _transformer_cases(draw, make)
    shown = ("T=1", "tiled", "untied, half", "GPT-2, no batch", "blocks of two kinds", "a prompt")
    for inside in shown:  # by the transformer
        del cases[inside]
    params, tokens, side = cases["auxiliary loss, rematerialised"]
    alone = {**side, "auxiliary": False, "label_smoothing": 0.2, "z_loss": 0.1}
    return cases | {"smoothed, z, auxiliary loss left out": (params, tokens, alone)}


def _mixture(
    draw: Draws, m: Any, leading: Any, *sizes: int, k: int = 2, shared: bool = False
) -> Inputs:
    from ...compose import bind
    from ...layers import routed_experts, swiglu, top_k_router
    from ...models import mlp

    D, F, E = sizes
    layers: dict[str, Any] = {"experts": bind(routed_experts, d_ff=F, activation=swiglu)}
    if shared:
        layers["shared"] = bind(mlp, d_model=D, d_ff=F)
    params = m.init(draw.key(), d_model=D, n_experts=E, **layers, dtype=np.float64)
    gate = bind(top_k_router, balance_loss=0.7, z_loss=0.3)
    return draw.near(params), draw.normal(*leading, D), {"k": k, "gate": gate, **layers}


def _mixture_cases(draw: Draws, make: Maker) -> Cases:
    params, x, side = make((2, 3), 5, 3, 4)
    router = {"weight": params["router"]["weight"] * np.array([1.0, 0.0, 1.0, 0.0])}
    return {
        **make.each(BATCHES, 5, 3, 4),
        "k=1, shared": make((2, 3), 5, 3, 4, k=1, shared=True),
        "k=all": make((2, 3), 5, 3, 3, k=3),
        "ties": ({**params, "router": router}, x, side),
    }


LAYERS: Layers = {
    "language_model": ("D H G F V L", _language_model, _language_model_cases),
    "linear_mixer": ("D H K", _linear_mixer, _linear_mixer_cases),
    "mamba2": ("D H G", _mamba2, _mamba2_cases),
    "mixture_of_experts": ("D F E", _mixture, _mixture_cases),
    "mlp": ("D F", _mlp, _mlp_cases),
    "multi_latent_attention": ("D H", _multi_latent_attention, _multi_latent_attention_cases),
    "parallel_block": ("D H G F", _transformer_block, _transformer_block_cases),
    "self_attention": ("D H G", _self_attention, _self_attention_cases),
    "short_convolution": ("D", _short_convolution, _short_convolution_cases),
    "transformer": ("D H G F V L", _transformer, _transformer_cases),
    "transformer_block": ("D H G F", _transformer_block, _transformer_block_cases),
}
