"""One token of each of several texts: `one_row` with matrices for vectors.

Texts need not be equally long: each has its own position, and its own part of ``seen``.

A product of few rows with a large matrix is slow, as BLAS first copies all of the matrix into
another order. Small products it does in place; so each matrix is kept as blocks of 64 columns, one
product each.
"""

import math
from collections.abc import Callable, Sequence

import numpy as np

from ..contract import Array
from .folding import Folded
from .one_row import BLOCK, smallest_sum
from .sampling import expect_logits
from .scratch import aligned, aligned_copies

WIDTHS = (64, 48, 32)
"""Columns of a block, the best first; a matrix that none divides is not divided."""


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
        (F, D), V = weights.blocks[0].down.shape, len(weights.embedding)
        C = (H + 2 * G) * K
        self._weights = weights._replace(blocks=())  # they are copied below
        self._keys, self._values, self._seen, self._sums = aligned(
            [(L, B, G, S, K), (L, B, G, S, K), (B, S), (L, B, H, 1)], dtype
        )
        self._scratch = aligned(
            [(B, D), (B, D), (B, D), (B, C), (B * H * S,), (B, D), (2, B, F), (B, F), (B, F), (B,)],
            dtype,
        )
        _, _, y, qkv, _, _, gate_up, _, ones, _ = self._scratch
        ones.fill(1.0)
        self.logits = np.empty((B, V), dtype)
        flat = aligned_copies([_columns(w) for block in weights.blocks for w in block])
        outs = [_columns(out) for out in (qkv, y, gate_up, y)] * L
        pairs = list(zip(flat, outs, strict=True))
        self._blocks = [pairs[i : i + 4] for i in range(0, len(pairs), 4)]
        self._positions = np.zeros(B, np.intp)
        self._steps: dict[int, Callable[[Array], None]] = {}

    def clear(self, rows: Sequence[int]) -> None:
        """Forget the texts of some rows."""
        for row in rows:
            written = slice(self._positions[row] + 1)
            self._keys[:, row, :, written] = self._values[:, row, :, written] = 0.0
            self._seen[row], self._positions[row] = 0.0, 0

    def load(
        self, layer: int, rows: Sequence[int], lengths: Sequence[int], keys: Array, values: Array
    ) -> None:
        """Write the first keys and values (rows, G, T, K) of a block, as many as a row has."""
        for row, T, k, v in zip(rows, lengths, keys, values, strict=True):
            self._keys[layer, row, :, :T] = k[:, :T]
            self._values[layer, row, :, :T] = v[:, :T]
            self._seen[row, :T] = 1.0
            self._positions[row] = T

    def step(self, tokens: Sequence[int]) -> list[int]:
        """Take the next token of each text; write the logits after it.

        Floating-point warnings must be off.

        Returns:
            The likeliest tokens (B,), the first of equally likely ones.

        Raises:
            ValueError: for logits that are not finite.
        """
        first = int(self._positions.max()) // BLOCK * BLOCK
        step = self._steps.get(first) or self._compile(first)
        taken = np.array(tokens)
        step(taken)
        smallest = smallest_sum(self.logits.dtype)
        if not (self._sums.min() > smallest and math.isfinite(self.logits.max())):
            self._compile(first, safe=True)(taken)
            expect_logits(self.logits)
        self._positions += 1
        return self.logits.argmax(axis=1).tolist()

    def _compile(self, first: int, *, safe: bool = False) -> Callable[[Array], None]:
        """Return the step for the positions of a block, from tokens (B,) to ``logits``."""
        weights, logits, positions, seen = self._weights, self.logits, self._positions, self._seen
        x, x_hat, y, qkv, scores, attended, gate_up, e, ones, norm = self._scratch
        (S, half), H, G = weights.rotation.shape, weights.n_heads, weights.n_kv_heads
        B, K, end = len(x), 2 * half, min(first + BLOCK, S)
        heads = qkv.reshape(B, H + 2 * G, K)
        q, k, v = heads[:, :H].reshape(B, G, H // G, K), heads[:, H : H + G], heads[:, H + G :]
        qk = qkv[:, : (H + G) * K].view(weights.rotation.dtype)
        scores = scores[: B * H * end]
        row_scores, group_scores = scores.reshape(B, H, end), scores.reshape(B, G, H // G, end)
        attended_heads, attended_groups = attended.reshape(B, H, K), attended.reshape(q.shape)
        gate, up = gate_up
        seen_here, norm_column = seen[:, :end, None], norm[:, None]
        projections = [*(block[0] for block in self._blocks), (weights.unembedding, logits)]
        layers = [
            (
                keys,
                values,
                keys[:, :, :end].swapaxes(-1, -2),  # (B, G, K, end)
                values[:, :, :end],  # (B, G, end, K)
                sums,
                following,
                *block[1:],
            )
            for keys, values, sums, block, following in zip(
                self._keys, self._values, self._sums, self._blocks, projections[1:], strict=True
            )
        ]
        table, rotation, eps = weights.embedding, weights.rotation, np.array(weights.eps, x.dtype)
        first_qkv = weights.first_qkv
        add, multiply, divide, exp, matmul = np.add, np.multiply, np.divide, np.exp, np.matmul
        each, every = np.arange(B), slice(None)

        def normalise() -> None:
            np.vecdot(x, x, norm)
            add(norm, eps, norm)
            np.sqrt(norm, norm)
            divide(x, norm_column, x_hat)

        def step(tokens: Array) -> None:
            column: tuple = each, positions
            if positions.min() == positions.max():  # a view is quicker than a list of places
                column = every, int(positions[0])
            slot = column[0], every, column[1]
            seen[column] = 1.0
            turn = np.tile(rotation[positions], H + G)  # (B, (H+G)·K/2)
            x[...] = table[tokens]
            if first_qkv is None:
                normalise()
                matmul(x_hat, *projections[0])
            else:
                qkv[...] = first_qkv[tokens]
            for keys, values, keys_here, values_here, sums, after, to_out, to_mlp, down in layers:
                multiply(qk, turn, qk)
                keys[slot] = k
                values[slot] = v
                matmul(q, keys_here, group_scores)
                if safe:
                    np.copyto(row_scores, -math.inf, where=seen[:, None, :end] == 0.0)
                    np.subtract(row_scores, row_scores.max(axis=-1, keepdims=True), out=row_scores)
                exp(scores, scores)
                matmul(row_scores, seen_here, sums)
                matmul(group_scores, values_here, attended_groups)
                divide(attended_heads, sums, attended_heads)
                matmul(attended, *to_out)
                add(x, y, x)

                normalise()
                matmul(x_hat, *to_mlp)
                exp(gate, e)
                add(e, ones, e)
                multiply(gate, up, gate)
                divide(gate, e, e)
                matmul(e, *down)
                add(x, y, x)

                normalise()
                matmul(x_hat, *after)

        if not safe:
            self._steps[first] = step
        return step


def _columns(matrix: Array) -> Array:
    """Return a view (..., C/w, R, w) of a matrix (..., R, C): its blocks of w columns."""
    columns = matrix.shape[-1]
    width = next((width for width in WIDTHS if columns % width == 0), columns)
    return matrix.reshape(*matrix.shape[:-1], -1, width).swapaxes(-2, -3)
