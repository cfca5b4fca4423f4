"""MLflow as a projection of the results: files are the truth, and the store can be refilled from
them at any time. Nothing here is part of a stage."""
