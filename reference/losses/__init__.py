"""Twins of the losses."""
