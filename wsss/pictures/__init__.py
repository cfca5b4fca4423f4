"""Pictures for people: overlays, legends and panels, drawn with Pillow alone."""
