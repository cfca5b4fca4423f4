"""Networks: backbones, heads and what initialises them."""
