"""Networks of the pipeline, built from the configuration, fresh or trained.

A module a network: an edit of one reruns only the stages that build it.
"""
