"""Optimizers as pure ``(init, update)`` pairs, and schedules, under the names of optax.

>>> import numpy as np
>>> optimizer = chain(clip_by_global_norm(1.0), adamw(3e-4))
>>> params = {"weight": np.ones((2, 2))}
>>> state = optimizer.init(params)
>>> updates, state = optimizer.update({"weight": np.ones((2, 2))}, state, params)
>>> params = apply_updates(params, updates)
"""

from .adafactor import AdafactorState, adafactor
from .adamw import AdamState, adam, adamw
from .averaging import ParamsEmaState, averaged, params_ema
from .clipping import clip_by_global_norm
from .lion import LionState, lion
from .muon import MuonState, muon, newton_schulz
from .schedules import (
    Schedule,
    constant_schedule,
    linear_schedule,
    warmup_cosine_decay_schedule,
    warmup_inverse_sqrt_schedule,
    warmup_stable_decay_schedule,
)
from .sgd import SgdState, sgd
from .transformation import (
    GradientTransformation,
    apply_updates,
    chain,
    expect_gradient,
    partition,
)

__all__ = [
    "AdafactorState",
    "AdamState",
    "GradientTransformation",
    "LionState",
    "MuonState",
    "ParamsEmaState",
    "Schedule",
    "SgdState",
    "adafactor",
    "adam",
    "adamw",
    "apply_updates",
    "averaged",
    "chain",
    "clip_by_global_norm",
    "constant_schedule",
    "expect_gradient",
    "linear_schedule",
    "lion",
    "muon",
    "newton_schulz",
    "params_ema",
    "partition",
    "sgd",
    "warmup_cosine_decay_schedule",
    "warmup_inverse_sqrt_schedule",
    "warmup_stable_decay_schedule",
]
