"""Whether things pass through each other, or fly: penetration and speed over whole composite rollouts.

    python benchmarks/contact_gauges.py --episodes 16 --out benchmarks/results/contact_gauges.json

Looks at every contact of hand, held object and fixture after every control step of a method's rollouts, and at how fast
the object moves while it is held. Episodes start from the test part of the held states, at seeds from 2**29 on.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mujoco
import numpy as np
import tyro
from numpy.typing import NDArray

from dexcompose_agents.evaluation.protocol import make_worlds
from dexcompose_agents.evaluation.until_decided import UntilDecided
from dexcompose_agents.methods import make_method
from dexcompose_agents.runtime.provenance import machine_info, write_json
from dexcompose_envs import pair_names
from dexcompose_envs.rollouts import Episode, Moment, run_episodes
from dexcompose_envs.scene.sensors import OBJECT

FIRST_SEED = 2**29


@dataclass
class Config:
    """What to measure."""

    pairs: tuple[str, ...] = pair_names()
    """Pairs."""
    method: str = "dexcompose"
    """Composition method, by registered name or as module:Class."""
    episodes: int = 16
    """Episodes per pair."""
    num_envs: int = 16
    """Worlds stepped together."""
    out: Path | None = None
    """JSON file to write."""


class Contacts(UntilDecided):
    """Keeps the depths (m) of all contacts of every control step, and the fastest speed (m/s) of a held object.

    `object_depths` are of contacts of the held object, `other_depths` of all others.
    """

    def __init__(self, env: Any) -> None:
        self._env, self._data = env, mujoco.MjData(env.scene.model)
        model, body = env.scene.model, env.scene.model.body(OBJECT).id
        self._dofs = slice(first := int(model.body_dofadr[body]), first + 3)
        self._of_object = model.body_rootid[model.geom_bodyid] == body
        self.object_depths: list[NDArray[np.float64]] = []
        self.other_depths: list[NDArray[np.float64]] = []
        self.speed = 0.0

    def step(self, moment: Moment) -> NDArray[np.bool_]:
        """Worlds (N,) that are through."""
        model, data = self._env.scene.model, self._data
        for world in (world for world, episode in enumerate(moment.episodes) if episode is not None):
            self._env.load_into(data, world)
            mujoco.mj_fwdPosition(model, data)
            depths = -np.asarray(data.contact.dist)
            held = self._of_object[np.reshape(data.contact.geom, (-1, 2))].any(axis=1)
            self.object_depths.append(depths[held])
            self.other_depths.append(depths[~held])
            if moment.info["task_a_held"][world]:
                self.speed = max(self.speed, float(np.linalg.norm(data.qvel[self._dofs])))
        return super().step(moment)


def measure(pair: str, config: Config) -> dict[str, Any]:
    """Depths (mm) and speed (m/s) of one pair: of the held object's contacts, and of all others."""
    venv = make_worlds(pair, min(config.num_envs, config.episodes))
    watcher = Contacts(venv.unwrapped)
    plan = [Episode(FIRST_SEED + number) for number in range(config.episodes)]
    rollouts = list(run_episodes(venv, make_method(config.method, pair), plan, watcher))
    venv.close()
    row: dict[str, Any] = {"pair": pair, "episodes": len(rollouts)}
    row["successes"] = sum(bool(rollout.info["success"]) for rollout in rollouts)
    for name, depths in (("object", watcher.object_depths), ("other", watcher.other_depths)):
        millimetres = 1e3 * np.concatenate(depths)
        row[f"{name}_contacts"] = len(millimetres)
        row[f"{name}_p999_mm"] = round(float(np.quantile(millimetres, 0.999)), 3)
        row[f"{name}_max_mm"] = round(float(millimetres.max()), 3)
    return row | {"speed_max_m_s": round(watcher.speed, 3)}


def main(config: Config) -> dict[str, Any]:
    """Measures, prints and writes."""
    rows: list[dict[str, Any]] = []
    result = {"method": config.method, "first_seed": FIRST_SEED, "machine": machine_info(), "rows": rows}
    for pair in config.pairs:
        rows.append(row := measure(pair, config))
        print(
            f"{pair:24s} penetration (99.9th percentile, most): object {row['object_p999_mm']:.2f}, "
            f"{row['object_max_mm']:.2f} mm; others {row['other_p999_mm']:.2f}, {row['other_max_mm']:.2f} mm; "
            f"speed of the object {row['speed_max_m_s']:.2f} m/s",
            flush=True,
        )
        if config.out is not None:
            write_json(config.out, result)
    return result


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
