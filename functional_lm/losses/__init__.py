"""Losses: layers whose output is a scalar."""

from . import cross_entropy, linear_cross_entropy

__all__ = ["cross_entropy", "linear_cross_entropy"]
