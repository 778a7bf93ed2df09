"""A first training step with this library, as short as a script can be."""

from functional_lm import runtime

runtime.tune()
