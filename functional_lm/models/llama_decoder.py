"""Decodes with a Llama, with constants folded in and all memory allocated beforehand.

It computes what `Transformer.step` computes. One token takes so little arithmetic that the calls
themselves dominate. So every array and view is made beforehand, each call writes into one of them,
and only the calls that NumPy starts fastest are used: `ndarray.dot`, and elementwise functions on
contiguous arrays of one shape.

With x̂ = x/√(Σx² + D·eps), a norm is x̂·√D·scale. The factors of x̂ are folded into the next matrix:

    attention     x̂ @ (√D·scale·qkv), where the queries are over √K already
    feed-forward  x̂ @ (−√D·scale·gate) = −a and x̂ @ (−√D·scale·up) = −u, so that
                  silu(a)·u = (−a)·(−u)/(1 + e^(−a)) needs no change of sign
    logits        x̂ @ (√D·scale·unembeddingᵀ)

Queries and keys are always interleaved: turning pairs "half" apart and turning neighbours is the
same but for the order of the columns, which the inner product of the two does not see.

Attention takes e^score without subtracting the largest score first. That is just as exact unless
it overflows or nearly vanishes, which shows in the sums and the logits; the step is then repeated
with the largest subtracted. Keys and values not yet written are zero, and ``seen`` excludes them.
A step of one token computes scores for whole blocks of positions, so that one set of views serves a
block. A pass over several rows, which are several texts or several tokens of one, takes matrices
in place of vectors, and reads each weight once for all.
"""

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from ..contract import Array, Tree, expect_logits
from ..numerics import row_dot
from ..rotation import rotations

__all__ = ["BLOCK", "CACHED", "LINE", "PANEL", "SMALL_PRODUCT", "SMALL_VOCABULARY", "LlamaDecoder"]

BLOCK = 16
"""Positions for which one set of views serves."""

SMALL_VOCABULARY = 1024
"""Up to this size, the first block's projections are tabulated by token."""

SMALL_PRODUCT = 10**6
"""OpenBLAS multiplies matrices of M·N·K up to this without copying them first, in half the time."""

CACHED = 2**24
"""Matrices of more bytes in all come from memory for each token, and lie in panels of columns."""

PANEL, PANEL_ROWS = 64, 4
"""Columns of a panel, which is read from end to end, and the fewest rows that OpenBLAS multiplies
it with at the speed of memory; a vector takes twice as long."""

LINE = 64
"""Bytes of a cache line. Products with a matrix that starts inside one take a tenth longer."""

Step: TypeAlias = Callable[[int, int], tuple[int, bool]]
"""Maps a token and its position to the likeliest next one, and whether the result is exact."""

Pass: TypeAlias = Callable[[list[int], bool], tuple[list[int], bool]]
"""Maps tokens to the likeliest ones after them; the flag subtracts the largest scores."""


