"""Twins of the models."""
