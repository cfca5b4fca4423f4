"""What a published recipe is: paper, sources, expected scores, cost; no stage reads it."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Text = Annotated[str, Field(min_length=1)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Expected(_Part):
    """One published score.

    Attributes:
        miou: in percent, or unknown.
        setting: network and list it was measured with.
        source: who says so.
    """

    miou: Annotated[float, Field(gt=0, le=100)] | Literal["unknown"]
    setting: Text
    source: Text


class Hours(_Part):
    """Wall time of the whole preset, and how it is known."""

    value: Annotated[float, Field(gt=0)] | Literal["unknown"]
    source: Text


class About(_Part):
    """The head of a recipe.

    Attributes:
        title: the recipe in a few words.
        paper: citation.
        code: the official code, or "none".
        numbers: where the values of the overlay come from.
        expected: published scores by the evaluation they are nearest to (cam, crf, walk, pseudo,
            single, multi, final).
        hardware: what it needs.
        hours: how long it takes there.
        command: what to type.
        deviations: what differs from the paper or its code.
        run_here: whether this system has run it and publishes the scores.
    """

    title: Text
    paper: Text
    code: Text
    numbers: Text
    expected: Annotated[dict[str, Expected], Field(min_length=1)]
    hardware: Text
    hours: Hours
    command: Text
    deviations: list[Text]
    run_here: bool
