"""The peak: large square float32 matrix products, by NumPy's BLAS on all cores."""

import time
from typing import Any

from harness.protocol import Actions

from functional_lm.speed import runtime

from .ours import about

SIZE = 2048
FLOPS = 2 * SIZE**3


def peak() -> tuple[dict[str, Any], Actions]:
    """Return a multiplier; a step is one product."""
    runtime.tune()
    import numpy as np

    rng = np.random.default_rng(0)
    a, b = (rng.standard_normal((SIZE, SIZE), np.float32) for _ in range(2))
    out = a @ b

    def steps(n: int) -> dict[str, Any]:
        seconds = []
        for _ in range(n):
            start = time.perf_counter()
            np.matmul(a, b, out=out)
            seconds.append(time.perf_counter() - start)
        return {"seconds": seconds}

    return about(), {"steps": steps}
