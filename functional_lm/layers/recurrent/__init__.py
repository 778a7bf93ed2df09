"""Recurrences over positions, their chunked forms, and short convolutions."""
