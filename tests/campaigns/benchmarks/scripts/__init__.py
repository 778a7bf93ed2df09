"""Whole programs up to their first training step, for `startup.py`."""
