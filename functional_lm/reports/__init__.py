"""Plots of runs, the page of one run, and event files."""
