"""Evaluation of runs, and one self-contained HTML page about them."""
