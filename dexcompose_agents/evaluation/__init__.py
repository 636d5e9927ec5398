"""Evaluation: which episodes are run, how their outcomes are kept, and what may be concluded from them."""

from dexcompose_agents.evaluation.manifest import EvaluationError
from dexcompose_agents.evaluation.protocol import Evaluation, EvaluationInterrupted, evaluate
from dexcompose_agents.evaluation.records import EpisodeRecord, episode_seed, read_episodes
from dexcompose_agents.evaluation.results import summarise

__all__ = [
    "EpisodeRecord",
    "Evaluation",
    "EvaluationError",
    "EvaluationInterrupted",
    "episode_seed",
    "evaluate",
    "read_episodes",
    "summarise",
]
