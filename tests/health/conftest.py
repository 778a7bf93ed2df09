"""Made-up records of a healthy run, with changes."""

import math

import numpy as np
import pytest

from functional_lm.health.history import History

VOCAB_SIZE = 65
INSPECTED = (1, 100, 200, 300, 400)


def healthy_statistics(scale=1.0):
    """Return what the default recipe has after some hundred steps."""
    blocks = ["blocks.0", "blocks.1"]
    leaves = [f"{block}.mixer.qkv.weight" for block in blocks] + ["embedding.weight"]
    return {
        "grad_norm": dict.fromkeys(leaves, 0.5) | {"norm.scale": 0.02},
        "update_ratio": dict.fromkeys(leaves, 0.01 * scale) | {"norm.scale": 0.0005},
        "activation_mean": dict.fromkeys(blocks, 0.0),
        "activation_std": dict.fromkeys(blocks, 0.6),
        "zero_share": {f"{block}.mlp": 0.0 for block in blocks},
        "attention_entropy": dict.fromkeys(blocks, 2.8),
        "attention_uniform": dict.fromkeys(blocks, 3.2),
    }


@pytest.fixture
def run():
    """Return a function that makes the records of a healthy run."""

    def make(steps=400, *, seed=0, noise=0.05, lr=None, loss=None, every=100):
        rng = np.random.default_rng(seed)
        records = []
        for step in range(1, steps + 1):
            rate = 3e-3 * min(step / 40, 1.0) if lr is None else lr(step)
            fallen = 1.6 + (math.log(VOCAB_SIZE) - 1.6) * math.exp(-(step - 1) / (steps / 4))
            record = {
                "step": step,
                "loss": (fallen if loss is None else loss(step)) + noise * rng.standard_normal(),
                "lr": rate,
                "grad_norm": 0.8 + 0.1 * rng.standard_normal(),
                "step_ms": 50.0,
                "tokens_per_second": 20000,
            }
            if step == 1 or step % every == 0:
                record["statistics"] = healthy_statistics(rate / 3e-3)
                record["val_loss"] = fallen + 0.1
            records.append(record)
        return records

    return make


@pytest.fixture
def inspected(run):
    """Return a function that makes the history of a run with one statistic changed."""

    def make(statistic, name, value, at=INSPECTED, **settings):
        records = run(**settings)
        for step in at:
            records[step - 1]["statistics"][statistic][name] = value
        return History.of(records, VOCAB_SIZE)

    return make
