"""A pre-norm transformer block in JAX."""

from ..layers import dropout as dropout_layer
from ..layers import rms_norm, swiglu
from . import self_attention


def forward(params, x, *, norm_eps=1e-6, dropout=0.0, key=None, **attention_settings):
    """Return x + attention(norm(x)), then x + feed-forward(norm(x)), each branch with dropout."""
    keys = (None, None) if key is None else ((*key, 0), (*key, 1))
    h = rms_norm.forward(params["norm1"], x, eps=norm_eps)
    a = self_attention.forward(params["attention"], h, **attention_settings)
    x = x + dropout_layer.forward({}, a, rate=dropout, key=keys[0])
    h = rms_norm.forward(params["norm2"], x, eps=norm_eps)
    return x + dropout_layer.forward(
        {}, swiglu.forward(params["mlp"], h), rate=dropout, key=keys[1]
    )
