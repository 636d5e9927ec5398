"""Everything that acts in the environments of `dexcompose_envs`: base policies, residuals, composition methods.

The names below are loaded when they are first used, so that importing the package costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dexcompose_agents.artefacts.weights import ArtefactError, load_weights, save_weights
    from dexcompose_agents.diffusion.policy import BasePolicy, DiffusionPolicy, load_policy
    from dexcompose_agents.methods import CompositionMethod, CompositionSpec, make_method
    from dexcompose_agents.methods.parts import load_mask, load_stabiliser

_HOMES = {
    "ArtefactError": "artefacts.weights",
    "BasePolicy": "diffusion.policy",
    "CompositionMethod": "methods",
    "CompositionSpec": "methods",
    "DiffusionPolicy": "diffusion.policy",
    "load_mask": "methods.parts",
    "load_policy": "diffusion.policy",
    "load_stabiliser": "methods.parts",
    "load_weights": "artefacts.weights",
    "make_method": "methods",
    "save_weights": "artefacts.weights",
}

__all__ = [
    "ArtefactError",
    "BasePolicy",
    "CompositionMethod",
    "CompositionSpec",
    "DiffusionPolicy",
    "load_mask",
    "load_policy",
    "load_stabiliser",
    "load_weights",
    "make_method",
    "save_weights",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
