"""Refinement of class activation maps: dense CRF, affinity labels and the sparse random walk."""
