"""Pairs for tests that run physics: few, and with every skill."""

from itertools import cycle

from dexcompose_envs import skill_names


def covering_pairs():
    """Pairs in which every skill takes part at least once."""
    retention, interaction = skill_names("retention"), skill_names("interaction")
    count = max(len(retention), len(interaction))
    return [f"{a}-{b}" for a, b, _ in zip(cycle(retention), cycle(interaction), range(count), strict=False)]
