"""The parts of a composition that ship for a pair, loaded and checked: for methods, and for the wrappers."""

from __future__ import annotations

from pathlib import Path

import torch

from dexcompose_agents.artefacts.shipped import choose_mask, stabiliser_path
from dexcompose_agents.residual.stabiliser import StabiliserPolicy
from dexcompose_envs.ownership import FingerMask
from dexcompose_envs.scene import model_hash_of
from dexcompose_envs.skills import parse_chain


def load_mask(pair: str, selector: str | None = None) -> FingerMask:
    """The preserved fingers that a selector chose for a pair; None: the selector whose choice ships.

    Raises:
        ArtefactError: If no such mask is found.
    """
    return choose_mask(pair, None, selector)[0]


def load_stabiliser(
    pair: str,
    mask: FingerMask | str | None = None,
    *,
    path: str | Path | None = None,
    device: str | torch.device = "cpu",
) -> StabiliserPolicy:
    """Stabiliser A for a pair, on a device; give it to `ActionOwnership` as its reference.

    Args:
        pair: "GraspBall-PushButton".
        mask: Preserved fingers it is used with; None: those of `load_mask`.
        path: Weights; None: those that ship.
        device: Where it computes.

    Raises:
        ArtefactError: If the file is missing or damaged, or is for another retention skill, mask or physics model.
    """
    mask = load_mask(pair) if mask is None else FingerMask.parse(mask)
    skill = parse_chain(pair)[0]
    return StabiliserPolicy.load(
        path or stabiliser_path(pair), device, mask=mask, skill=skill, model_hash=model_hash_of(str(skill))
    )
