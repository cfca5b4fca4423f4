"""Scores of masks and of class activations, NumPy and SciPy only."""
