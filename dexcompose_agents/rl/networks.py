"""Networks of residuals by the names that files call them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from dexcompose_agents.artefacts.weights import load_weights
from dexcompose_agents.rl.actor_critic import ActorCritic
from dexcompose_agents.rl.mlp_actor import MLPActor
from dexcompose_agents.rl.residual_network import ResidualNetwork, class_name
from dexcompose_envs.artefacts import ArtefactError

NETWORKS: dict[str, type[ResidualNetwork]] = {each.NAME: each for each in (ActorCritic, MLPActor)}
"""Every class by its name."""


def load_network(path: str | Path, kind: str, **expected: Any) -> tuple[ResidualNetwork, dict[str, Any]]:
    """Reads a network of whichever class and its manifest; arguments and errors are those of `load_weights`."""
    tensors, manifest = load_weights(path, kind, **expected)
    name = class_name(manifest)
    if name not in NETWORKS:
        raise ArtefactError(f"'{path}' holds a network of class {name!r}; expected one of {', '.join(NETWORKS)}")
    return NETWORKS[name].restored(tensors, manifest["network"]), manifest
