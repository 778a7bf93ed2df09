"""Layers, models and parameters show themselves: in a terminal and in a notebook."""

import numpy as np
import pytest

from functional_lm import pytree
from functional_lm.compose import bind, freeze, remat, repeat, residual, serial
from functional_lm.layers import embedding, gelu, linear, rms_norm, silu
from functional_lm.models import build
from functional_lm.models.loading import of_config, resolve


class Mine:
    """A layer of one's own."""

    init = forward = vjp = staticmethod(lambda *args: None)


SKETCH = """\
serial
  embed  embedding
  think  serial
    0–2  residual serial
      norm  rms_norm(eps=0.001)
      up    linear(d_in=8, d_out=8)
      act   gelu
  mine   Mine"""

LLAMA = """\
llama, 6,176 parameters: transformer, up to 9 tokens, tied embeddings
  embedding    embedding(vocab_size=13, d_model=16)
  blocks.0–1   block
    norm1    rms_norm(d_model=16, eps=1e-06)
    mixer    self_attention(d_model=16, n_heads=2, n_kv_heads=2, head_size=8, rope_theta=10000, \
rope_pairing='interleaved', attention='auto', output_scale=0.5)
    norm2    rms_norm(d_model=16, eps=1e-06)
    mlp      mlp(d_model=16, d_ff=40, gated=True, activation=swiglu, output_scale=0.5)
    dropout  dropout(rate=0.5)
  norm         rms_norm(d_model=16, eps=1e-06)
  unembedding  unembedding(vocab_size=13, d_model=16)"""

SIZES = {"vocab_size": 13, "d_model": 16, "n_heads": 2, "n_layers": 2, "max_seq_len": 9}


def sketch(mine):
    block = serial(norm=bind(rms_norm, eps=1e-3), up=bind(linear, d_in=8, d_out=8), act=gelu)
    return serial(embed=embedding, think=repeat(residual(block), 3), mine=mine)


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (sketch(Mine), SKETCH),
        (sketch(Mine()), SKETCH),
        (build("llama", **SIZES, dropout=0.5), LLAMA),
        (bind(silu), "silu()"),
        (remat(silu), "remat silu"),
        (freeze(linear, {"weight": np.ones(1)}, lambda path: False), "frozen linear"),
        (bind(rms_norm, eps=np.ones((2, 3))), "rms_norm(eps=array (2, 3))"),
        (of_config(*resolve(serial(linear)), SIZES), "Serial: serial\n  0  linear()"),
        (
            of_config(*resolve(serial(a=embedding)), SIZES),
            "Serial, 208 parameters: serial\n  a  embedding(vocab_size=13, d_model=16)",
        ),
    ],
)
def test_a_layer_is_a_short_tree(value, shown):
    assert repr(value) == shown


def test_a_model_and_its_parameters_show_themselves_in_a_notebook():
    model = build("llama", **SIZES)
    assert model._repr_html_().startswith("<pre>llama, 6,176 parameters: transformer, up to 9")
    assert "rope_pairing=&#x27;interleaved&#x27;" in model.model._repr_html_()
    table = pytree.summary(model.init((0,)))
    assert "<tr><td>norm.scale</td><td>(16,)</td><td>float32</td><td>16</td></tr>" in (
        table._repr_html_()
    )
    assert "<b>" not in pytree.summary({"<b>": np.ones(1)})._repr_html_()
    assert repr(table).splitlines()[-1].split() == ["total", "6,176"]


def test_a_summary_of_nothing():
    assert repr(pytree.summary({"a": None})).split() == ["total", "0"]
