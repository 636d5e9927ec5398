"""The parts of a composition: those that ship for a pair, loaded and checked, and scripted ones by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from dexcompose_agents.artefacts.shipped import choose_mask, file_hash, residual_path, stabiliser_path
from dexcompose_agents.methods.spec import SHIPPED, ResidualSource, StabiliserSource
from dexcompose_agents.residual.residual_b import ResidualBPolicy
from dexcompose_agents.residual.stabiliser import StabiliserPolicy
from dexcompose_agents.scripted import RESIDUALS, STABILISERS
from dexcompose_envs.composition.interactor import ResidualB
from dexcompose_envs.composition.preserver import Stabiliser
from dexcompose_envs.errors import UsageError
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


def make_stabiliser(
    source: StabiliserSource | None, pair: str, mask: FingerMask, device: torch.device
) -> tuple[Stabiliser | None, Any]:
    """Stabiliser A of a spec, and what tells it from others, JSON-able: the hash of its weights, or its constants."""
    scripted = _scripted("stabiliser", source, STABILISERS)
    if source is None:
        return None, None
    if scripted is not None:
        made = scripted()
        return made, _described(made)
    path = stabiliser_path(pair) if source == SHIPPED else Path(str(source))
    return load_stabiliser(pair, mask, path=path, device=device), file_hash(path)


def make_residual(
    source: ResidualSource | None, pair: str, mask: FingerMask, device: torch.device, *, writes_all: bool = False
) -> tuple[ResidualB | None, Any]:
    """Residual B of a spec, likewise."""
    scripted = _scripted("residual", source, RESIDUALS)
    if source is None:
        return None, None
    if scripted is not None:
        made = scripted(pair)
        return made, _described(made)
    path = residual_path(pair) if source == SHIPPED else Path(str(source))
    expected = {"pair": pair, "mask": str(mask), "writes_all": writes_all}
    return ResidualBPolicy.load(path, device, model_hash=model_hash_of(pair), **expected), file_hash(path)


def _scripted(role: str, source: Any, known: Mapping[str, Any]) -> Callable[..., Any] | None:
    """What makes the scripted part of that name, or `source` itself if it makes one; None: it names a file.

    Raises:
        UsageError: If it is a word that is neither a file's nor a part's name.
    """
    if callable(source):
        return source
    word = isinstance(source, str) and source != SHIPPED and Path(source).name == source and not Path(source).suffix
    if word and source not in known and not Path(source).exists():
        raise UsageError(f"{role} is {source!r}; expected {SHIPPED!r}, one of {', '.join(known)}, or a file of weights")
    return known.get(source)


def _described(part: object) -> dict[str, Any]:
    """The class of a scripted part and its constants, if it says what they are."""
    constants = part.describe() if hasattr(part, "describe") else {}
    return {"part": f"{type(part).__module__}.{type(part).__qualname__}", **constants}
