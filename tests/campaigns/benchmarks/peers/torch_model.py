"""The same model in PyTorch: modules, and the library's own attention, norm and loss."""

import numpy as np
import torch
import torch.nn.functional as F
from harness.workload import Workload
from torch import nn


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

    def forward(self, x, cos, sin):
        """Return the output (B, T, D)."""
        B, T, D = x.shape
        packed = self.qkv(self.norm1(x)).view(B, T, 3 * self.n_heads, D // self.n_heads)
        qk, v = packed.split([2 * self.n_heads, self.n_heads], dim=2)
        q, k = rotate(qk, cos, sin).chunk(2, dim=2)
        q, k, v = q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)
        attended = F.scaled_dot_product_attention(q, k, v, is_causal=True)
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
        self._load(given.take_params())

    def _load(self, params: dict[str, np.ndarray]) -> None:
        """Take over the parameters; a Linear keeps its matrix transposed."""
        values = {"embedding.weight": params["embedding.weight"]}
        values["norm.weight"] = params["norm.scale"]
        for i in range(len(self.blocks)):
            at = f"blocks.{i}"
            for norm in ("norm1", "norm2"):
                values[f"{at}.{norm}.weight"] = params[f"{at}.{norm}.scale"]
            values[f"{at}.qkv.weight"] = params[f"{at}.attention.qkv"].T
            values[f"{at}.out.weight"] = params[f"{at}.attention.out"].T
            gate_up = np.concatenate(list(params[f"{at}.mlp.gate_up"]), axis=1)
            values[f"{at}.gate_up.weight"] = gate_up.T
            values[f"{at}.down.weight"] = params[f"{at}.mlp.down"].T
        values |= {"cos": self.cos.numpy(), "sin": self.sin.numpy()}
        self.load_state_dict({k: torch.tensor(np.ascontiguousarray(v)) for k, v in values.items()})

    def forward(self, tokens):
        """Return the logits (B, T, V)."""
        x = self.embedding(tokens)
        cos, sin = self.cos[: tokens.shape[1]], self.sin[: tokens.shape[1]]
        for block in self.blocks:
            x = block(x, cos, sin)
        return F.linear(self.norm(x), self.embedding.weight)

    def loss(self, tokens, targets):
        """Return the mean cross-entropy."""
        return F.cross_entropy(self(tokens).flatten(0, 1), targets.flatten())


def rotate(x, cos, sin):
    """Turn neighbouring pairs of each head (B, T, H, K)."""
    even, odd = x[..., 0::2], x[..., 1::2]
    return torch.stack([even * cos - odd * sin, even * sin + odd * cos], dim=-1).flatten(-2)
