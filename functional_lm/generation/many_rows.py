"""One token of each of several texts: `one_row` with matrices for vectors.

Rows need not be equally long: each has its own position, and its own part of ``seen``.
"""

import math
from collections.abc import Sequence

import numpy as np

from ..contract import Array
from .folding import Folded
from .one_row import BLOCK
from .sampling import expect_logits


class ManyRows:
    """The cache and the scratch of B texts.

    Attributes:
        logits: (B, V) those of the last step.
    """

    def __init__(self, weights: Folded, batch_size: int) -> None:
        """Make the arrays for texts of up to ``max_seq_len`` tokens."""
        dtype = weights.embedding.dtype
        (S, half), L = weights.rotation.shape, len(weights.blocks)
        B, H, G, K = batch_size, weights.n_heads, weights.n_kv_heads, 2 * half
        F, D = weights.blocks[0].down.shape
        self.weights = weights
        self.cache = np.zeros((L, 2, B, G, S, K), dtype)  # keys, values
        self.seen = np.zeros((B, S), dtype)  # 1 where a position is written
        self.logits = np.empty((B, len(weights.embedding)), dtype)
        self.sums = np.empty((L, B, H, 1), dtype)
        self.smallest = float(np.finfo(dtype).tiny) * 2.0**32
        self.x, self.x_hat, self.y = np.empty((3, B, D), dtype)
        self.norm = np.empty((B, 1), dtype)
        self.qkv = np.empty((B, (H + 2 * G) * K), dtype)
        self.qk = self.qkv.view(weights.rotation.dtype).reshape(B, -1, K // 2)[:, : H + G]
        self.q = self.qkv[:, :D].reshape(B, G, H // G, K)
        self.new = self.qkv[:, D:].reshape(B, 2, G, K)
        self.scores = np.empty(B * H * S, dtype)
        self.attended = np.empty((B, G, H // G, K), dtype)
        self.gate_up = np.empty((B, 2 * F), dtype)
        self.e = np.empty((B, F), dtype)
        self.positions = np.zeros(B, np.intp)
        self.each = np.arange(B)

    def clear(self, rows: Sequence[int]) -> None:
        """Forget the texts of some rows."""
        self.cache[:, :, list(rows)] = 0.0
        self.seen[list(rows)] = 0.0
        self.positions[list(rows)] = 0

    def load(
        self, layer: int, rows: Sequence[int], lengths: Sequence[int], keys: Array, values: Array
    ) -> None:
        """Write the first keys and values (rows, G, T, K) of a block, as many as a row has."""
        for row, length, k, v in zip(rows, lengths, keys, values, strict=True):
            self.cache[layer, 0, row, :, :length] = k[:, :length]
            self.cache[layer, 1, row, :, :length] = v[:, :length]
            self.seen[row, :length] = 1.0
            self.positions[row] = length

    def step(self, tokens: Sequence[int]) -> list[int]:
        """Take the next token of each text; write the logits after it.

        Floating-point warnings must be off.

        Returns:
            The likeliest tokens (B,), the first of equally likely ones.

        Raises:
            ValueError: for logits that are not finite.
        """
        best = self._step(np.array(tokens), self.positions, safe=False)
        if not (self.sums.min() > self.smallest and math.isfinite(self.logits.max())):
            best = self._step(np.array(tokens), self.positions, safe=True)
            expect_logits(self.logits)
        self.positions += 1
        return best.tolist()

    def _step(self, tokens: Array, positions: Array, *, safe: bool) -> Array:
        x, x_hat, y, norm, eps = self.x, self.x_hat, self.y, self.norm, self.weights.eps
        qkv, qk, e, gate_up = self.qkv, self.qk, self.e, self.gate_up
        B, F = e.shape
        gate, up = gate_up[:, :F], gate_up[:, F:]
        H, S = self.sums.shape[2], self.seen.shape[1]
        end = min(int(positions.max()) // BLOCK * BLOCK + BLOCK, S)
        scores = self.scores[: B * H * end].reshape(B, H, end)
        group_scores = scores.reshape(*self.q.shape[:3], end)
        attended = self.attended.reshape(B, H, -1)
        self.seen[self.each, positions] = 1.0
        seen = self.seen[:, :end, None]
        turn = self.weights.rotation[positions][:, None]  # (B, 1, K/2)

        np.take(self.weights.embedding, tokens, axis=0, out=x)
        for block, cache, sums in zip(self.weights.blocks, self.cache, self.sums, strict=True):
            _normalise(x, norm, eps, x_hat)
            np.dot(x_hat, block.qkv, out=qkv)
            np.multiply(qk, turn, out=qk)
            cache[:, self.each, :, positions] = self.new
            np.matmul(self.q, cache[0, :, :, :end].swapaxes(-1, -2), out=group_scores)
            if safe:
                np.copyto(scores, -math.inf, where=seen[:, None, :, 0] == 0.0)
                scores -= scores.max(axis=-1, keepdims=True)
            np.exp(scores, out=scores)
            np.matmul(scores, seen, out=sums)
            np.matmul(group_scores, cache[1, :, :, :end], out=self.attended)
            attended /= sums
            np.dot(attended.reshape(B, -1), block.out, out=y)
            np.add(x, y, out=x)

            _normalise(x, norm, eps, x_hat)
            np.dot(x_hat, block.gate_up, out=gate_up)
            np.exp(gate, out=e)
            np.add(e, 1.0, out=e)
            np.multiply(gate, up, out=gate)
            np.divide(gate, e, out=e)
            np.dot(e, block.down, out=y)
            np.add(x, y, out=x)
        _normalise(x, norm, eps, x_hat)
        np.dot(x_hat, self.weights.unembedding, out=self.logits)
        return self.logits.argmax(axis=1)


def _normalise(x: Array, norm: Array, eps: float, x_hat: Array) -> None:
    """Write x/√(Σx² + eps), with norm (B, 1) as scratch."""
    np.vecdot(x, x, out=norm[:, 0])
    np.add(norm, eps, out=norm)
    np.sqrt(norm, out=norm)
    np.divide(x, norm, out=x_hat)
