"""The published results, as data: another simulator (Isaac Lab) and human demonstrations; never reported as ours.

Source: "DexCompose: Reusing Dexterous Policies for Multi-Task Manipulation with a Single Hand", main table; composite
success in %, mean over seeds, 32 rollouts per seed and pair.
"""

from __future__ import annotations

PUBLISHED_LABEL = "published, Isaac Lab"
PUBLISHED_SOURCE = (
    "DexCompose: Reusing Dexterous Policies for Multi-Task Manipulation with a Single Hand, main table "
    "(Isaac Lab, policies from human demonstrations; composite success %)"
)

PUBLISHED_METHODS = ("frozen", "decomposed", "residual", "handful", "zero-shot", "dexcompose")
"""Columns of the table, under the names that methods have here."""

PUBLISHED = {
    "GraspBall-OpenDoor": (0.00, 38.94, 66.35, 52.16, 73.56, 82.69),
    "GraspBall-PushButton": (7.69, 42.31, 74.04, 73.56, 76.92, 85.58),
    "GraspBall-OpenMicrowave": (0.00, 34.62, 63.46, 43.51, 64.66, 73.08),
    "GraspBall-TurnOnSwitch": (0.00, 31.73, 55.29, 55.29, 63.94, 71.88),
    "PourMug-OpenDoor": (0.00, 36.54, 58.65, 38.46, 66.59, 75.72),
    "PourMug-PushButton": (9.13, 40.87, 71.63, 55.05, 78.61, 85.58),
    "PourMug-OpenMicrowave": (0.00, 32.21, 54.81, 24.04, 52.40, 62.74),
    "PourMug-TurnOnSwitch": (0.00, 30.29, 50.96, 35.82, 55.29, 64.90),
    "PickCan-OpenDoor": (0.00, 35.58, 56.73, 56.97, 72.84, 79.09),
    "PickCan-PushButton": (8.65, 39.90, 66.83, 75.48, 77.64, 85.34),
    "PickCan-OpenMicrowave": (0.00, 31.25, 53.85, 42.79, 64.42, 72.36),
    "PickCan-TurnOnSwitch": (0.00, 29.81, 55.29, 55.05, 58.41, 65.38),
    "PickStick-OpenDoor": (0.00, 83.17, 71.15, 18.75, 78.37, 86.30),
    "PickStick-PushButton": (21.15, 84.13, 76.44, 34.62, 79.57, 86.54),
    "PickStick-OpenMicrowave": (0.00, 76.92, 61.54, 15.38, 77.88, 87.26),
    "PickStick-TurnOnSwitch": (2.88, 61.54, 48.56, 20.19, 66.59, 74.52),
}
"""Pair -> composite success in %, in the order of ``PUBLISHED_METHODS``."""


def method_rank(method: str) -> tuple[int, str]:
    """Sort key: methods of the published table in its order, then all others by name."""
    known = method in PUBLISHED_METHODS
    return (PUBLISHED_METHODS.index(method) if known else len(PUBLISHED_METHODS), method)


def published_success(pair: str, method: str) -> float | None:
    """Published composite success (%) of a method on a pair; None if there is none."""
    return dict(zip(PUBLISHED_METHODS, PUBLISHED.get(pair, ()), strict=False)).get(method)
