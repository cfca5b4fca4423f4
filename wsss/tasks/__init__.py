"""Networks with their objectives, as they are trained and as their weights are kept."""
