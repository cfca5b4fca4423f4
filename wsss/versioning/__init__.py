"""DVC in step with Snakemake: ``dvc.yaml`` from Snakemake's graph, snapshots and their return."""
