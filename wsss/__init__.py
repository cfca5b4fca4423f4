"""Weakly supervised semantic segmentation: from image-level tags to masks and an honest score."""

__version__ = "0.1.0"
