"""This library's generation: the one place that knows how it decodes."""

import time
from typing import Any

from harness.protocol import Actions
from harness.workload import Workload, read

from functional_lm import runtime

from .ours import about, objective


def generation(workload: str, *, n_prompt: int, n_new: int) -> tuple[dict[str, Any], Actions]:
    """Return a greedy decoder of the first prompts of a workload.

    Args:
        workload: its file.
        n_prompt: the length of the prompts.
        n_new: how many tokens to decode for each.
    """
    runtime.tune()
    given = read(workload)
    decode = _decoder(given, n_new)
    prompts = given.tokens[0, :, :n_prompt]

    def texts(batch: int, n: int) -> dict[str, Any]:
        seconds, tokens = [], []
        for _ in range(n):
            start = time.perf_counter()
            tokens = decode(prompts[:batch])
            seconds.append(time.perf_counter() - start)
        return {"seconds": seconds, "tokens": tokens}

    return about(), {"texts": texts}


def _decoder(given: Workload, n_new: int) -> Any:
    """Return a function from prompts (B, T) to B lists of new tokens."""
    from functional_lm import pytree
    from functional_lm.generation import generate, temperature

    model = objective(given)
    params = pytree.from_paths(given.params)

    def decode(prompts: Any) -> list[list[int]]:
        return [
            list(
                generate(
                    lambda tokens: model.next_logits(params, tokens),
                    prompt,
                    key=(0,),
                    max_new_tokens=n_new,
                    transform=temperature(0.0),
                )
            )
            for prompt in prompts
        ]

    return decode
