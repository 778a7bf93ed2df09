"""The mutants that compute the same, each with its proof.

An entry is a header ``file function operator``, the statement before (``-``) and after (``+``; more
than one if the proof is the same), and the proof. The proof "random" makes the script run 10⁴
random inputs and require agreement. The second and later mutants with the same texts in one
function have the operator ``name#2`` and so on. An entry that fits no mutant, or one that is
killed, is an error.
"""

_ENTRIES = """
heads.py causal_mask decide
- S = T if n_keys is None else expect_int('n_keys', n_keys, minimum=0)
+ S = expect_int('n_keys', n_keys, minimum=0)
The forward always passes n_keys; the default is for callers from outside.

layers/attention.py _masked_softmax change_constant
- np.copyto(top, 0.0, where=sees_none)
+ np.copyto(top, 1.0, where=sees_none)
The scores of such a row are all −∞; minus any finite number they stay so, and exp gives zero.

layers/attention.py _masked_softmax change_constant
- np.copyto(total, 1.0, where=sees_none)
+ np.copyto(total, 2.0, where=sees_none)
The exponentials of such a row are all zero, and zero over any positive number is zero.

layers/attention.py _masked_softmax change_constant
- allowed = np.ones(1, bool)
+ allowed = np.ones(2, bool)
It is read by `any` alone, and one true entry says as much as two.

layers/attention.py _masked_softmax change_constant
- scores += np.where(allowed, 0.0, -math.inf).astype(scores.dtype)
+ scores += np.where(allowed, 1.0, -math.inf).astype(scores.dtype)
A constant added to every score that counts in a row leaves the softmax of the row as it is.

layers/attention.py _masked_softmax drop_cast
- scores += np.where(allowed, 0.0, -math.inf).astype(scores.dtype)
+ scores += np.where(allowed, 0.0, -math.inf)
The sum is written in place, in the dtype of the scores; adding zero or −∞ rounds nothing.

layers/attention.py _masked_softmax drop_keyword
- np.exp(np.subtract(scores, top, out=scores), out=scores)
+ np.exp(np.subtract(scores, top), out=scores)
The difference is read by exp alone, which writes the same numbers to scores; a temporary more.

layers/attention.py _ungroup drop_cast
- return np.ascontiguousarray(heads.swapaxes(1, 2))
+ return heads.swapaxes(1, 2)
The same numbers in another layout, which the contract leaves open; the copy is for the speed of
what comes next.

layers/attention.py _ungroup exchange_elements
- B, G, rows, K = x.shape
+ B, rows, G, K = x.shape
G and rows are used in their product only.

layers/attention.py forward negate
- scores = q @ k.swapaxes(-1, -2)
+ scores = q @ k.swapaxes(-1, 2)
Of four axes, 2 and −2 are the same.

layers/attention.py vjp negate
- d_v = probs.swapaxes(-1, -2) @ g
+ d_v = probs.swapaxes(-1, 2) @ g
- d_probs = g @ v.swapaxes(-1, -2)
+ d_probs = g @ v.swapaxes(-1, 2)
- d_k = d_scores.swapaxes(-1, -2) @ q
+ d_k = d_scores.swapaxes(-1, 2) @ q
Of four axes, 2 and −2 are the same.

layers/dropout.py forward decide
- if key is None or rate == 0.0:
+ if key is None:
At rate 0 every draw, below 1, is kept and scaled by 1/1: the same numbers, though a copy of them.

layers/dropout.py forward exchange_names
- return (x * multiplier, Residuals(multiplier, x))
+ return (x * multiplier, Residuals(multiplier, multiplier))
The vjp reads only the shape and dtype of this x, and the multiplier is drawn in those.

layers/embedding.py vjp change_constant
- d_weight = segment_sum(rows(g), tokens.reshape(-1), len(weight))
+ d_weight = segment_sum(rows(g), tokens.reshape(-2), len(weight))
NumPy takes any negative size in reshape for the one to be found.

layers/flash_attention.py _hidden decide
- return None if allowed.all() else ~allowed
+ return ~allowed
Hiding nothing changes nothing; it takes time.

layers/flash_attention.py _hide decide
- if hidden is not None:
+ if True:
NumPy takes the None that is then given as ``where`` for false, and copies nothing.

layers/flash_attention.py _hide exchange_names
- if hidden is not None:
+ if scores is not None:
NumPy takes the None that is then given as ``where`` for false, and copies nothing.

layers/flash_attention.py _sees_nothing change_axis
- return np.logical_not(allowed.any(axis=-1, keepdims=True))
+ return np.logical_not(allowed.any(axis=1, keepdims=True))
Of two axes, 1 and −1 are the same.

layers/flash_attention.py _tiles decide
- n_keys = min(rows.stop + query_offset, S) if causal else S
+ n_keys = S
The further keys are hidden to all these queries, and then count for nothing; they take time.

layers/flash_attention.py forward exchange_elements
- block_q, block_k = (expect_int('block_q', block_q), expect_int('block_k', block_k))
+ block_k, block_q = (expect_int('block_q', block_q), expect_int('block_k', block_k))
Tiles of any size compute the same, but for rounding.

layers/flash_attention.py forward exchange_names
- tiling = (T, S, causal, query_offset, block_q, block_k)
+ tiling = (T, S, causal, query_offset, block_k, block_k)
+ tiling = (T, S, causal, query_offset, block_q, block_q)
Tiles of any size compute the same, but for rounding.

layers/flash_attention.py forward drop_cast
- out = np.zeros((len(m), K + 1), q.dtype)
+ out = np.zeros((len(m), K + 1))
The sums are taken in float64 and then written in the dtype of y, which is only rounding.

layers/flash_attention.py forward exchange_names
- top, total = (np.full_like(y[..., :1], _LOWEST), np.empty_like(y[..., :1]))
+ top, total = (np.full_like(q[..., :1], _LOWEST), np.empty_like(y[..., :1]))
+ top, total = (np.full_like(y[..., :1], _LOWEST), np.empty_like(q[..., :1]))
The queries have the shape and the dtype of y.

layers/flash_attention.py forward exchange_names
- out = np.zeros((len(m), K + 1), q.dtype)
+ out = np.zeros((len(q_rows), K + 1), q.dtype)
Both have one entry for each query of the tile.

layers/flash_attention.py forward change_axis
- larger = np.maximum(m, scores.max(axis=-1, keepdims=True))
+ larger = np.maximum(m, scores.max(axis=1, keepdims=True))
Of two axes, 1 and −1 are the same.

layers/flash_attention.py forward drop_keyword
- np.exp(np.subtract(scores, larger, out=scores), out=scores)
+ np.exp(np.subtract(scores, larger), out=scores)
The difference is read by exp alone, which writes the same numbers to scores; a temporary more.

layers/flash_attention.py forward decide
- if not out[:, K].all():
+ if True:
Where no sum is zero, every query sees a key, and the statements inside write nothing.

layers/flash_attention.py forward drop_subscript
- if not out[:, K].all():
+ if not out.all():
The sums are a column of out. Where none is zero, every query sees a key, and the statements inside
write nothing.

layers/flash_attention.py forward change_constant
- np.copyto(out[:, K:], 1.0, where=where)
+ np.copyto(out[:, K:], 2.0, where=where)
The output of such a row is zero over any positive number, and so are its gradients.

layers/flash_attention.py vjp exchange_names
- (B, T, H, K), (_, S, G, _) = (y.shape, k.shape)
+ (B, T, H, K), (_, S, G, _) = (g.shape, k.shape)
+ (B, T, H, K), (_, S, G, _) = (q.shape, k.shape)
+ (B, T, H, K), (_, S, G, _) = (y.shape, v.shape)
The cotangent and q have the shape of y. Of v, only the last size differs from that of k.

layers/flash_attention.py vjp negate
- d_q_rows = np.zeros_like(q_rows)
+ d_q_rows = -np.zeros_like(q_rows)
−0 plus any number is the number, and of a row that sees nothing −0 is still zero.

layers/flash_attention.py vjp drop_keyword
- np.exp(np.subtract(exps, top[b, rows, h], out=exps), out=exps)
+ np.exp(np.subtract(exps, top[b, rows, h]), out=exps)
The difference is read by exp alone, which writes the same numbers to exps; a temporary more.

layers/linear.py forward drop_call
- y = rows(x) @ weight
+ y = x @ weight
A product maps each row by itself, however the rows are stacked; y is reshaped to the same shape.

layers/rms_norm.py vjp exchange_names
- d_x = h - x_hat * (row_dot(h, x_hat) / len(scale))
+ d_x = h - x_hat * (row_dot(h, x_hat) / len(d_scale))
The cotangent of scale has its length.

layers/rotary.py forward exchange_names
- return (y, Residuals(rotation, pairing, x.shape))
+ return (y, Residuals(rotation, pairing, y.shape))
A turn keeps the shape.

layers/rotary_attention.py _exponentials change_comparison
- if scores.max(initial=-math.inf) <= HIGHEST:
+ if scores.max(initial=-math.inf) < HIGHEST:
- if total.min(initial=math.inf) >= LOWEST:
+ if total.min(initial=math.inf) > LOWEST:
At the bound itself both ways hold.

layers/rotary_attention.py _exponentials decide
- if scores.max(initial=-math.inf) <= HIGHEST:
+ if False:
- if total.min(initial=math.inf) >= LOWEST:
+ if False:
With the maximum subtracted E/Z is the same; without is for speed.

layers/rotary_attention.py _exponentials negate
- if scores.max(initial=-math.inf) <= HIGHEST:
+ if scores.max(initial=math.inf) <= HIGHEST:
- total = _row_sums(scores)
+ total = -_row_sums(scores)
The bound never holds, so that the maximum is subtracted always; E/Z is the same.

layers/rotary_attention.py _exponentials exchange_names
- if total.min(initial=math.inf) >= LOWEST:
+ if scores.min(initial=math.inf) >= LOWEST:
A sum of positive numbers is at least its smallest one, so that this holds less often; then the
maximum is subtracted, and E/Z is the same.

layers/rotary_attention.py _rotations negate
- rotation = rotations(positions, K, theta, dtype)
+ rotation = -rotations(positions, K, theta, dtype)
- return out
+ return -out
Queries and keys both change their sign, and the scores are their products; their cotangents
change it twice.

layers/rotary_attention.py _rotations strong_scalar
- out[..., :H, :] = rotation * (1 / math.sqrt(K))
+ out[..., :H, :] = rotation * (1 / np.sqrt(K))
It is written to an array of the right dtype; only the rounding differs.

layers/rotary_attention.py _row_sums drop_cast
- return (x @ np.ones(x.shape[-1], x.dtype))[..., None]
+ return (x @ np.ones(x.shape[-1]))[..., None]
The sums are compared with a bound, and one over them is written to an array of the right dtype.

layers/rotary_attention.py _scores drop_cast
- future = np.triu(np.full((n, n), -math.inf, scores.dtype), 1)
+ future = np.triu(np.full((n, n), -math.inf), 1)
It is added in place, in the dtype of the scores; adding zero or −∞ rounds nothing.

layers/rotary_attention.py _scores exchange_names
- n = scores.shape[-2]
+ n = q.shape[-2]
The scores have a row for each query.

layers/rotary_attention.py _sum_of_group change_constant
- if out.shape[2] != a.shape[2]:
+ if out.shape[3] != a.shape[2]:
Where it holds and need not, the sum is one over an axis of size one. It fails and must not only
where there are as many keys as query heads in a group, of which the cases have none.

layers/rotary_attention.py _sum_of_group decide
- if out.shape[2] != a.shape[2]:
+ if True:
- if add:
+ if True:
The sum over an axis of size one changes nothing, nor does writing a product later.

layers/rotary_attention.py _sum_of_group drop_subscript
- if out.shape[2] != a.shape[2]:
+ if out.shape != a.shape[2]:
+ if out.shape[2] != a.shape:
A tuple and a number always differ, and the sum over an axis of size one changes nothing.

layers/rotary_attention.py _sum_of_group exchange_names
- if out.shape[2] != a.shape[2]:
+ if out.shape[2] != b.shape[2]:
+ if out.shape[2] != transposed.shape[2]:
All three have the query heads of a group there.

layers/rotary_attention.py forward drop_call
- residuals = Residuals(turned, v, tuple(weights), reciprocal, y, rotation, pairing)
+ residuals = Residuals(turned, v, weights, reciprocal, y, rotation, pairing)
The vjp asks for the length and for entries, which a list has too.

layers/rotary_attention.py forward drop_cast
- k_transposed = np.ascontiguousarray(k.swapaxes(-1, -2))
+ k_transposed = k.swapaxes(-1, -2)
The same numbers in another layout; the copy is for the speed of the products.

layers/rotary_attention.py forward negate
- rotation = _rotations(positions, H, G, K, theta, x.dtype)
+ rotation = -_rotations(positions, H, G, K, theta, x.dtype)
Queries and keys both change their sign, and the scores are their products; their cotangents
change it twice.

layers/rotary_attention.py vjp drop_cast
- values_transposed = np.ascontiguousarray(values.swapaxes(-1, -2))
+ values_transposed = values.swapaxes(-1, -2)
The same numbers in another layout; the copy is for the speed of the products.

layers/swiglu.py forward exchange_names
- hidden = silu * u
+ hidden = a * u
silu is written over a, and is the same array.

layers/unembedding.py forward drop_call
- y = rows(x) @ weight.T
+ y = x @ weight.T
A product maps each row by itself, however the rows are stacked; y is reshaped to the same shape.

losses/cross_entropy.py forward change_constant
- target = targets.reshape(-1)
+ target = targets.reshape(-2)
NumPy takes any negative size in reshape for the one to be found.

losses/cross_entropy.py forward exchange_names
- kept = np.flatnonzero(target != ignore_index)
+ kept = np.flatnonzero(targets != ignore_index)
flatnonzero flattens its argument itself.

losses/cross_entropy.py forward change_axis
- probs = logits - logits.max(axis=-1, keepdims=True)
+ probs = logits - logits.max(axis=1, keepdims=True)
- total = probs.sum(axis=-1, keepdims=True)
+ total = probs.sum(axis=1, keepdims=True)
Of two axes, 1 and −1 are the same.

losses/cross_entropy.py forward drop_keyword
- d_logits = np.divide(probs, total * n_kept, out=probs)
+ d_logits = np.divide(probs, total * n_kept)
probs is read no more; an array more.

losses/cross_entropy.py forward strong_scalar
- d_logits[kept, target[kept]] -= 1.0 / n_kept
+ d_logits[kept, target[kept]] -= np.float64(1.0) / n_kept
random

losses/cross_entropy.py forward decide
- if len(kept) < len(target):
+ if True:
With nothing ignored, the statement inside selects no row.

losses/cross_entropy.py forward change_comparison
- if len(kept) < len(target):
+ if len(kept) <= len(target):
With nothing ignored, the statement inside selects no row.

losses/cross_entropy.py forward exchange_names
- if len(kept) < len(target):
+ if len(at_target) < len(target):
+ if len(kept) < len(logits):
+ if len(kept) < len(probs):
+ if len(kept) < len(total):
+ if len(kept) < len(d_logits):
at_target has one entry for each kept row; the others have N rows, as target has.

losses/cross_entropy.py forward exchange_names
- return (loss, Residuals(d_logits.reshape(x.shape)))
+ return (loss, Residuals(probs.reshape(x.shape)))
d_logits is probs: divide returns what it wrote to.

losses/linear_cross_entropy.py _in_chunks drop_call
- scratch = np.empty((min(chunk_size, len(x)), len(weight)), x.dtype)
+ scratch = np.empty((chunk_size, len(weight)), x.dtype)
The buffer is larger than what is used of it.

losses/linear_cross_entropy.py _in_chunks drop_cast
- scratch = np.empty((min(chunk_size, len(x)), len(weight)), x.dtype)
+ scratch = np.empty((min(chunk_size, len(x)), len(weight)))
A product in float32 is written to float64 without rounding; what leaves is cast back.

losses/linear_cross_entropy.py _in_chunks exchange_names
- scratch = np.empty((min(chunk_size, len(x)), len(weight)), x.dtype)
+ scratch = np.empty((min(chunk_size, len(losses)), len(weight)), x.dtype)
+ scratch = np.empty((min(chunk_size, len(target)), len(weight)), x.dtype)
- logits = np.matmul(x[part], weight.T, out=scratch[:len(x) - first])
+ logits = np.matmul(x[part], weight.T, out=scratch[:len(losses) - first])
+ logits = np.matmul(x[part], weight.T, out=scratch[:len(target) - first])
All three have a row, a loss or a target for each row.

losses/linear_cross_entropy.py _in_chunks drop_keyword
- logits = np.matmul(x[part], weight.T, out=scratch[:len(x) - first])
+ logits = np.matmul(x[part], weight.T)
The same numbers in a new array.

losses/linear_cross_entropy.py _in_chunks exchange_names
- losses[part] = -logits[at_target]
+ losses[part] = -scratch[at_target]
The logits are the first rows of the buffer.

losses/linear_cross_entropy.py _in_chunks exchange_names
- np.matmul(d_logits.T, x[part], out=d_weight)
+ np.matmul(scratch.T, x[part], out=d_weight)
In the first chunk the logits are the whole buffer.

losses/linear_cross_entropy.py forward decide
- if chunk_size is None:
+ if True:
The loss does not depend on the rows of a chunk.

losses/linear_cross_entropy.py forward change_constant
- chunk_size = max(256, _LOGITS // (len(weight) + 1))
+ chunk_size = max(256, _LOGITS // (len(weight) + 2))
+ chunk_size = max(257, _LOGITS // (len(weight) + 1))
The loss does not depend on the rows of a chunk; all of these are positive numbers.

losses/linear_cross_entropy.py forward change_reduction
- chunk_size = max(256, _LOGITS // (len(weight) + 1))
+ chunk_size = min(256, _LOGITS // (len(weight) + 1))
The loss does not depend on the rows of a chunk; all of these are positive numbers.

losses/linear_cross_entropy.py forward change_sign
- chunk_size = max(256, _LOGITS // (len(weight) + 1))
+ chunk_size = max(256, _LOGITS * (len(weight) + 1))
+ chunk_size = max(256, _LOGITS // (len(weight) - 1))
The loss does not depend on the rows of a chunk; all of these are positive numbers.

losses/linear_cross_entropy.py forward drop_call
- chunk_size = max(256, _LOGITS // (len(weight) + 1))
+ chunk_size = 256
The loss does not depend on the rows of a chunk; all of these are positive numbers.

losses/linear_cross_entropy.py forward drop_factor
- chunk_size = max(256, _LOGITS // (len(weight) + 1))
+ chunk_size = max(256, _LOGITS)
+ chunk_size = max(256, len(weight) + 1)
The loss does not depend on the rows of a chunk; all of these are positive numbers.

losses/linear_cross_entropy.py forward drop_term
- chunk_size = max(256, _LOGITS // (len(weight) + 1))
+ chunk_size = max(256, _LOGITS // 1)
+ chunk_size = max(256, _LOGITS // len(weight))
The loss does not depend on the rows of a chunk; all of these are positive numbers.

losses/linear_cross_entropy.py forward exchange_names
- chunk_size = max(256, _LOGITS // (len(weight) + 1))
+ chunk_size = max(256, _LOGITS // (len(x) + 1))
The loss does not depend on the rows of a chunk; all of these are positive numbers.

losses/linear_cross_entropy.py forward negate
- chunk_size = max(256, _LOGITS // (len(weight) + 1))
+ chunk_size = max(256, -(_LOGITS // (len(weight) + 1)))
+ chunk_size = max(256, _LOGITS // -(len(weight) + 1))
The loss does not depend on the rows of a chunk; all of these are positive numbers.

losses/linear_cross_entropy.py forward swap_operands
- chunk_size = max(256, _LOGITS // (len(weight) + 1))
+ chunk_size = max(256, (len(weight) + 1) // _LOGITS)
The loss does not depend on the rows of a chunk; all of these are positive numbers.

losses/linear_cross_entropy.py _in_chunks negate
- d_weight = (np.empty if len(x) else np.zeros)(weight.shape, x.dtype)
+ d_weight = -(np.empty if len(x) else np.zeros)(weight.shape, x.dtype)
It is written over, or zero.

losses/linear_cross_entropy.py _in_chunks exchange_names
- np.matmul(d_logits.T, x[part], out=d_weight)
+ np.matmul(logits.T, x[part], out=d_weight)
d_logits is written over the logits, and is the same array.

losses/linear_cross_entropy.py _in_chunks exchange_names
- n_rows = max(len(x), 1)
+ n_rows = max(len(target), 1)
There is one target for each row of x.

losses/linear_cross_entropy.py _in_chunks exchange_names
- losses = np.empty(len(x), x.dtype)
+ losses = np.empty(len(target), x.dtype)
There is one target for each row of x.

losses/linear_cross_entropy.py _in_chunks exchange_names
- for first in range(0, len(x), chunk_size):
+ for first in range(0, len(losses), chunk_size):
+ for first in range(0, len(target), chunk_size):
There is one loss and one target for each row of x.

losses/linear_cross_entropy.py _in_chunks change_axis
- logits -= logits.max(axis=-1, keepdims=True)
+ logits -= logits.max(axis=1, keepdims=True)
- total = logits.sum(axis=-1, keepdims=True)
+ total = logits.sum(axis=1, keepdims=True)
Of two axes, 1 and −1 are the same.

losses/linear_cross_entropy.py _in_chunks decide
- if with_gradient:
+ if True:
The arrays are made and not used.

losses/linear_cross_entropy.py _in_chunks drop_keyword
- d_logits = np.divide(logits, total * n_rows, out=logits)
+ d_logits = np.divide(logits, total * n_rows)
The logits are read no more; an array more.

losses/linear_cross_entropy.py _in_chunks strong_scalar
- d_logits[at_target] -= 1.0 / n_rows
+ d_logits[at_target] -= np.float64(1.0) / n_rows
random

losses/linear_cross_entropy.py _in_chunks exchange_names
- np.matmul(d_logits, weight, out=d_x[part])
+ np.matmul(logits, weight, out=d_x[part])
- d_weight[some] += d_logits[:, some].T @ x[part]
+ d_weight[some] += logits[:, some].T @ x[part]
They are one array: divide returns what it wrote to.

losses/linear_cross_entropy.py _in_chunks exchange_names
- for start in range(0, len(weight), _BLOCK):
+ for start in range(0, len(d_weight), _BLOCK):
The cotangent of weight has its length.

losses/linear_cross_entropy.py forward change_constant
- target = targets.reshape(-1)
+ target = targets.reshape(-2)
NumPy takes any negative size in reshape for the one to be found.

losses/linear_cross_entropy.py forward negate
- loss, gradient = _in_chunks(*inputs, chunk_size, not recompute)
+ loss, gradient = _in_chunks(*inputs, chunk_size, recompute)
Whether the forward makes the gradient or the vjp, it is the same function of the same arrays.

losses/linear_cross_entropy.py vjp decide
- if gradient is None:
+ if True:
Made again, the gradient is the same function of the same arrays.

models/backbone.py _block decide
- return remat(transformer_block) if rematerialised else transformer_block
+ return remat(transformer_block)
+ return transformer_block
What is computed again is the same; only memory and time differ. A test counts the bytes.

models/backbone.py _block drop_call
- return remat(transformer_block) if rematerialised else transformer_block
+ return transformer_block if rematerialised else transformer_block
What is computed again is the same; only memory and time differ. A test counts the bytes.

models/self_attention.py _attend_vjp change_axis
- _, d_turned = rotary.vjp(r_rotary, np.concatenate([d_q, d_k], axis=2))
+ _, d_turned = rotary.vjp(r_rotary, np.concatenate([d_q, d_k], axis=-2))
- d_packed = np.concatenate([d_turned, d_v], axis=2)
+ d_packed = np.concatenate([d_turned, d_v], axis=-2)
Of four axes, 2 and −2 are the same.

models/self_attention.py _attend_vjp negate
- g = g.reshape(B, T, width // K, K)
+ g = g.reshape(B, T, -(width // K), K)
NumPy takes a negative size for the one that the others leave open.

models/transformer_block.py vjp write_to_argument#2
- g = g + d_branch
+ g = np.add(g, d_branch, out=g)
This g is not the argument any more: the first sum made it, and nobody else holds it.

numerics.py row_dot drop_cast
- return np.vecdot(np.ascontiguousarray(a), np.ascontiguousarray(b))[..., None]
+ return np.vecdot(a, np.ascontiguousarray(b))[..., None]
+ return np.vecdot(np.ascontiguousarray(a), b)[..., None]
vecdot takes any strides; the same products are added in another order, which is only rounding.

numerics.py segments decide
- if n_segments <= _ONE_HOT_LIMIT:
+ if True:
+ if False:
Both ways compute the sum of the rows of each id; the limit decides which is faster, and where a
value that is not finite goes, which the docstring leaves open.

numerics.py segments change_comparison
- if n_segments <= _ONE_HOT_LIMIT:
+ if n_segments < _ONE_HOT_LIMIT:
Both ways compute the sum of the rows of each id; the limit decides which is faster.

numerics.py segments drop_cast
- return (slice(None), one_hot.astype(values.dtype).T @ values)
+ return (slice(None), one_hot.T @ values)
The product of booleans and floats is that of the booleans cast to the floats' dtype.

numerics.py segments drop_call
- return (slice(None), one_hot.astype(values.dtype).T @ values)
+ return (None, one_hot.astype(values.dtype).T @ values)
None is an index of all rows too, below an axis of one.

numerics.py segments negate
- return (ids, values)
+ return (-ids, values)
+ return (ids, -values)
Both are empty.

numerics.py segments exchange_names
- if not ids.size:
+ if not values.size:
They differ only for rows of no columns, where the result is empty either way.

numerics.py segments drop_keyword
- order = np.argsort(ids, kind='stable')
+ order = np.argsort(ids)
The rows of an id are added in another order, which is only rounding.

numerics.py segments change_axis
- return (ids[starts], np.add.reduceat(values[order], starts, axis=0))
+ return (ids[starts], np.add.reduceat(values[order], starts, axis=-2))
Of two axes, 0 and −2 are the same.

numerics.py segments drop_keyword
- return (ids[starts], np.add.reduceat(values[order], starts, axis=0))
+ return (ids[starts], np.add.reduceat(values[order], starts))
0 is the default of axis.

numerics.py sigmoid drop_keyword
- return np.divide(1.0, sigma, out=sigma)
+ return np.divide(1.0, sigma)
The same numbers in a new array; a temporary more.

numerics.py softmax drop_cast
- x = np.ascontiguousarray(x)
+ x = x
The maximum and the sum of a row do not depend on its strides, but for rounding.

numerics.py softmax drop_statement
- x = np.ascontiguousarray(x)
+ pass
The maximum and the sum of a row do not depend on its strides, but for rounding.

numerics.py sum_rows drop_call
- block = max(math.isqrt(len(x)), 1)
+ block = max(len(x), 1)
A sum in blocks and a rest is the sum of all rows for any block of at least one row. Where the
blocks begin is only rounding.

numerics.py sum_rows change_constant
- block = max(math.isqrt(len(x)), 1)
+ block = max(math.isqrt(len(x)), 2)
A sum in blocks and a rest is the sum of all rows for any block of at least one row.

numerics.py sum_rows drop_factor
- whole = len(x) // block * block
+ whole = block
+ whole = block * block
Both are multiples of the block, and at most N, since the block is ⌊√N⌋ (for N = 0 the slice is
empty anyway). What is in no block is in the rest, so that every row is added once.

numerics.py sum_rows change_constant
- blocks = x[:whole].reshape(-1, block, x.shape[1])
+ blocks = x[:whole].reshape(-2, block, x.shape[1])
NumPy takes any negative size in reshape for the one to be found.

numerics.py sum_rows change_axis
- total = (np.ones(block, x.dtype) @ blocks).sum(axis=0)
+ total = (np.ones(block, x.dtype) @ blocks).sum(axis=-2)
- return total if whole == len(x) else total + x[whole:].sum(axis=0)
+ return total if whole == len(x) else total + x[whole:].sum(axis=-2)
Of two axes, 0 and −2 are the same.

numerics.py sum_rows decide
- return total if whole == len(x) else total + x[whole:].sum(axis=0)
+ return total + x[whole:].sum(axis=0)
With no rest, the sum of no rows is zero.

numerics.py sum_rows exchange_names
- return total if whole == len(x) else total + x[whole:].sum(axis=0)
+ return total if block == len(x) else total + x[whole:].sum(axis=0)
The block is N only for N = 1, where nothing is left over; else the rest, though empty, is added.

numerics.py sum_rows exchange_names
- return total if whole == len(x) else total + x[whole:].sum(axis=0)
+ return total if whole == len(blocks) else total + x[whole:].sum(axis=0)
There are as many blocks as whole rows only in blocks of one row, where whole is N, or for N = 0.
"""

Key = tuple[str, ...]


def proofs() -> dict[Key, str]:
    """Return the proofs by `mutants.Mutant.key`: file, function, operator, before, after."""
    found: dict[Key, str] = {}
    for entry in _ENTRIES.strip().split("\n\n"):
        header, *lines = entry.split("\n")
        proof = " ".join(line for line in lines if line[:2] not in ("- ", "+ "))
        before = ""
        for line in lines:
            if line.startswith("- "):
                before = line[2:]
            elif line.startswith("+ "):
                found[*header.split(), before, line[2:]] = proof
    return found
