"""Cross-entropy in JAX."""

import jax
import jax.numpy as jnp
import optax


def forward(params, x, *, targets, ignore_index=-100, label_smoothing=0.0, z_loss=0.0):
    """Return the mean of optax's cross-entropy over the targets that are kept."""
    kept = targets != ignore_index
    labels = jnp.where(kept, targets, 0)
    if label_smoothing:
        one_hot = jax.nn.one_hot(labels, x.shape[-1], dtype=x.dtype)
        smooth = optax.smooth_labels(one_hot, label_smoothing)
        losses = optax.softmax_cross_entropy(x, smooth)
    else:
        losses = optax.softmax_cross_entropy_with_integer_labels(x, labels)
    losses = losses + z_loss * jax.nn.logsumexp(x, axis=-1) ** 2
    return jnp.sum(jnp.where(kept, losses, 0)) / jnp.maximum(kept.sum(), 1)
