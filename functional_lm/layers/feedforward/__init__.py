"""Activations and gates, entry by entry."""
