"""Inputs for the layers of `functional_lm.layers.adapters`."""

from typing import Any

from .draws import BATCHES, HEADS, ROWS, Cases, Draws, Inputs, Layers, Maker

__all__ = ["LAYERS"]


def _thin(
    draw: Draws,
    m: Any,
    leading: Any,
    D_in: int,
    D_out: int,
    R: int,
    *,
    bias: bool = False,
    columns: Any = None,
) -> Inputs:
    from ...compose import bind
    from ...layers import linear

    base = bind(linear, bias=bias)
    sizes: dict[str, Any] = {"d_in": D_in, "d_out": D_out, "rank": R, "columns": columns}
    params = draw.near(m.init(draw.key(), base=base, **sizes, dtype="float64"))
    return params, draw.normal(*leading, D_in), {"base": base, "alpha": 3.0, "columns": columns}


def _thin_cases(draw: Draws, make: Maker) -> Cases:
    return {
        **make.each(ROWS, 5, 7, 2),
        "dropout": make((2, 3), 5, 7, 2, rate=0.3, key=(5, 3)),
        "two ranges, dropout, bias, rsLoRA": make(
            *((2, 13), 5, 11, 2),
            bias=True,
            columns=((7, 11), (0, 2)),
            rslora=True,
            rate=0.3,
            key=(5,),
        ),
        "rank 1, many rows": make((331,), 3, 2, 1),
    }


def _dora_cases(draw: Draws, make: Maker) -> Cases:
    cases = _thin_cases(draw, make)
    params, x, side = cases["primes"]
    params = {**params, "magnitude": params["magnitude"] * ([0.0] + [1.0] * 6)}
    return cases | {"a magnitude of zero": (params, x, side)}


def _bottleneck(
    draw: Draws, m: Any, leading: Any, D_in: int, D_out: int, R: int, *, bias: bool = False
) -> Inputs:
    from ...compose import bind
    from ...layers import linear

    base = bind(linear, bias=bias)
    params = m.init(draw.key(), base=base, d_in=D_in, d_out=D_out, size=R, dtype="float64")
    return draw.near(params), draw.normal(*leading, D_in), {"base": base}


def _bottleneck_cases(draw: Draws, make: Maker) -> Cases:
    return {**make.each(ROWS, 5, 7, 3), "bias, many rows": make((331,), 5, 7, 2, bias=True)}


def _prefix(draw: Draws, m: Any, leading: Any, H: int, G: int, K: int, P: int) -> Inputs:
    sizes = {"size": P, "n_kv_heads": G, "key_size": K, "value_size": K + 1}
    x = (draw.normal(*leading, *size) for size in ((H, K), (G, K), (G, K + 1)))
    return m.init(draw.key(), **sizes, dtype="float64"), m.QKV(*x), {}


def _prefix_cases(draw: Draws, make: Maker) -> Cases:
    return make.each(HEADS, 6, 2, 4, 5) | {"P=1": make((3, 2), 2, 2, 3, 1)}


def _prompt(draw: Draws, _: Any, leading: Any, D: int, P: int) -> Inputs:
    return {"weight": draw.normal(P, D)}, draw.normal(*leading, D), {}


def _prompt_cases(draw: Draws, make: Maker) -> Cases:
    return make.each(BATCHES, 7, 5) | {"one row": make((3, 2), 7, 1)}


LAYERS: Layers = {
    "bottleneck": ("D_in D_out R", _bottleneck, _bottleneck_cases),
    "dora": ("D_in D_out R", _thin, _dora_cases),
    "lora": ("D_in D_out R", _thin, _thin_cases),
    "prefix": ("H G K P", _prefix, _prefix_cases),
    "prompt": ("D P", _prompt, _prompt_cases),
}
