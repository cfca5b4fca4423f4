"""Measures what stages cost on this machine, by running them on made-up images."""
