"""This library's generation: the one place that knows how it decodes."""

import time
from typing import Any

from harness.protocol import Actions
from harness.workload import Workload, read

from functional_lm.speed import runtime

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
    from functional_lm.generation import Decoder, generate, generate_batch

    decoder = Decoder(pytree.from_paths(given.params), objective(given).config)

    def decode(prompts: Any) -> list[list[int]]:
        if len(prompts) == 1:
            return [list(generate(decoder, prompts[0], max_new_tokens=n_new))]
        steps = list(generate_batch(decoder, prompts, max_new_tokens=n_new))
        return [list(tokens) for tokens in zip(*steps, strict=True)]

    return decode
