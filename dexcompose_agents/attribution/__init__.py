"""Finger attribution: which fingers may let go of a held object, what B needs of them, and which mask to choose."""

from dexcompose_agents.attribution.release_test import ReleaseTestConfig, run_release_test
from dexcompose_agents.attribution.selectors import (
    Candidate,
    HeuristicSelector,
    PairContext,
    Selection,
    Selector,
    UtilitySelector,
    make_candidates,
    make_selector,
)
from dexcompose_agents.attribution.tables import MaskResult, draw_heat_map, read_csv, write_csv
from dexcompose_agents.attribution.usage import EpisodeSignals, FingerUsage, UsageConfig, measure_usage

__all__ = [
    "Candidate",
    "EpisodeSignals",
    "FingerUsage",
    "HeuristicSelector",
    "MaskResult",
    "PairContext",
    "ReleaseTestConfig",
    "Selection",
    "Selector",
    "UsageConfig",
    "UtilitySelector",
    "draw_heat_map",
    "make_candidates",
    "make_selector",
    "measure_usage",
    "read_csv",
    "run_release_test",
    "write_csv",
]
