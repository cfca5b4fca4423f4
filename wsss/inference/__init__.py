"""Multi-scale inference of CAMs and of segmentation networks."""
