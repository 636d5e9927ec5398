"""What may touch what: USD doesn't keep MuJoCo's collision bits, so what they keep apart is filtered pair by pair."""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations
from typing import Any

import mujoco


def pairs_apart(model: mujoco.MjModel) -> list[tuple[str, str]]:
    """Names of geoms that collide with something, but not with each other: by their bits, or by an exclusion."""
    excluded = {tuple(sorted(divmod(int(signature), 1 << 16))) for signature in model.exclude_signature}
    types, affinities = model.geom_contype, model.geom_conaffinity
    colliding = [i for i in range(model.ngeom) if types[i] or affinities[i]]
    apart = []
    for a, b in combinations(colliding, 2):
        bodies = tuple(sorted((int(model.geom_bodyid[a]), int(model.geom_bodyid[b]))))
        meets = (types[a] & affinities[b]) or (types[b] & affinities[a])
        if bodies in excluded or not meets:
            apart.append((model.geom(a).name, model.geom(b).name))
    return apart


def world_hook(model: mujoco.MjModel) -> Callable[[Any, int, Any, Any], None]:
    """What `newton_builder_world_hook` calls for each world; the first stands for all in the solver's model."""
    apart = pairs_apart(model)

    def filter_pairs(builder: Any, world: int, position: Any, quaternion: Any) -> None:
        if world != 0:
            return
        labels = enumerate(builder.shape_label)
        shapes = {label.rsplit("/", 1)[-1]: i for i, label in labels if builder.shape_world[i] == world}
        for a, b in apart:
            builder.add_shape_collision_filter_pair(shapes[a], shapes[b])

    return filter_pairs
