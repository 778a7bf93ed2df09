"""Twins of these layers."""
