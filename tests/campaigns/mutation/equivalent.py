"""The mutants that compute the same, each with a reason.

An entry names a function, an operator and the expression that changes, so that it survives edits
of the statements around it. In the table, a line without indentation is ``file function``; a
line with "→" is ``operator | before → after`` (of `mutants.Mutant.key`), where … stands for
anything; and the text below is the reason for the lines above it. A line that fits no mutant, or
only killed ones, is an error.
"""

import re
from collections.abc import Iterable
from typing import NamedTuple

_TABLE = """
layers/softmax_attention/attention.py forward
  negate | distance = distances(T, S, visibility.offset) → …
    ALiBi takes the size of a distance.
  exchange_names | probs.shape → scores.shape
    They are equal.

layers/softmax_attention/attention.py _masked_softmax
  decide | allowed is not None and (not allowed.all()) → allowed is not None
    Adds zeros where every key is allowed; it takes time.
  drop_call | np.where(allowed, 0.0, -math.inf).astype(scores.dtype) → …
    Added in place, in the dtype of the scores; adding 0 or −∞ rounds nothing.
  change_constant | np.copyto(top, 0.0, where=sees_none) → np.copyto(top, 1.0, where=sees_none)
    All scores of such a row are −∞, and stay so minus any finite number.
  change_constant | np.copyto(total, 1.0, where=sees_none) → …
    The exponentials of such a row are zero, and zero over any positive number is zero.

layers/softmax_attention/attention.py _ungroup
  exchange_elements | B, G, rows, K = x.shape → B, rows, G, K = x.shape
    G and rows are used in their product only.

layers/adapters/lora.py forward
  drop_call | y.copy() → y
  drop_statement | y = y.copy() → pass
    The base of the cases, linear, does not keep its output; a unit test has one that does.
  exchange_names | x.shape → y.shape
    They have the same leading axes.

layers/adapters/dora.py forward
  exchange_elements | lengths, ratio = (np.empty_like(magnitude), np.empty_like(magnitude)) → …
    Both are empty arrays of one shape.
  exchange_names | _adapted(weight, a, b, part, scale) → _adapted(merged, a, b, part, scale)
    The columns of this range are still those of the weight.
  decide | if multiplier is not None: → if True:
  exchange_names | multiplier is not None → …
    Without dropout it changes nothing.
  drop_call | z.copy() → z
    The base of the cases, linear, does not keep its output; a unit test has one that does.

layers/adapters/dora.py vjp
  add_transpose | a @ (b @ eb) → a @ (b @ eb).swapaxes(-1, -2)
    B·(e·B)ᵀ is symmetric.
  decide | if d_base['weight'] is not None: → if True:
  drop_subscript | d_base['weight'] → d_base
    The base of the cases is not frozen; a unit test has one that is.
  drop_call | d_base['weight'].copy() → d_base['weight']
    What linear returns is its own; a copy is made for other bases.

layers/adapters/bottleneck.py vjp
  repeat_factor | flat @ up.T * (activated > 0) → …
    A mask of zeros and ones is its own square.
  exchange_names | h.shape → g.shape
    `expect_cotangent` requires that they are equal.

layers/feedforward/relu.py vjp
  repeat_factor | g * (x > 0.0) → g * (x > 0.0) * (x > 0.0)
    A mask of zeros and ones is its own square.

layers/feedforward/relu_squared.py forward
  exchange_names | relu * relu → relu * x
  exchange_names | relu * relu → x * relu
    Where relu is not zero, it is x.

layers/routing/top_k_router.py forward
  exchange_names | len(logits) → len(chosen)
  exchange_names | chosen.ravel → experts.ravel
  exchange_names | chosen.size → …
    Each has a row for every row of logits; chosen is experts, reshaped, with a weight for each.
  swap_operands | probs.sum(axis=0) @ shares → shares @ probs.sum(axis=0)
    The inner product of two vectors.

layers/routing/top_k_router.py vjp
  exchange_names | experts.shape → d_weights.shape
    `expect_cotangent` requires that they are equal.

layers/routing/routed_experts.py forward
  drop_keyword | np.argsort(experts.ravel(), kind='stable') → np.argsort(experts.ravel())
    The order of an expert's rows changes nothing but rounding.
  exchange_names | len(up) → len(down)
    Both have a matrix for each expert.

layers/routing/routed_experts.py vjp
  exchange_names | copies.shape → down.shape
  exchange_names | copies.shape → g.shape
    All have D as their last axis.
  negate | d_weights = np.empty_like(weights) → d_weights = -np.empty_like(weights)
    All of it is written.

layers/routing/routed_experts.py _products
  drop_keyword | zip(_slices(counts), weight, strict=True) → zip(_slices(counts), weight)
    Both have an entry for each expert.

layers/routing/routed_experts.py _outer_products
  drop_keyword | zip(_slices(counts), d_weight, strict=True) → zip(_slices(counts), d_weight)
    Both have an entry for each expert.

layers/routing/routed_experts.py _sum_of_copies
  drop_call | np.empty_like(copies) → copies
    NumPy permutes an array in place as it does into another.
  negate | unsorted = np.empty_like(copies) → unsorted = -np.empty_like(copies)
    All of it is written.
  exchange_names | copies.shape → unsorted.shape
    It was made in that shape.

layers/dropout.py forward
  decide | key is None or rate == 0.0 → key is None
    At rate 0 every draw is kept and scaled by 1/1.
  change_constant | 1.0 / (1.0 - rate) if rate < 1.0 else 0.0 → …
  repeat_factor | kept.astype(x.dtype) * … → … * kept.astype(x.dtype)
    kept is 0 or 1, and at rate 1 nothing is kept.
  exchange_names | Residuals(multiplier, x) → Residuals(multiplier, multiplier)
    The vjp reads only the shape and the dtype of this x.

layers/softmax_attention/flash_attention.py forward
  exchange_elements | block_q, block_k = … → block_k, block_q = …
  exchange_… | Settings(… block_q, block_k) → Settings(visibility, soft_cap, slopes, dropout, …)
    Tiles of any size compute the same, but for rounding.

layers/softmax_attention/flash_attention.py forward
  drop_call | tuple(alibi_slopes(H).tolist()) → alibi_slopes(H).tolist()
    It is only indexed.
  change_constant | 0.0 if sinks is None else 1.0 → 1.0 if sinks is None else 1.0
  decide | 0.0 if sinks is None else 1.0 → 1.0
  exchange_names | sinks is None → …
    The first key that a query sees takes it to zero; one that sees none divides zero by it.
  exchange_names | q.shape → …
    Of the shape, T and H are read.

layers/softmax_attention/flash_attention.py vjp
  exchange_names | q.shape → …
    For the dropout T and H are read.

layers/softmax_attention/flash_attention.py _offset
  drop_call | int(offset[b]) → offset[b]
    A NumPy integer counts as well.

layers/softmax_attention/flash_attention.py _scores
  exchange_names | len(q) → len(scores)
    There is a row for each query.
  negate | distance = distances(len(q), len(k), offset) → …
    ALiBi takes the size of a distance.

layers/softmax_attention/flash_attention.py vjp
  exchange_names | k.shape → v.shape
    v differs from k in its last size alone.
  negate | d_q_rows = np.zeros_like(q_rows) → d_q_rows = -np.zeros_like(q_rows)
    −0 plus any number is the number.

layers/softmax_attention/flash_attention.py forward
  exchange_names | y[..., :1] → q[..., :1]
    The queries have the shape and the dtype of y.
  drop_dtype | np.zeros((len(m), v.shape[-1]), q.dtype) → np.zeros((len(m), v.shape[-1]))
    Summed in float64 and then written in the dtype of y: only rounding differs.
  exchange_names | len(m) → len(q_rows)
    Both have one entry for each query of the tile.
  decide | if not out[:, -1].all(): → if True:
  drop_subscript | out[:, -1] → out
  change_constant | -1 → 0
    The statement inside writes only to the rows of queries that see no key, which are zero.
  change_constant | np.copyto(out[:, -1:], 1.0, where=…) → …
    Zero over any positive number is zero, and so are its gradients.

layers/softmax_attention/flash_attention.py _tiles
  decide | min(rows.stop + offset, S) if causal else S → S
  exchange_names | min(rows.stop + offset, S) if causal else S → …
  drop_call | min(column + settings.block_k, stop) → column + settings.block_k
  decide | 0 if window is None else max(…, 0) → 0
  change_sign | start + offset - window + 1 → start + offset - window - 1
  drop_term | start + offset - window + 1 → start + offset - window
  drop_term | start + offset - window → -window
  drop_term | start + offset → offset
    More keys than needed, and those are hidden; an offset or a window is causal always.

layers/softmax_attention/flash_attention.py _hide
  change_comparison | offset >= len(scores[0]) - 1 → offset > len(scores[0]) - 1
  change_sign | len(scores[0]) - 1 → len(scores[0]) + 1
  drop_term | len(scores[0]) - 1 → len(scores[0])
  change_comparison | offset + len(scores) <= window → offset + len(scores) < window
  decide | window is None or offset + len(scores) <= window → window is None
  exchange_names | offset + len(scores) → window + len(scores)
  exchange_names | offset + len(scores) <= window → …
  decide | causal and (not (sees_last and sees_first)) → causal
    Hiding nothing changes nothing; it takes time.
  drop_call | np.asarray(visible(…)) → …
    Where attention is causal, `visible` returns an array.

layers/linear.py forward
  drop_call | rows(x) → x

layers/linear.py input_vjp
  drop_call | rows(g) → g

layers/unembedding.py forward
  drop_call | rows(x) → x
    A product maps each row by itself, however the rows are stacked.

layers/feedforward/gated.py forward
  negate | x.shape[-1] // 2 → -(x.shape[-1] // 2)
    F from the end of 2F is F from the start.

layers/feedforward/swiglu.py forward
  negate | x.shape[-1] // 2 → -(x.shape[-1] // 2)
    F from the end of 2F is F from the start.

layers/linear.py forward
  exchange_names | weight.shape → y.shape
    y has the columns of weight.

layers/softmax_attention/rotary_attention.py forward
  negate | rotation = _rotations(…) → rotation = -_rotations(…)

layers/softmax_attention/rotary_attention.py _rotations
  negate | rotation = rotations(…) → rotation = -rotations(…)
  negate | return out → return -out
    Queries and keys both change sign, and the scores are their products.
  strong_scalar | math.sqrt(K) → np.sqrt(K)
    Written to an array of the right dtype; only rounding differs.

layers/softmax_attention/rotary_attention.py forward
  drop_call | tuple(weights) → weights
    The vjp asks for entries, which a list has too.

layers/softmax_attention/rotary_attention.py _exponentials
  change_comparison | … HIGHEST → …
  change_comparison | … LOWEST → …
  decide | if scores.max(initial=-math.inf) <= HIGHEST: → if False:
  decide | if total.min(initial=math.inf) >= LOWEST: → if False:
  negate | -math.inf → math.inf
  negate | total = _row_sums(scores) → total = -_row_sums(scores)
  exchange_names | total.min → scores.min
    Where the bound does not hold the maximum is subtracted, and E/Z is the same; without it is
    faster. At the bound itself both ways hold.

layers/softmax_attention/rotary_attention.py _row_sums
  drop_dtype | np.ones(x.shape[-1], x.dtype) → np.ones(x.shape[-1])
    The sums are compared with a bound, and one over them is written to the right dtype.

layers/softmax_attention/rotary_attention.py _scores
  exchange_names | scores.shape → q.shape
    The scores have a row for each query.
  drop_dtype | np.full((n, n), -math.inf, scores.dtype) → np.full((n, n), -math.inf)
    Added in place, in the dtype of the scores; adding 0 or −∞ rounds nothing.

layers/softmax_attention/rotary_attention.py _sum_of_group
  change_constant | out.shape[2] → out.shape[3]
  decide | if out.shape[2] != a.shape[2]: → if True:
  decide | if add: → if True:
  drop_subscript | a.shape[2] → a.shape
  drop_subscript | out.shape[2] → out.shape
    The sum over an axis of size one changes nothing, nor does writing a product later.
  exchange_names | a.shape → …
    All three have the query heads of a group there.

losses/cross_entropy.py forward
  change_constant | np.where(kept, target, 0) → …
    Any class will do for a row that does not count.
  exchange_names | len(kept) → len(target)
    There is one target for each row.
  exchange_names | x.shape → d_logits.shape
  exchange_names | x.shape → exponentials.shape
  exchange_names | x.shape → logits.shape
    All end in V.
  strong_scalar | 1.0 - label_smoothing → np.float64(1.0) - label_smoothing
  strong_scalar | 1.0 + 2.0 * z_loss * z → np.float64(1.0) + 2.0 * z_loss * z
  strong_scalar | 2.0 * z_loss → np.float64(2.0) * z_loss
    Written to an array of the right dtype; only rounding differs.
  decide | if z_loss: → if True:
  decide | if label_smoothing: → if True:
  exchange_names | if z_loss: → if ignore_index:
  exchange_names | if label_smoothing: → if ignore_index:
    At zero the branch adds nothing.

losses/linear_cross_entropy.py forward
  … | if chunk_size is None: → if True:
  … | _LOGITS … → …
  … | … _LOGITS … → …
  … | len(weight) + 1 → …
  exchange_names | len(weight) → len(x)
  exchange_names | len(weight) → len(settings)
  drop_call | max(256, …) → 256
    The loss does not depend on the rows of a chunk.
  exchange_elements | recompute, frozen = … → …
  exchange_elements | with_x, with_weight = … → …
  decide | recompute or frozen → recompute
  exchange_names | not recompute → not frozen
  exchange_names | recompute or frozen → …
  exchange_names | _in_chunks(*inputs, settings, chunk_size, with_x, with_weight) → …

losses/linear_cross_entropy.py vjp
  decide | if d_weight is None: → if True:
  exchange_names | d_weight is None → d_x is None
  drop_call | residuals._replace(d_x=d_x) → residuals
  drop_keyword | residuals._replace(d_x=d_x) → residuals._replace()

losses/linear_cross_entropy.py input_vjp
  decide | if d_x is None: → if True:
    Made in the forward or in the vjp, a gradient is the same function of the same arrays.

losses/linear_cross_entropy.py _in_chunks
  exchange_names | len(x) → …
    There is one loss and one target for each row of x.
  drop_call | min(chunk_size, len(x)) → chunk_size
    The buffer is larger than what is used of it.
  drop_dtype | np.empty((min(chunk_size, len(x)), len(weight)), x.dtype) → …
    A product in float32 is written to float64 without rounding; what leaves is cast back.
  decide | np.empty(x.shape, x.dtype) if with_x else None → np.empty(x.shape, x.dtype)
    The array is made and not used.
  exchange_names | logits[at_target] → scratch[at_target]
  exchange_names | d_logits.T → scratch.T
    The logits are the first rows of the buffer; in the first chunk, all of it.
  exchange_names | np.matmul(d_logits, weight, out=d_x[part]) → np.matmul(logits, …)
  exchange_names | d_logits.T → logits.T
  exchange_names | d_logits[:, some] → logits[:, some]
    They are one array: divide returns what it wrote to.
  strong_scalar | 1.0 - label_smoothing → np.float64(1.0) - label_smoothing
  strong_scalar | 1.0 + 2.0 * z_loss * z → np.float64(1.0) + 2.0 * z_loss * z
  strong_scalar | 2.0 * z_loss → np.float64(2.0) * z_loss
  strong_scalar | 1.0 - logits * logits → np.float64(1.0) - logits * logits
    Written to an array of the right dtype; only rounding differs.
  decide | if z_loss: → if True:
  exchange_names | if z_loss: → …
  decide | if label_smoothing: → if True:
  exchange_names | if label_smoothing: → …
    At zero the branch adds nothing.
  drop_keyword | logits.mean(axis=-1) → logits.mean()
    Only the sum of the losses counts.
  exchange_names | len(logits) → len(top)
    Each row has a maximum.
  exchange_names | len(weight) → len(d_weight)
    The cotangent of weight has its length.

models/language_model.py vjp
  repeat_factor | d_auxiliary * g → d_auxiliary * g * d_auxiliary
    It is 0 or 1.

models/transformer.py vjp
  decide | if not model.frozen: → if True:
    The backward of frozen layers gives None; it only takes time.

models/mixers/multi_latent_attention.py vjp
  exchange_names | d_attended.shape → g.shape
    Both are (B, T, …), and the rest is not used.

models/mixers/self_attention.py vjp
  exchange_names | gate is not None → …
  exchange_names | prefix is not None → r_prefix is not None
  exchange_names | d_gate_x is None → …
    A layer that is not there has neither residuals nor a cotangent.

models/mixers/self_attention.py _prepare_vjp
  exchange_names | norm is not None → r_norm is not None
    A norm that is not there has no residuals.

models/mixers/self_attention.py _packed
  change_constant | heads[0] → heads[1]
    Queries and keys share B and T.

models/mixers/short_convolution.py vjp
  negate | {'weight': inner.weight} → {'weight': -inner.weight}
    Only its shape is read.
  negate | unread = init_cache({'weight': inner.weight}, len(inner.padded)) → …
    −0 is as good as 0.

layers/recurrent/causal_convolution.py forward
  negate | y = np.zeros_like(text) → y = -np.zeros_like(text)
    −0 plus any number is the number.

layers/recurrent/causal_convolution.py vjp
  negate | d_padded = np.zeros_like(padded) → d_padded = -np.zeros_like(padded)
    −0 plus any number is the number.

layers/recurrent/linear_attention.py forward
  exchange_names | q.shape → k.shape
    Queries and keys have one shape.

layers/recurrent/linear_attention.py vjp
  exchange_names | q.shape → ….shape
    All have the positions of a chunk in that place.

layers/recurrent/linear_attention.py _causal
  repeat_factor | scores * np.tri(…) → …
    The factor is 0 or 1.
  write_to_argument | scores * np.tri(…) → …
    The scores are made for this call.

layers/recurrent/gated_delta_rule.py forward
  exchange_names | len(q) → len(…)
    All have an entry for each chunk.
  exchange_names | beta * before → beta * within
    The substitution reads what is below the diagonal only.

layers/recurrent/gated_delta_rule.py vjp
  exchange_names | q.shape → ….shape
    All have the positions of a chunk in that place.
  negate | d_left = np.empty_like(left) → d_left = -np.empty_like(left)
    Every entry is written before it is read.

layers/recurrent/gated_delta_rule.py _parts
  exchange_names | left.shape → within.shape
    Both have the positions of a chunk in that place.
  repeat_factor | within * np.tri(…) → …
    The factor is 0 or 1.

layers/recurrent/gated_delta_rule.py _inverse
  drop_call | np.zeros_like(lower) → lower
    Each row is read before it is overwritten, and there is nothing above the diagonal.
  negate | inverse = np.zeros_like(lower) → inverse = -np.zeros_like(lower)
    −0 above the diagonal is never read but in sums.
  change_constant | t + 1 → t + 2
    The next step overwrites the second row.

layers/norms/l2_norm.py vjp
  negate | x * scale → -(x * scale)
    y occurs twice in a product.

chunks.py split
  change_constant | max(-(-T // expect_int('chunk_size', chunk_size)), 1) → …
  negate | -(-T // expect_int('chunk_size', chunk_size)) → …
  negate | -T // expect_int('chunk_size', chunk_size) → …
  negate | -T → T
  drop_factor | -T // expect_int('chunk_size', chunk_size) → …
  drop_factor | -T // n → -T
    Chunks of any number and length compute the same, but for rounding.
  decide | if n * C > T: → if True:
  change_comparison | n * C > T → n * C >= T
  repeat_factor | n * C → …
    Filling up with no rows changes nothing.

chunks.py decays
  repeat_factor | log_decay * np.tri(C, 1 + C, dtype=dtype) → …
  repeat_factor | np.exp(exponents) * np.tri(C, 1 + C, 1, dtype) → …
    The factor is 0 or 1.

chunks.py decays_vjp
  repeat_factor | inside * np.tri(C, 1 + C, dtype=g.dtype) → …
    The factor is 0 or 1.
  exchange_names | left.shape → g.shape
    Both have the same shape.
  write_to_argument | g * left → np.multiply(g, left, out=g)
    A vjp makes this g for the call alone.
  drop_call | np.asarray(…) → …
    A sum that keeps its axes is an array already.

numerics.py sum_rows
  change_constant | max(math.isqrt(len(x)), 1) → max(math.isqrt(len(x)), 2)
  drop_call | math.isqrt(len(x)) → len(x)
  drop_factor | len(x) // block → block
  drop_factor | len(x) // block * block → block
    A sum in blocks and a rest is the sum of all rows for any block of at least one row.
  decide | total if whole == len(x) else total + … → total + …
  exchange_names | len(x) → len(blocks)
  exchange_names | whole == len(x) → block == len(x)
    With no rest, the sum of no rows is zero.

numerics.py softmax
  drop_statement | x = np.ascontiguousarray(x) → pass
    Only the layout differs.
  negate | exponentials = … → exponentials = -…
    The signs of E and of Z cancel in E/Z.

numerics.py normal_cdf
  change_comparison | x > 0 → x >= 0
    At 0 the tail is 1/2 on both sides.

numerics.py segment_sum
  change_comparison | n_segments <= _ONE_HOT_LIMIT → n_segments < _ONE_HOT_LIMIT
  decide | if n_segments <= _ONE_HOT_LIMIT: → …
    Both ways compute the sum of the rows of each id; the limit decides which is faster.
  drop_call | one_hot.astype(values.dtype) → one_hot
    A product of booleans and floats is that of the booleans cast to the floats' dtype.
  exchange_names | ids.size → values.size
    They differ only for rows of no columns, where the result is empty either way.
  drop_keyword | np.argsort(ids, kind='stable') → np.argsort(ids)
    The rows of an id are added in another order: only rounding differs.
  drop_keyword | np.add.reduceat(values[order], starts, axis=0) → …
    0 is the default of axis.

layers/recurrent/selective_scan.py forward
  negate | H // G → -(H // G)
    A negative size stands for what is left, as the other sizes are G and 1.
  exchange_names | len(X) → len(…)
    All have an entry for each chunk.
  change_constant | states[0] → states[1]
  exchange_names | states[0] → written[0]
    Only their shape is read here.

layers/recurrent/selective_scan.py vjp
  exchange_names | len(X) → len(…)
    All have an entry for each chunk.
  exchange_names | X.shape → ….shape
    All have the positions of a chunk in that place.
  negate | d_states = np.empty_like(states) → …
  negate | d_decay = np.empty_like(decay) → …
    Every entry is written before it is read.
  change_constant | -1 → 0
  exchange_names | states[-1] → …
    Only their shape is read here.

layers/recurrent/selective_scan.py _join
  exchange_elements | n, B, G, R, Q, K = chunks.shape → n, B, R, G, Q, K = chunks.shape
    G and R are used in their product only.

models/mixers/mamba2.py vjp
  exchange_names | d_y.shape → ….shape
    Only the first two sizes are read, which all share.
  drop_keyword | zip(LAYERS, d_params, strict=True) → …
    Both have one entry for each of the six layers.
"""

