"""Images, tags and masks: the manifest and the sources that fill it."""
