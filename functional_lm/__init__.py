"""A transformer language model in NumPy with every gradient written by hand.

The parts, each imported when first used::

    functional_lm.layers      single layers: ``forward`` and its hand-derived ``vjp``
    functional_lm.losses      scalar outputs under the same contract
    functional_lm.models      the wiring: self_attention, transformer_block, transformer
    functional_lm.optimizers  pure ``(init, update)`` pairs and schedules
    functional_lm.testing     the checker that certifies a ``vjp`` numerically against ``jax.vjp``
    functional_lm.value_and_grad(layer, params, x, **side) -> (loss, d_params)

`import functional_lm` by itself loads nothing, not even NumPy, and never jax.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from . import (
        compose,
        contract,
        generation,
        gradient,
        heads,
        health,
        layers,
        losses,
        models,
        numerics,
        optimizers,
        prng,
        pytree,
        reports,
        rotation,
        runs,
        speed,
        testing,
        text,
        training,
    )
    from .gradient import value_and_grad

__version__ = "0.1.0"

__all__ = [
    "__version__",
    "compose",
    "contract",
    "generation",
    "gradient",
    "heads",
    "health",
    "layers",
    "losses",
    "models",
    "numerics",
    "optimizers",
    "prng",
    "pytree",
    "reports",
    "rotation",
    "runs",
    "speed",
    "testing",
    "text",
    "training",
    "value_and_grad",
]


def __getattr__(name: str) -> Any:
    if name == "value_and_grad":
        return importlib.import_module(".gradient", __name__).value_and_grad
    if name in __all__:
        return importlib.import_module("." + name, __name__)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
