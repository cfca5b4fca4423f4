"""Commands for people that are no stage of the workflow, a module each."""
