"""One token of one text: what decoding alone repeats, with nothing made anew.

At this size calls cost as much as arithmetic. So every array and view is made beforehand, each
call writes into one of them (``out``), and each is of the kind that NumPy starts quickest:
`ndarray.dot`, and elementwise functions on contiguous arrays of one shape.

Attention takes e^score without subtracting the largest first. That is exact unless it overflows
or nearly vanishes, which `step` finds in the sums and the logits; it then starts over with the
largest subtracted. Scores are computed for whole blocks of positions, so that views last for a
block: keys and values not written yet are zero, and ``seen`` leaves them out of the sum.
"""

import math
from collections.abc import Sequence

import numpy as np

from ..contract import Array
from .folding import Folded
from .sampling import expect_logits

BLOCK = 16
"""Positions for which one set of views serves."""


class OneRow:
    """The cache and the scratch of one text.

    Attributes:
        logits: (V,) those of the last step.
    """

    def __init__(self, weights: Folded) -> None:
        """Make the arrays for a text of up to ``max_seq_len`` tokens."""
        dtype = weights.embedding.dtype
        (S, half), L = weights.rotation.shape, len(weights.blocks)
        H, G, K = weights.n_heads, weights.n_kv_heads, 2 * half
        F, D = weights.blocks[0].down.shape
        self.weights = weights
        self.cache = np.zeros((L, 2, G, S, K), dtype)  # keys, values
        self.seen = np.zeros(S, dtype)  # 1 where a position is written
        self.logits = np.empty(len(weights.embedding), dtype)
        self.sums = np.empty((L, H), dtype)
        self.smallest = float(np.finfo(dtype).tiny) * 2.0**32
        self.rows = list(weights.embedding)
        self.turns = list(weights.rotation)
        self.x, self.x_hat, self.y = np.empty((3, D), dtype)
        self.norm = np.empty((), dtype)
        self.qkv = np.empty((H + 2 * G) * K, dtype)
        self.qk = self.qkv[: (H + G) * K].view(weights.rotation.dtype)
        self.q = self.qkv[:D].reshape(G, H // G, K)
        self.new = self.qkv[D:].reshape(2, G, K)
        self.turn = np.empty(self.qk.shape, self.qk.dtype)
        self.turn_heads = self.turn.reshape(H + G, K // 2)
        self.scores = np.empty(H * S, dtype)
        self.attended = np.empty((G, H // G, K), dtype)
        self.total = np.empty(D, dtype)
        self.total_heads = self.total.reshape(H, K)
        self.gate_up = np.empty(2 * F, dtype)
        self.e = np.empty(F, dtype)
        self.ones = np.ones(F, dtype)
        self.clear()

    def clear(self, rows: Sequence[int] = (0,)) -> None:
        """Forget the text."""
        self.cache.fill(0.0)
        self.seen.fill(0.0)
        self._look(0)

    def load(
        self, layer: int, rows: Sequence[int], lengths: Sequence[int], keys: Array, values: Array
    ) -> None:
        """Write the first keys and values (1, G, T, K) of a block."""
        (length,) = lengths
        self.cache[layer, 0, :, :length] = keys[0, :, :length]
        self.cache[layer, 1, :, :length] = values[0, :, :length]
        self.seen[:length] = 1.0

    def _look(self, position: int) -> None:
        """Make the views up to the end of the position's block."""
        H, S = self.sums.shape[1], len(self.seen)
        self.end = min(position // BLOCK * BLOCK + BLOCK, S)
        self.flat_scores = self.scores[: H * self.end]
        self.row_scores = self.flat_scores.reshape(H, self.end)
        self.group_scores = self.flat_scores.reshape(*self.q.shape[:2], self.end)
        self.seen_here = self.seen[: self.end]
        self.layers = [
            (
                *block,
                cache,
                cache[0, :, : self.end].swapaxes(1, 2),
                cache[1, :, : self.end],
                sums,
                sums[:, None],
            )
            for block, cache, sums in zip(self.weights.blocks, self.cache, self.sums, strict=True)
        ]

    def step(self, tokens: Sequence[int], positions: Sequence[int]) -> list[int]:
        """Take the token at a position; write the next logits.

        Floating-point warnings must be off.

        Returns:
            The likeliest token, the first of equally likely ones.

        Raises:
            ValueError: for logits that are not finite.
        """
        (token,), (position,) = tokens, positions
        if position >= self.end:
            self._look(position)
        best = self._step(token, position, safe=False)
        if not self._exact(best):
            best = self._step(token, position, safe=True)
            expect_logits(self.logits)
        return [best]

    def _exact(self, best: int) -> bool:
        sums = self.sums.reshape(-1)
        return sums.item(sums.argmin()) > self.smallest and math.isfinite(self.logits.item(best))

    def _step(self, token: int, position: int, *, safe: bool) -> int:
        x, x_hat, y, norm, eps = self.x, self.x_hat, self.y, self.norm, self.weights.eps
        qkv, qk, q, new, turn = self.qkv, self.qk, self.q, self.new, self.turn
        attended, total, total_heads = self.attended, self.total, self.total_heads
        attended_flat = attended.reshape(-1)
        gate_up, e, ones = self.gate_up, self.e, self.ones
        gate, up = gate_up[: len(e)], gate_up[len(e) :]
        flat_scores, group_scores, seen = self.flat_scores, self.group_scores, self.seen_here
        dot, dot_hat, dot_scores = x.dot, x_hat.dot, self.row_scores.dot
        dot_attended, dot_gate = attended_flat.dot, gate.dot
        add, multiply, divide, exp, matmul, sqrt = (
            np.add,
            np.multiply,
            np.divide,
            np.exp,
            np.matmul,
            math.sqrt,
        )
        slot = (slice(None), slice(None), position)

        self.seen[position] = 1.0
        self.turn_heads[...] = self.turns[position]
        x[...] = self.rows[token]
        for w_qkv, w_out, w_gate_up, w_down, cache, keys, values, sums, sums_column in self.layers:
            norm[()] = sqrt(dot(x) + eps)
            divide(x, norm, x_hat)
            dot_hat(w_qkv, qkv)
            multiply(qk, turn, qk)
            cache[slot] = new
            matmul(q, keys, group_scores)
            if safe:
                self._subtract_largest()
            exp(flat_scores, flat_scores)
            dot_scores(seen, sums)
            matmul(group_scores, values, attended)
            total_heads[...] = sums_column
            divide(attended_flat, total, attended_flat)
            dot_attended(w_out, y)
            add(x, y, x)

            norm[()] = sqrt(dot(x) + eps)
            divide(x, norm, x_hat)
            dot_hat(w_gate_up, gate_up)
            exp(gate, e)
            add(e, ones, e)
            multiply(gate, up, gate)
            divide(gate, e, gate)
            dot_gate(w_down, y)
            add(x, y, x)
        norm[()] = sqrt(dot(x) + eps)
        divide(x, norm, x_hat)
        dot_hat(self.weights.unembedding, self.logits)
        return int(self.logits.argmax())

    def _subtract_largest(self) -> None:
        scores = self.row_scores
        np.copyto(scores, -math.inf, where=self.seen_here == 0.0)
        scores -= scores.max(axis=-1, keepdims=True)
