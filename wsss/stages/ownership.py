"""What of a variant's folder is part of a result.

A folder keeps what a changed configuration no longer asks for: stages that no variant goes through
any more, or that are shared now.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from wsss.config import Config, Params
from wsss.pipeline import FILES, stages_run
from wsss.stages.evaluations import EVALUATIONS, wanted


def passed_stages(config: Config) -> list[str]:
    """Return the stages with files that a variant goes through, its own and shared ones."""
    stages = stages_run(config)
    return [stage for stage in FILES if stage in stages]


def passed_evaluations(config: Config) -> list[str]:
    """Return the evaluations of a variant's result, and what may be scored by hand."""
    found = wanted(config)
    by_hand = ["boxes"] if "cam" in stages_run(config) else []
    return [what for what in EVALUATIONS if what in (*found, *by_hand)]


def own_stages(params: Params, variant: str, others: Iterable[str]) -> list[str]:
    """Return the stages that are a variant's to make: for its own result, or for that of one of
    the ``others``."""
    found = {
        stage
        for user, owners in _users(params, variant, others)
        for stage in passed_stages(params.resolve(user))
        if owners.get(FILES[stage][0], user) == variant
    }
    return [stage for stage in FILES if stage in found]


def own_evaluations(params: Params, variant: str, others: Iterable[str]) -> list[str]:
    """Return the evaluations that are a variant's to make, as :func:`own_stages`."""
    found = {
        what
        for user, owners in _users(params, variant, others)
        for what in passed_evaluations(params.resolve(user))
        if owners.get(f"metrics/{what}", user) == variant
    }
    return [what for what in EVALUATIONS if what in found]


def _users(
    params: Params, variant: str, others: Iterable[str]
) -> Iterator[tuple[str, dict[str, str]]]:
    """The variant itself and those that share from it, with who owns what they use."""
    for user in dict.fromkeys((variant, *others)):
        owners = params.owners(user)
        if user == variant or variant in owners.values():
            yield user, owners
