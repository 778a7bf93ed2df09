"""The cases of the models."""

from typing import Any

import numpy as np

from ...contract import Stream, Tree
from .draws import Draws, Inputs

_SIZES: dict[str, Any] = {"d_model": 24, "n_heads": 6, "n_kv_heads": 2}  # K = 4


def _self_attention(draw: Draws, module: Any) -> Inputs:
    def made(**sizes: Any) -> Tree:
        return draw.near(module.init(draw.key(), **_SIZES, **sizes, dtype=np.float64))

    def side(T: int, **settings: Any) -> dict[str, Any]:
        return {"n_heads": 6, "n_kv_heads": 2, "positions": np.arange(T), **settings}

    params = made()
    for label, (B, T) in {"H=6 G=2": (2, 5), "T=1": (2, 1), "B=0": (0, 5)}.items():
        yield label, params, draw.normal(B, T, 24), side(T)
    mask = draw.integers(2, 1, 1, 5, below=2) > 0
    padded = side(5, visibility=module.CAUSAL._replace(mask=mask), rope_pairing="half")
    padded["positions"] = np.arange(5) + 3
    yield "padding, half", params, draw.normal(2, 5, 24), padded
    yield (
        "full",
        params,
        draw.normal(2, 5, 24),
        side(5, visibility=module.Visibility(), rope_theta=50.0),
    )
    yield "tiled, padding, half", params, draw.normal(2, 5, 24), padded | {"attention": "tiled"}
    yield "tiled, several tiles", params, draw.normal(1, 131, 24), side(131, attention="tiled")
    window = module.Visibility(causal=True, window=3)
    yield (
        "window, not turned",
        params,
        draw.normal(2, 7, 24),
        side(7, visibility=window, rope_theta=None),
    )
    other = side(5, value_size=3)
    yield "heads of other sizes", made(head_size=2, value_size=3), draw.normal(2, 5, 24), other
    yield (
        "tiled, heads of other sizes",
        made(head_size=2, value_size=3),
        draw.normal(2, 5, 24),
        other | {"attention": "tiled"},
    )


def _mlp(draw: Draws, module: Any) -> Inputs:
    from ...compose import bind
    from ...layers import linear, silu

    gated = draw.near(module.init(draw.key(), d_model=6, d_ff=7, dtype=np.float64))
    for label, leading in {"primes": (2, 3), "T=1": (2, 1), "B=0": (0, 3)}.items():
        yield label, gated, draw.normal(*leading, 6), {}
    biased = bind(linear, bias=True)
    sizes: dict[str, Any] = {"d_model": 6, "d_ff": 7, "gated": False, "up": biased, "down": biased}
    plain = draw.near(module.init(draw.key(), **sizes, dtype=np.float64))
    yield (
        "biases, not gated",
        plain,
        draw.normal(2, 3, 6),
        {
            "activation": silu,
            "up": biased,
            "down": biased,
        },
    )


def _block(module: Any, *, dropout: float = 0.0, eps: float = 1e-6, mlp: Any = None) -> Any:
    """Return a block that says nothing twice: every member has settings of its own."""
    from ... import layers, models
    from ...compose import bind

    return module.Block(
        bind(layers.rms_norm, d_model=24, eps=eps),
        bind(models.self_attention, **_SIZES),
        bind(layers.rms_norm, d_model=24, eps=eps),
        mlp or bind(models.mlp, d_model=24, d_ff=7),
        bind(layers.dropout, rate=dropout),
    )


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

    class twin:
        @staticmethod
        def forward(params: Tree, x: Any) -> Stream:
            return Stream(x @ params["weight"], (x * x).mean())


def _linear() -> Any:
    from ...layers import linear

    return linear


def _transformer_block(draw: Draws, module: Any) -> Inputs:
    plain, routed = _block(module), _block(module, dropout=0.3, mlp=_Router())
    loss = draw.normal()
    for label, (B, T), block, auxiliary in (
        ("H=6 G=2", (2, 5), plain, None),
        ("T=1", (2, 1), plain, None),
        ("B=0", (0, 5), plain, None),
        ("dropout", (2, 5), _block(module, dropout=0.3, eps=0.1), None),
        ("auxiliary loss before", (2, 3), plain, loss),
        ("auxiliary loss within", (2, 3), routed, None),
        ("auxiliary losses", (2, 3), routed, loss),
    ):
        params = draw.near(module.init(draw.key(), block=block, dtype=np.float64))
        side = {"block": block, "positions": np.arange(T), "key": (5,)}
        x = draw.normal(B, T, 24)
        yield label, params, x if auxiliary is None else Stream(x, np.asarray(auxiliary)), side


def _transformer(draw: Draws, module: Any) -> Inputs:
    from ...models import gpt2, llama

    for label, shape, settings in (
        ("H=6 G=2", (3, 5), {}),
        ("T=1", (3, 1), {}),
        ("B=0", (0, 5), {}),
        ("untied, half", (3, 5), {"tie_embeddings": False, "rope_pairing": "half"}),
        ("dropout", (3, 5), {"dropout": 0.2, "norm_eps": 0.1}),
        ("rematerialised", (3, 5), {"dropout": 0.2, "remat": True}),
        ("tiled", (3, 5), {"attention": "tiled", "rope_theta": 50.0, "head_size": 6}),
    ):
        config = llama.Config(13, **_SIZES, d_ff=7, n_layers=2, max_seq_len=5, **settings)
        yield label, *_drawn(draw, module, shape, llama.architecture(config))
    sizes = gpt2.Config(13, d_model=24, n_heads=6, d_ff=7, n_layers=2, max_seq_len=7, dropout=0.2)
    model = gpt2.architecture(sizes)
    yield "GPT-2, no batch", *_drawn(draw, module, (5,), model)
    first, second = model.blocks
    routed = model._replace(blocks=(first._replace(mlp=_Router()), second), remat=True)
    yield "auxiliary loss, rematerialised", *_drawn(draw, module, (3, 5), routed)


def _drawn(
    draw: Draws, module: Any, shape: tuple[int, ...], model: Any
) -> tuple[Tree, Any, dict[str, Any]]:
    params = draw.near(module.init(draw.key(), model=model, dtype=np.float64))
    return params, draw.integers(*shape, below=13), {"model": model, "key": (7,)}


def _language_model(draw: Draws, module: Any) -> Inputs:
    for label, params, tokens, side in _transformer(draw, module):
        targets = draw.integers(*tokens.shape, below=13)
        yield label, params, tokens, {**side, "targets": targets}


CASES = {
    "language_model": _language_model,
    "mlp": _mlp,
    "self_attention": _self_attention,
    "transformer": _transformer,
    "transformer_block": _transformer_block,
}
