"""PyTorch's generation: an eager loop under `inference_mode`, with a cache allocated once."""

import os
import time
from typing import Any

import torch
import torch.nn.functional as F
from harness.protocol import Actions
from harness.workload import read

from .torch_model import Model, rotate


def generation(
    workload: str, *, n_prompt: int, n_new: int, threads: int | None = None
) -> tuple[dict[str, Any], Actions]:
    """Return a greedy decoder of the first prompts of a workload, on all cores or so many."""
    torch.set_num_threads(threads or len(os.sched_getaffinity(0)))
    given = read(workload)
    model = Model(given).eval()
    prompts = torch.from_numpy(given.tokens[0, :, :n_prompt]).long()

    def texts(batch: int, n: int) -> dict[str, Any]:
        seconds, tokens = [], torch.zeros(0)
        for _ in range(n):
            start = time.perf_counter()
            tokens = _decode(model, prompts[:batch], n_new)
            seconds.append(time.perf_counter() - start)
        return {"seconds": seconds, "tokens": tokens.tolist()}

    return {"torch": torch.__version__, "threads": torch.get_num_threads()}, {"texts": texts}


@torch.inference_mode()
def _decode(model: Model, prompts: torch.Tensor, n_new: int) -> torch.Tensor:
    """Return n_new greedy tokens for each prompt, (B, n_new)."""
    B, T = prompts.shape
    H = model.blocks[0].n_heads
    K = model.embedding.weight.shape[1] // H
    cache = torch.zeros(len(model.blocks), 2, B, H, T + n_new, K)
    tokens = torch.empty(B, n_new, dtype=torch.long)
    following, position = prompts, 0
    for i in range(n_new):
        logits = _advance(model, following, position, cache)
        tokens[:, i] = logits.argmax(dim=-1)
        position += following.shape[1]
        following = tokens[:, i : i + 1]
    return tokens


def _advance(model: Model, tokens: torch.Tensor, start: int, cache: torch.Tensor) -> torch.Tensor:
    """Put the tokens (B, t) into the cache and return the logits (B, V) of the next."""
    B, t = tokens.shape
    end = start + t
    cos, sin = model.cos[start:end], model.sin[start:end]
    x = model.embedding(tokens)
    for block, (keys, values) in zip(model.blocks, cache, strict=True):
        H = block.n_heads
        packed = block.qkv(block.norm1(x)).view(B, t, 3 * H, -1)
        qk = rotate(packed[:, :, : 2 * H], cos, sin).transpose(1, 2)
        keys[:, :, start:end] = qk[:, H:]
        values[:, :, start:end] = packed[:, :, 2 * H :].transpose(1, 2)
        attended = F.scaled_dot_product_attention(
            qk[:, :H], keys[:, :, :end], values[:, :, :end], is_causal=t > 1
        )
        x = x + block.out(attended.transpose(1, 2).reshape(B, t, -1))
        gate, up = block.gate_up(block.norm2(x)).chunk(2, dim=-1)
        x = x + block.down(F.silu(gate) * up)
    return F.linear(model.norm(x[:, -1]), model.embedding.weight)
