"""PyTorch: eager or compiled, fused AdamW, the library's own attention, norm and loss."""

import itertools
import os
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from workload import OPTIMIZER, Workload, draw, timed


def step(setting: dict[str, Any], compiled: bool):
    """Return a trainer; compiled, the loss and its gradient are one compiled function each."""
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    update, numbers = trainer(draw(setting), compiled), itertools.count()

    def steps(n: int) -> dict[str, Any]:
        seconds, losses = timed(n, lambda: update(next(numbers)))
        return {"seconds": seconds, "losses": [loss.item() for loss in losses]}

    return about(), steps


def generation(
    setting: dict[str, Any], n_prompt: int, n_new: int, gain: float, threads: int | None = None
):
    """Return a greedy decoder of the first prompts, on all cores or a number of threads."""
    torch.set_num_threads(threads or len(os.sched_getaffinity(0)))
    given = draw(setting, gain)
    model = Model(given).eval()

    def texts(batch: int) -> dict[str, Any]:
        prompts = torch.from_numpy(given.tokens[0, :batch, :n_prompt]).long()
        seconds, (tokens,) = timed(1, lambda: _decode(model, prompts, n_new))
        return {"seconds": seconds, "tokens": tokens.tolist()}

    return about(), texts


def about() -> dict[str, Any]:
    """Return the version, threads and instruction set of PyTorch."""
    capability = torch.backends.cpu.get_cpu_capability()
    threads = torch.get_num_threads()
    return {"torch": torch.__version__, "threads": threads, "capability": capability}


def trainer(given: Workload, compiled: bool):
    """Return a function of the step's number that makes an update and returns its loss."""
    model = Model(given)
    loss_of = torch.compile(model.loss) if compiled else model.loss
    params = list(model.parameters())
    settings = OPTIMIZER
    optimizer = torch.optim.AdamW(
        [
            {
                "params": [p for p in params if p.ndim >= 2],
                "weight_decay": settings["weight_decay"],
            },
            {"params": [p for p in params if p.ndim < 2], "weight_decay": 0.0},
        ],
        lr=settings["lr"],
        betas=(settings["b1"], settings["b2"]),
        eps=settings["eps"],
        fused=True,
    )

    def update(number: int) -> torch.Tensor:
        tokens, targets = (torch.from_numpy(part).long() for part in given.batch(number))
        loss = loss_of(tokens, targets)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(params, settings["max_norm"])
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return loss.detach()

    return update


class Block(nn.Module):
    """A transformer block with packed projections."""

    def __init__(self, d_model: int, n_heads: int, d_ff: int) -> None:
        super().__init__()
        self.n_heads = n_heads
        self.norm1 = nn.RMSNorm(d_model, eps=1e-6)
        self.qkv = nn.Linear(d_model, 3 * d_model, bias=False)
        self.out = nn.Linear(d_model, d_model, bias=False)
        self.norm2 = nn.RMSNorm(d_model, eps=1e-6)
        self.gate_up = nn.Linear(d_model, 2 * d_ff, bias=False)
        self.down = nn.Linear(d_ff, d_model, bias=False)

    def forward(self, x, cos, sin, cache=None):
        """Return the output (B, T, D); with a cache, what it holds so far is attended to as well.

        A cache is (keys, values) of all positions, (B, H, S, K) each, and where the new ones start.
        """
        B, T, D = x.shape
        packed = self.qkv(self.norm1(x)).view(B, T, 3 * self.n_heads, D // self.n_heads)
        qk, v = packed.split([2 * self.n_heads, self.n_heads], dim=2)
        q, k = rotate(qk, cos, sin).chunk(2, dim=2)
        q, k, v = q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)
        if cache is not None:
            (keys, values), start = cache
            keys[:, :, start : start + T], values[:, :, start : start + T] = k, v
            k, v = keys[:, :, : start + T], values[:, :, : start + T]
        attended = F.scaled_dot_product_attention(q, k, v, is_causal=T > 1)
        x = x + self.out(attended.transpose(1, 2).reshape(B, T, D))
        gate, up = self.gate_up(self.norm2(x)).chunk(2, dim=-1)
        return x + self.down(F.silu(gate) * up)


class Model(nn.Module):
    """Tokens to logits; the unembedding is the embedding's weight."""

    def __init__(self, given: Workload) -> None:
        super().__init__()
        setting = given.setting
        self.embedding = nn.Embedding(setting.vocab_size, setting.d_model)
        self.blocks = nn.ModuleList(
            Block(setting.d_model, setting.n_heads, setting.d_ff) for _ in range(setting.n_layers)
        )
        self.norm = nn.RMSNorm(setting.d_model, eps=1e-6)
        half = setting.d_model // setting.n_heads // 2
        angle = np.multiply.outer(np.arange(setting.seq_len), 1e4 ** -(np.arange(half) / half))
        for name, value in (("cos", np.cos(angle)), ("sin", np.sin(angle))):
            self.register_buffer(name, torch.from_numpy(value[:, None].astype(np.float32)))
        self._load(given.params)
        given.params.clear()

    def _load(self, flat: dict[str, np.ndarray]) -> None:
        """Load the parameters; a Linear keeps its matrix transposed."""
        values = {f"{name}.weight": leaf.T for name, leaf in flat.items()}
        values["embedding.weight"] = flat["embedding"]
        values |= {"cos": self.cos.numpy(), "sin": self.sin.numpy()}
        self.load_state_dict({k: torch.tensor(np.ascontiguousarray(v)) for k, v in values.items()})

    def forward(self, tokens):
        """Return the logits (B, T, V)."""
        return self.logits(self.hidden(tokens))

    def hidden(self, tokens, cache=None, start=0):
        """Return the output of the last block (B, T, D), for positions from ``start`` on."""
        x, stop = self.embedding(tokens), start + tokens.shape[1]
        for i, block in enumerate(self.blocks):
            own = None if cache is None else (cache[i], start)
            x = block(x, self.cos[start:stop], self.sin[start:stop], own)
        return x

    def logits(self, hidden):
        """Return the inner products with the rows of the embedding."""
        return F.linear(self.norm(hidden), self.embedding.weight)

    def loss(self, tokens, targets):
        """Return the mean cross-entropy."""
        return F.cross_entropy(self(tokens).flatten(0, 1), targets.flatten())


def rotate(x, cos, sin):
    """Turn neighbouring pairs of each head (B, T, H, K)."""
    even, odd = x[..., 0::2], x[..., 1::2]
    return torch.stack([even * cos - odd * sin, even * sin + odd * cos], dim=-1).flatten(-2)


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
        hidden = model.hidden(following, cache, position)
        tokens[:, i] = model.logits(hidden[:, -1]).argmax(dim=-1)
        position += following.shape[1]
        following = tokens[:, i : i + 1]
    return tokens