class LlamaDecoder:
    """A Llama with the cache and the scratch of texts of up to ``max_seq_len`` tokens.

    Run it with floating-point warnings off.

    Attributes:
        pass_time: see `Decoder.pass_time`.
    """

    def __init__(self, params: Tree, *, config: Any) -> None:
        """Fold the parameters; ``config`` is that of `llama`, resolved."""
        weights, matrices = _fold(params, config)
        dtype = weights.embedding.dtype
        self._turns = np.tile(weights.rotation, config.n_heads + config.n_kv_heads)
        (S, half), L = weights.rotation.shape, config.n_layers
        H, G, K = config.n_heads, config.n_kv_heads, 2 * half
        D, F, V = config.d_model, config.d_ff, config.vocab_size
        self._config = config
        self._weights = weights
        self._large = sum(matrix.nbytes for matrix in matrices) > CACHED
        if self._large:
            matrices = [
                np.concatenate([_panels(half) for half in _halves(matrix, F)])
                if i % 4 == 3  # of gate and up, each in panels of its own
                else _panels(matrix)
                for i, matrix in enumerate(matrices)
            ]
        self._unembedding, *flat = _aligned_copies(matrices)
        self._blocks = [flat[i : i + 4] for i in range(0, len(flat), 4)]
        sizes = [D, D, D, (H + 2 * G) * K, H * S, H * K, H * K, 2 * F, F, F, V]
        self._scratch = _aligned([(size,) for size in sizes], dtype)
        (self._sums,) = _aligned([(L, H)], dtype)
        self._last = self._alone = self._scratch[0][None], self._scratch[-1][None]
        self._keys, self._values = (
            np.zeros((L, 0, G, K, S), dtype),
            np.zeros((L, 0, G, S, K), dtype),
        )
        self._positions = np.zeros(0, np.int64)
        self._ahead = 0  # how many tokens the last pass took
        self.pass_time = (1.0, 0.12) if self._large else (1.3, 0.225)

    def start(self, B: int) -> None:
        """Start with so many empty texts."""
        L, before, G, S, K = self._values.shape
        if before != B:
            self._keys, self._values, self._seen = _aligned(
                [(L, B, G, K, S), (L, B, G, S, K), (B, S)], self._keys.dtype
            )
            self._steps: dict[int, Step] = {}
            self._passes: dict[int, Pass] = {}
        for array in (self._keys, self._values, self._seen):
            array.fill(0.0)
        self._positions = np.zeros(B, np.int64)
        self._position = 0

    def load(self, cache: Any) -> None:
        """Start from the cache of `Transformer.step`."""
        self.start(len(cache.lengths))
        order = _key_order(self._config)
        self._positions = cache.lengths.copy()
        self._position = int(cache.lengths[0])
        for b, T in enumerate(cache.lengths):
            self._seen[b, :T] = 1.0
            for keys, values, block in zip(self._keys, self._values, cache.blocks, strict=True):
                keys[b, ..., :T] = block["mixer"].keys[b, :T, :, order].transpose(2, 0, 1)
                values[b, :, :T] = block["mixer"].values[b, :T].swapaxes(0, 1)

    @property
    def logits(self) -> Array:
        """The logits (T, V) after each token of the last call, which left their norm out."""
        x, undivided = self._last
        return undivided / np.sqrt(row_dot(x, x) + self._weights.eps)

    def step(self, token: int) -> int:
        """Take the next token, and return the likeliest one after it, the first of equal ones.

        Raises:
            ValueError: for logits that are not finite.
        """
        position = self._position
        if self._large:
            self._positions[0] = position
            self._position = position + 1
            return self._pass([token], 1)[0]
        first = position // BLOCK * BLOCK
        step = self._steps.get(first) or self._compile(first)
        best, exact = step(token, position)
        self._last = self._alone
        if not exact:
            best, _ = self._compile(first, safe=True)(token, position)
            expect_logits(self.logits)
        self._position = position + 1
        return best

    def step_all(self, tokens: list[int]) -> list[int]:
        """Take the next token of each text, and return the likeliest one after each.

        Raises:
            ValueError: for logits that are not finite.
        """
        best = self._pass(tokens, 1)
        self._positions += 1
        return best

    def look_ahead(self, tokens: list[int]) -> list[int]:
        """Take several tokens of one text, as `step_all` does; `keep` must follow."""
        self._ahead = len(tokens)
        self._positions[0] = self._position
        return self._pass(tokens, len(tokens))

    def keep(self, n: int) -> None:
        """Go on behind the first n of the tokens of `look_ahead`."""
        start, stop = self._position + n, self._position + self._ahead
        self._keys[..., start:stop] = 0.0
        self._values[..., start:stop, :] = 0.0
        self._seen[:, start:stop] = 0.0
        self._position = start

    def _pass(self, tokens: list[int], T: int) -> list[int]:
        self._passes[T] = run = self._passes.get(T) or self._compile_pass(T)
        best, exact = run(tokens, False)
        if not exact:
            best, _ = run(tokens, True)
            expect_logits(self.logits)
        return best

    def _compile(self, first: int, *, safe: bool = False) -> Step:
        """Return the step for the positions of a block."""
        weights, config = self._weights, self._config
        x, x_hat, y, qkv, scores, attended, total, gate_up, e, ones, undivided = self._scratch
        ones.fill(1.0)
        (S, half), H, G = weights.rotation.shape, config.n_heads, config.n_kv_heads
        K, R, end = 2 * half, H // G, min(first + BLOCK, S)
        turns = list(self._turns[first:end])
        qk = qkv[: (H + G) * K].view(weights.rotation.dtype)
        q, (new_key, new_value) = qkv[: H * K].reshape(G, R, K), qkv[H * K :].reshape(2, G, K)
        scores = scores[: H * end]
        row_scores, group_scores = scores.reshape(H, end), scores.reshape(G, R, end)
        heads, total_heads = attended.reshape(G, R, K), total.reshape(H, K)
        gate, up = gate_up[: len(e)], gate_up[len(e) :]
        all_seen, seen = self._seen[0], self._seen[0, :end]
        unembedding, to_first = self._unembedding, self._blocks[0][0]
        to_next = [*(block[0] for block in self._blocks[1:]), None]
        layers = [
            (
                [(keys[..., at], values[:, at]) for at in range(first, end)],  # (G, K) each
                keys[..., :end],  # (G, K, end)
                values[:, :end],  # (G, end, K)
                sums,
                sums[:, None],
                *block[1:],
                following,
            )
            for keys, values, sums, block, following in zip(
                self._keys[:, 0], self._values[:, 0], self._sums, self._blocks, to_next, strict=True
            )
        ]
        rows, first_qkv, eps = weights.embedding, weights.first_qkv, weights.eps
        norm = np.empty((), x.dtype)
        sums_flat = self._sums.reshape(-1)
        smallest = float(np.finfo(x.dtype).tiny) * 2.0**32  # below, too many digits may be lost
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
                key_slot, value_slot = slots[place]
                key_slot[...] = new_key
                value_slot[...] = new_value
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

    def _compile_pass(self, T: int) -> Pass:
        """Return the pass over T tokens of each text; T is one unless there is one text.

        Its rows are N = B·T. Attention multiplies along two axes: texts and key/value heads, or
        for one text, key/value heads and their query heads.
        """
        weights, config, all_seen = self._weights, self._config, self._seen
        (L, B, G, S, K), H, F = self._values.shape, config.n_heads, config.d_ff
        R, N, texts, table = H // G, B * T, np.arange(B), self._turns
        D, C, V = config.d_model, (H + 2 * G) * K, config.vocab_size
        least, width = (PANEL_ROWS, PANEL) if self._large else (1, 1)  # of what a product writes
        read, written = (D, D, H * K, F, F), (D, C, F, F, V)
        widths = [*read, *(-(-n // width) * width for n in written)]
        shapes: list[tuple[int, ...]] = [(max(N, least), n) for n in widths]
        shapes += [(N,), (L, B, H * T, 1), (B * H * T * S,)]
        *padded, norm, all_sums, flat = _aligned(shapes, dtype := weights.embedding.dtype)
        x, x_hat, attended, e, hidden, y, qkv, gate, up, undivided = (
            array[:N, :n] for array, n in zip(padded, read + written, strict=True)
        )
        norms, eps, ones = norm[:, None], np.full(N, weights.eps, dtype), np.ones((N, F), dtype)
        qk = qkv[:, : (H + G) * K].view(weights.rotation.dtype)
        q, heads = qkv[:, : H * K].reshape(N, G, R, K), attended.reshape(N, G, R, K)
        new = qkv[:, H * K :].reshape(N, 2, G, K)
        axes = (B, G, R)  # of the queries; attention multiplies by the last of them
        if T > 1:
            axes, new = (G, R, T), new.transpose(1, 2, 0, 3)  # (2, G, T, K)
            q, heads = (rows.transpose(1, 2, 0, 3) for rows in (q, heads))  # (G, R, T, K)
        not_ahead = np.tri(T, dtype=dtype)
        smallest = float(np.finfo(dtype).tiny) * 2.0**32
        whole_x, whole_x_hat, whole_attended, _, whole_hidden, *out = padded
        inputs = whole_x_hat, whole_attended, whole_x_hat, whole_x_hat, whole_hidden, whole_x
        outputs = out[1], out[0], out[2], out[3], out[0], out[4]
        *products, logits = map(_product, inputs, outputs)
        blocks = []
        for keys, values, sums, (*before, gate_up, down) in zip(
            self._keys, self._values, all_sums, self._blocks, strict=True
        ):
            matrices = *before, *_halves(gate_up, F), down
            bound = [product(matrix) for product, matrix in zip(products, matrices, strict=True)]
            blocks.append((keys, values, sums, sums.reshape(*axes, 1), *bound))
        to_logits = logits(self._unembedding)
        add, multiply, divide, exp, matmul = np.add, np.multiply, np.divide, np.exp, np.matmul
        vecdot, sqrt, take = np.vecdot, np.sqrt, np.take

        def normed() -> None:
            vecdot(x, x, norm)
            add(norm, eps, norm)
            sqrt(norm, norm)
            divide(x, norms, x_hat)

        def run(tokens: list[int], safe: bool) -> tuple[list[int], bool]:
            positions = self._positions
            start, stop = int(positions[0]), int(positions.max()) + T
            if T == 1:
                all_seen[texts, positions] = 1.0
            else:
                all_seen[0, :stop] = 1.0
            seen = all_seen[:, :stop, None]
            turns = table[positions] if T == 1 else table[start:stop]
            scores = flat[: B * H * T * stop].reshape(*axes, stop)
            rows, among_new = scores.reshape(B, H * T, stop), scores[..., start:]
            ids = np.array(tokens)
            take(weights.embedding, ids, 0, x, "clip")  # other modes copy twice
            for i, block in enumerate(blocks):
                all_keys, all_values, sums, totals, to_qkv, to_y, to_gate, to_up, down = block
                if i or weights.first_qkv is None:
                    normed()
                    to_qkv()
                else:
                    take(weights.first_qkv, ids, 0, qkv, "clip")
                multiply(qk, turns, qk)
                if T == 1:
                    all_keys[texts, ..., positions] = new[:, 0]
                    all_values[texts, :, positions] = new[:, 1]
                    keys, values = all_keys[..., :stop], all_values[:, :, :stop]
                else:
                    all_keys[0, ..., start:stop] = new[0].swapaxes(1, 2)
                    all_values[0, :, start:stop] = new[1]
                    keys, values = all_keys[0, :, None, :, :stop], all_values[0, :, None, :stop]
                matmul(q, keys, scores)
                if safe:
                    unseen = seen[:, None, None, :, 0] if T == 1 else not_ahead
                    np.copyto(scores if T == 1 else among_new, -math.inf, where=unseen == 0.0)
                    np.subtract(scores, scores.max(axis=-1, keepdims=True), scores)
                exp(scores, scores)
                if T == 1:
                    matmul(rows, seen, sums)
                else:
                    multiply(among_new, not_ahead, among_new)
                    rows[0].dot(seen[0], sums[0])
                matmul(scores, values, heads)
                divide(heads, totals, heads)
                to_y()
                add(x, y, x)

                normed()
                to_gate()
                to_up()
                exp(gate, e)
                add(e, ones, e)
                multiply(gate, up, hidden)
                divide(hidden, e, hidden)
                down()
                add(x, y, x)
            to_logits()
            self._last = x, undivided
            exact = all_sums.min() > smallest and math.isfinite(undivided.max(axis=1).sum())
            return undivided.argmax(axis=1).tolist(), bool(exact)

        return run


class _Folded(NamedTuple):
    """What a step needs besides its matrices."""

    embedding: Array  # (V, D)
    first_qkv: Array | None  # (V, (H+2G)·K): the first block's, which depend on the token alone
    rotation: Array  # (S, K/2) complex: e^{iφ} at each position
    eps: float  # added to Σx²


def _fold(params: Tree, config: Any) -> tuple[_Folded, list[Array]]:
    """Return the folded parameters: the unembedding, then qkv, out, up and down of each block."""
    table = params["embedding"]["weight"]
    unembedding = params["embedding" if config.tie_embeddings else "unembedding"]["weight"]
    root, eps = math.sqrt(config.d_model), config.d_model * config.norm_eps
    matrices = [(root * params["norm"]["scale"] * unembedding).T]
    for block in params["blocks"]:
        mixer, mlp = block["mixer"], block["mlp"]
        matrices += [
            root * block["norm1"]["scale"][:, None] * _interleaved(mixer["qkv"]["weight"], config),
            mixer["out"]["weight"],
            -root * block["norm2"]["scale"][:, None] * mlp["up"]["weight"],
            mlp["down"]["weight"],
        ]
    first_qkv = None
    if config.vocab_size <= SMALL_VOCABULARY:
        with np.errstate(invalid="ignore"):  # of a token of zeros, which may never come
            first_qkv = (table / np.sqrt(row_dot(table, table) + eps)) @ matrices[1]
    positions = np.arange(config.max_seq_len)
    rotation = rotations(positions, config.head_size, config.rope_theta, table.dtype)[:, 0]
    return _Folded(table, first_qkv, rotation, eps), matrices


def _product(x: Array, y: Array) -> Callable[[Array], Callable[[], Any]]:
    """Return what makes y = x @ matrix of a matrix, in strips of its columns.

    They are the panels of the matrix, or as many as it takes for each to be a `SMALL_PRODUCT`.
    """
    (T, D), N = x.shape, y.shape[1]
    least = -(-T * D * N // SMALL_PRODUCT)
    n = next((n for n in range(least, 8 * least) if N % n == 0), 1)

    def bind(matrix: Array) -> Callable[[], Any]:
        if matrix.ndim == 2 and n == 1:
            if matrix.flags.c_contiguous:  # of another one `dot` makes a copy
                return functools.partial(x.dot, matrix, y)
            return functools.partial(np.matmul, x, matrix, y)
        strips = matrix if matrix.ndim == 3 else matrix.reshape(D, n, N // n).swapaxes(0, 1)
        out = y.reshape(T, *strips.shape[::2]).swapaxes(0, 1)
        return functools.partial(np.matmul, x, strips, out)

    return bind


def _halves(gate_up: Array, F: int) -> tuple[Array, Array]:
    """Return the gate's matrix and the other, from columns side by side or from panels."""
    if gate_up.ndim == 2:
        return gate_up[:, :F], gate_up[:, F:]
    gate, up = np.split(gate_up, 2)
    return gate, up


def _key_order(config: Any) -> Array:
    """Return the order (K,) of columns that makes the pairs of a head neighbours."""
    order = np.arange(config.head_size)
    return order.reshape(2, -1).T.reshape(-1) if config.rope_pairing == "half" else order


def _interleaved(qkv: Array, config: Any) -> Array:
    """Return qkv with the queries over √K, and the columns of queries and keys interleaved."""
    H, G, K = config.n_heads, config.n_kv_heads, config.head_size
    heads = qkv.reshape(len(qkv), H + 2 * G, K).copy()
    heads[:, : H + G] = heads[:, : H + G, _key_order(config)]
    heads[:, :H] *= 1 / math.sqrt(K)
    return heads.reshape(qkv.shape)


def _panels(matrix: Array) -> Array:
    """Return (D, N) as (n, D, `PANEL`), with columns of zeros behind the last ones."""
    D, N = matrix.shape
    n = -(-N // PANEL)
    whole = np.zeros((D, n * PANEL), matrix.dtype)
    whole[:, :N] = matrix
    return whole.reshape(D, n, PANEL).swapaxes(0, 1)


def _aligned(shapes: list[tuple[int, ...]], dtype: np.dtype) -> list[Array]:
    """Return arrays of zeros in one piece of memory, each at the start of a cache line."""
    sizes = [math.prod(shape) * dtype.itemsize for shape in shapes]
    starts = np.cumsum([0, *(-(-size // LINE) * LINE for size in sizes)])
    memory = np.zeros(starts[-1] + LINE, np.uint8)
    memory = memory[-memory.ctypes.data % LINE :]
    return [
        memory[start : start + size].view(dtype).reshape(shape)
        for start, size, shape in zip(starts[:-1], sizes, shapes, strict=True)
    ]


def _aligned_copies(arrays: list[Array]) -> list[Array]:
    copies = _aligned([array.shape for array in arrays], arrays[0].dtype)
    for copy, array in zip(copies, arrays, strict=True):
        copy[...] = array
    return copies