Key = tuple[str, ...]


class Entry(NamedTuple):
    """Why some mutants of a function compute the same."""

    file: str
    function: str
    change: str  # a line of the table
    reason: str
    pattern: re.Pattern[str]

    def fits(self, key: Key) -> bool:
        """Tell whether the entry describes a mutant."""
        file, function, operator, before, after = key
        same = (self.file, self.function) == (file, function)
        return same and bool(self.pattern.fullmatch(f"{operator} | {before} → {after}"))


def entries() -> list[Entry]:
    """Return the table."""
    found: list[Entry] = []
    place, pending, reason = ["", ""], [], ""
    for line in [*_TABLE.splitlines(), "end end"]:
        if line.startswith("    "):
            reason = f"{reason} {line.strip()}".strip()
            continue
        if reason:
            for file, function, change in pending:
                pattern = re.compile(".*".join(map(re.escape, change.split("…"))))
                found.append(Entry(file, function, change, reason, pattern))
            pending, reason = [], ""
        if line.startswith("  "):
            pending.append((*place, line.strip()))
        elif line:
            place = line.split()
    return found


def reason_for(key: Key, known: Iterable[Entry]) -> str:
    """Return the reason of the first entry that fits a mutant, or ""."""
    return next((entry.reason for entry in known if entry.fits(key)), "")
