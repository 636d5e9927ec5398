"""Evaluation: which episodes are run, how their outcomes are kept, and what may be concluded from them."""

from dexcompose_agents.evaluation.manifest import EvaluationError
from dexcompose_agents.evaluation.protocol import Evaluation, evaluate

__all__ = ["Evaluation", "EvaluationError", "evaluate"]
