"""What is background in walked scores: a channel of their own, or what stays below a threshold."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from wsss.artifacts import Entry
from wsss.context import Context
from wsss.stages.refining import Job
from wsss.stages.threshold import operating_point


def background_threshold(context: Context) -> tuple[float | None, list[Path]]:
    """Return the score of the background and the artifacts that it comes from.

    It is configured or tuned, and None where the background has walked, too.
    """
    walk = context.config.walk
    if walk.background == "alpha":
        return None, []
    tuned = context.paths.report("walk_tune")
    configured = walk.background_threshold
    threshold, source = operating_point(configured, tuned, context.manifest.data_hash)
    return threshold, [tuned] if source == "tune" else []


def add_background(job: Job, threshold: float | None) -> Job:
    """Put a constant background plane before class scores (Ahn et al., CVPR 2019, section 5).

    Class ids 0..C-1 become mask ids 1..C. Without a threshold the job is returned as it is.
    """
    if threshold is None:
        return job
    array, classes, size = job.entry
    plane = np.full((1, *array.shape[1:]), threshold, np.float32)
    scores = np.concatenate([plane, array.astype(np.float32)])
    return job._replace(entry=Entry(scores, [0, *(c + 1 for c in classes)], size))
