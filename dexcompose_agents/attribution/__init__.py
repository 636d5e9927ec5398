"""Finger attribution: which fingers may let go of a held object, what B needs of them, and which mask to choose."""

from dexcompose_agents.attribution.release_test import ReleaseTestConfig, run_release_test
from dexcompose_agents.attribution.selection import Selection, select_mask
from dexcompose_agents.attribution.selectors import (
    Candidate,
    HeuristicSelector,
    PairContext,
    Selector,
    UtilitySelector,
    make_candidates,
    make_selector,
)
from dexcompose_agents.attribution.tables import MaskResult, draw_heat_map, read_csv, write_csv
from dexcompose_agents.attribution.usage import (
    EpisodeSignals,
    FingerUsage,
    UsageConfig,
    measure_usage,
    recorded_signals,
)

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
    "recorded_signals",
    "run_release_test",
    "select_mask",
    "write_csv",
]
