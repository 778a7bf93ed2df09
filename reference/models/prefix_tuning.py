"""A mixer with learned rows in front, in JAX."""

import numpy as np

from ..layers.adapters import prefix


def forward(params, x, *, base, positions, key=None):
    """Return the outputs of the text's rows."""
    size = len(params["prefix"]["weight"])
    behind = np.concatenate([np.arange(size), positions + size])
    h = prefix.forward(params["prefix"], x)
    return base.forward(params["base"], h, positions=behind)[:, size:]
