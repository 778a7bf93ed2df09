"""The CPU recipe of nanoGPT's README for Shakespeare characters, in PyTorch.

A GPT-2 without biases, dropout or compilation: 4 blocks of width 128 with 4 heads, 12 windows of 64
characters, 2,000 steps of AdamW from 1e-3 down to 1e-4.
"""

import math
import os
import time
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

V, D, H, L, T, B = 65, 128, 4, 4, 64, 12
STEPS, WARM_UP, PEAK, LOWEST = 2000, 100, 1e-3, 1e-4


def training():
    """Return what trains from a seed and answers with seconds, without those of validation."""
    torch.set_num_threads(len(os.sched_getaffinity(0)))

    def train(
        tokens: list[int], held_out: list[int], seed: int, steps: int = STEPS
    ) -> dict[str, Any]:
        text, rest = torch.tensor(tokens), torch.tensor(held_out)
        torch.manual_seed(seed)
        model = Model()
        matrices = [p for p in model.parameters() if p.ndim > 1]
        others = [p for p in model.parameters() if p.ndim < 2]
        optimizer = torch.optim.AdamW(
            [{"params": matrices, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}],
            betas=(0.9, 0.99),
        )
        start = time.perf_counter()
        for step in range(steps):
            for group in optimizer.param_groups:
                group["lr"] = rate(step, steps)
            at = torch.randint(len(text) - T, (B, 1)) + torch.arange(T)
            loss = model.loss(text[at], text[at + 1])
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
        seconds = time.perf_counter() - start
        return {"seconds": seconds, "steps": steps, "validation": validation(model, rest)}

    return {"torch": torch.__version__}, train


def rate(step: int, steps: int) -> float:
    """Return the learning rate: linear warm-up, then half a cosine."""
    if step < WARM_UP:
        return PEAK * (step + 1) / (WARM_UP + 1)
    share = (step - WARM_UP) / max(1, steps - WARM_UP)
    return LOWEST + (PEAK - LOWEST) * 0.5 * (1 + math.cos(math.pi * share))


@torch.no_grad()
def validation(model: "Model", rest: torch.Tensor) -> float:
    """Return the loss over all windows that do not overlap."""
    n = (len(rest) - 1) // T
    x, y = rest[: n * T].view(n, T), rest[1 : n * T + 1].view(n, T)
    parts = zip(x.split(100), y.split(100), strict=True)
    return sum(model.loss(one, other).item() * len(one) for one, other in parts) / n


class Block(nn.Module):
    """A pre-norm block: attention, then two matrices with GELU between them."""

    def __init__(self) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(D, bias=False), nn.LayerNorm(D, bias=False)
        self.qkv, self.out = nn.Linear(D, 3 * D, bias=False), nn.Linear(D, D, bias=False)
        self.up, self.down = nn.Linear(D, 4 * D, bias=False), nn.Linear(4 * D, D, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the output, shape of x."""
        split = self.qkv(self.norm1(x)).view(*x.shape[:2], 3, H, D // H)
        q, k, v = split.permute(2, 0, 3, 1, 4)  # (B, H, T, K) each
        heads = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(heads.transpose(1, 2).reshape(x.shape))
        return x + self.down(F.gelu(self.up(self.norm2(x))))


class Model(nn.Module):
    """Learned positions; the embedding is the unembedding too."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.positions = nn.Embedding(V, D), nn.Embedding(T, D)
        self.blocks = nn.Sequential(*(Block() for _ in range(L)))
        self.norm = nn.LayerNorm(D, bias=False)
        for name, p in self.named_parameters():
            if p.ndim > 1:
                writes = name.endswith(("out.weight", "down.weight"))
                nn.init.normal_(p, std=0.02 / math.sqrt(2 * L) if writes else 0.02)

    def loss(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """Return the mean cross-entropy."""
        h = self.embedding(x) + self.positions(torch.arange(x.shape[1]))
        logits = F.linear(self.norm(self.blocks(h)), self.embedding.weight)
        return F.cross_entropy(logits.flatten(0, 1), y.flatten())
