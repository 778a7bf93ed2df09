"""The JAX twin of every layer, loss and model: the same names, written from the papers' formulas.

A twin is ``forward(params, x, *, the same keywords) -> y``. It has no vjp: `jax.vjp` of the twin
is the oracle for the gradient written by hand. Nothing here imports functional_lm, since a shared
helper would be a shared bug.
"""
