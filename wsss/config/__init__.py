"""Configuration: one schema, one resolver, one slice for each stage."""

from wsss.config.resolve import Params, load_params
from wsss.config.schema import Config
from wsss.config.slices import STAGES, stage_params, view

__all__ = ["STAGES", "Config", "Params", "load_params", "stage_params", "view"]
