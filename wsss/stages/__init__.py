"""Thin pipeline steps: read artifacts, call the library, write artifacts."""
