"""One token of one text: what decoding alone repeats, with nothing made anew.

At this size calls cost as much as arithmetic. So every array and view is made beforehand, each
call writes into one of them, and each is of the kind that NumPy starts quickest: `ndarray.dot`,
and elementwise functions on contiguous arrays of one shape.

Attention takes e^score without subtracting the largest first. That is as exact unless it overflows
or nearly vanishes, which shows in the sums and the logits; then the step is done over with the
largest subtracted. Scores are computed for whole blocks of positions, so that the views last for
a block: keys and values not written yet are zero, and ``seen`` leaves them out of the sum.
"""

import math
from collections.abc import Callable, Sequence
from typing import TypeAlias

import numpy as np

from ..contract import Array
from .folding import Folded
from .sampling import expect_logits
from .scratch import aligned, aligned_copies

BLOCK = 16
"""Positions for which one set of views serves."""

Step: TypeAlias = Callable[[int, int], tuple[int, bool]]
"""Maps a token and its position to the likeliest next one, and whether the result is exact."""


def smallest_sum(dtype: np.dtype) -> float:
    """Return the sum of exponentials below which too many of their digits may be lost."""
    return float(np.finfo(dtype).tiny) * 2.0**32


class OneRow:
    """The cache and the scratch of one text."""

    def __init__(self, weights: Folded) -> None:
        """Make the arrays for a text of up to ``max_seq_len`` tokens."""
        dtype = weights.embedding.dtype
        (S, half), L = weights.rotation.shape, len(weights.blocks)
        H, G, K = weights.n_heads, weights.n_kv_heads, 2 * half
        (F, D), V = weights.blocks[0].down.shape, len(weights.embedding)
        self._weights = weights._replace(blocks=())  # they are copied below
        self._cache, self._seen, self._sums = aligned([(L, 2, G, S, K), (S,), (L, H)], dtype)
        matrices = [weights.unembedding]
        for block in weights.blocks:
            gate_up = np.concatenate(list(block.gate_up), axis=1)
            matrices += [block.qkv, block.out, gate_up, block.down]
        self._unembedding, *flat = aligned_copies(matrices)
        self._blocks = [flat[i : i + 4] for i in range(0, len(flat), 4)]
        sizes = [D, D, D, (H + 2 * G) * K, H * S, D, D, 2 * F, F, F, V]
        self._scratch = aligned([(size,) for size in sizes], dtype)
        self._steps: dict[int, Step] = {}
        self._position = 0

    def clear(self, rows: Sequence[int]) -> None:
        """Forget the text."""
        self._cache[:, :, :, : self._position + 1] = 0.0
        self._seen.fill(0.0)
        self._position = 0

    def load(
        self, layer: int, rows: Sequence[int], lengths: Sequence[int], keys: Array, values: Array
    ) -> None:
        """Write the first keys and values (1, G, T, K) of a block."""
        (T,) = lengths
        self._cache[layer, 0, :, :T] = keys[0, :, :T]
        self._cache[layer, 1, :, :T] = values[0, :, :T]
        self._seen[:T] = 1.0
        self._position = T

    @property
    def logits(self) -> Array:
        """The logits (1, V) after the last token: a step leaves the last norm's division out."""
        x, undivided = self._scratch[0], self._scratch[-1]
        return (undivided / math.sqrt(x.dot(x) + self._weights.eps))[None]

    def step(self, tokens: Sequence[int]) -> list[int]:
        """Take the next token.

        Floating-point warnings must be off.

        Returns:
            The likeliest token, the first of equally likely ones.

        Raises:
            ValueError: for logits that are not finite.
        """
        position = self._position
        first = position // BLOCK * BLOCK
        step = self._steps.get(first) or self._compile(first)
        best, exact = step(tokens[0], position)
        if not exact:
            best, _ = self._compile(first, safe=True)(tokens[0], position)
            expect_logits(self.logits)
        self._position = position + 1
        return [best]

    def _compile(self, first: int, *, safe: bool = False) -> Step:
        """Return the step for the positions of a block."""
        weights = self._weights
        x, x_hat, y, qkv, scores, attended, total, gate_up, e, ones, undivided = self._scratch
        ones.fill(1.0)
        (S, half), H, G = weights.rotation.shape, weights.n_heads, weights.n_kv_heads
        K, R, end = 2 * half, H // G, min(first + BLOCK, S)
        turns = list(np.tile(weights.rotation[first:end], H + G))
        qk = qkv[: (H + G) * K].view(weights.rotation.dtype)
        q, new = qkv[: H * K].reshape(G, R, K), qkv[H * K :].reshape(2, G, K)
        scores = scores[: H * end]
        row_scores, group_scores = scores.reshape(H, end), scores.reshape(G, R, end)
        heads, total_heads = attended.reshape(G, R, K), total.reshape(H, K)
        gate, up = gate_up[: len(e)], gate_up[len(e) :]
        all_seen, seen = self._seen, self._seen[:end]
        unembedding, to_first = self._unembedding, self._blocks[0][0]
        to_next = [*(block[0] for block in self._blocks[1:]), None]
        layers = [
            (
                [cache[:, :, position] for position in range(first, end)],
                cache[0, :, :end].swapaxes(1, 2),  # (G, K, end)
                cache[1, :, :end],  # (G, end, K)
                sums,
                sums[:, None],
                *block[1:],
                following,
            )
            for cache, sums, block, following in zip(
                self._cache, self._sums, self._blocks, to_next, strict=True
            )
        ]
        rows, first_qkv, eps = weights.embedding, weights.first_qkv, weights.eps
        norm = np.empty((), x.dtype)
        sums_flat = self._sums.reshape(-1)
        smallest = smallest_sum(x.dtype)
        add, multiply, divide, exp, matmul = np.add, np.multiply, np.divide, np.exp, np.matmul
        sqrt, isfinite = math.sqrt, math.isfinite
        dot, dot_hat, dot_scores = x.dot, x_hat.dot, row_scores.dot
        dot_attended, dot_gate, norm_item = attended.dot, gate.dot, norm.item
        argmin, sum_item, argmax, logit = (
            sums_flat.argmin,
            sums_flat.item,
            undivided.argmax,
            undivided.item,
        )

        def step(token: int, position: int) -> tuple[int, bool]:
            all_seen[position] = 1.0
            place = position - first
            turn = turns[place]
            x[...] = rows[token]
            if first_qkv is None:
                dot(x, norm)
                norm[()] = sqrt(norm_item() + eps)
                divide(x, norm, x_hat)
                dot_hat(to_first, qkv)
            else:
                qkv[...] = first_qkv[token]
            for (
                slots,
                keys,
                values,
                sums,
                sums_column,
                out,
                gate_up_,
                down,
                after,
            ) in layers:
                multiply(qk, turn, qk)
                slots[place][...] = new
                matmul(q, keys, group_scores)
                if safe:
                    np.copyto(row_scores, -math.inf, where=seen == 0.0)
                    np.subtract(row_scores, row_scores.max(axis=-1, keepdims=True), out=row_scores)
                exp(scores, scores)
                dot_scores(seen, sums)
                matmul(group_scores, values, heads)
                total_heads[...] = sums_column
                divide(attended, total, attended)
                dot_attended(out, y)
                add(x, y, x)

                dot(x, norm)
                norm[()] = sqrt(norm_item() + eps)
                divide(x, norm, x_hat)
                dot_hat(gate_up_, gate_up)
                exp(gate, e)
                add(e, ones, e)
                multiply(gate, up, gate)
                divide(gate, e, gate)
                dot_gate(down, y)
                add(x, y, x)

                if after is not None:
                    dot(x, norm)
                    norm[()] = sqrt(norm_item() + eps)
                    divide(x, norm, x_hat)
                    dot_hat(after, qkv)
            dot(unembedding, undivided)
            best = int(argmax())
            return best, sum_item(argmin()) > smallest and isfinite(logit(best))

        if not safe:
            self._steps[first] = step
        return step
