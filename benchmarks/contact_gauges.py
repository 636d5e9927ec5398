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
    """Keeps the depth (m) of every contact of every control step, and the fastest speed (m/s) of a held object."""

    def __init__(self, env: Any) -> None:
        self._env, self._data = env, mujoco.MjData(env.scene.model)
        first = int(env.scene.model.body_dofadr[env.scene.model.body(OBJECT).id])
        self._dofs = slice(first, first + 3)
        self.depths: list[NDArray[np.float64]] = []
        self.speed = 0.0

    def step(self, moment: Moment) -> NDArray[np.bool_]:
        """Worlds (N,) that are through."""
        model, data = self._env.scene.model, self._data
        for world in (world for world, episode in enumerate(moment.episodes) if episode is not None):
            self._env.load_into(data, world)
            mujoco.mj_fwdPosition(model, data)
            self.depths.append(-np.asarray(data.contact.dist))
            if moment.info["task_a_held"][world]:
                self.speed = max(self.speed, float(np.linalg.norm(data.qvel[self._dofs])))
        return super().step(moment)


def measure(pair: str, config: Config) -> dict[str, Any]:
    """Depths (mm) and speed (m/s) of one pair."""
    venv = make_worlds(pair, min(config.num_envs, config.episodes))
    watcher = Contacts(venv.unwrapped)
    plan = [Episode(FIRST_SEED + number) for number in range(config.episodes)]
    rollouts = list(run_episodes(venv, make_method(config.method, pair), plan, watcher))
    venv.close()
    depths = 1e3 * np.concatenate(watcher.depths)
    return {
        "pair": pair, "episodes": len(rollouts), "contacts": len(depths),
        "successes": sum(bool(rollout.info["success"]) for rollout in rollouts),
        "penetration_p999_mm": round(float(np.quantile(depths, 0.999)), 3),
        "penetration_max_mm": round(float(depths.max()), 3),
        "speed_max_m_s": round(watcher.speed, 3),
    }  # fmt: skip


def main(config: Config) -> dict[str, Any]:
    """Measures, prints and writes."""
    rows: list[dict[str, Any]] = []
    result = {"method": config.method, "first_seed": FIRST_SEED, "machine": machine_info(), "rows": rows}
    for pair in config.pairs:
        rows.append(row := measure(pair, config))
        print(
            f"{pair:24s} penetration {row['penetration_p999_mm']:.2f} mm (99.9th percentile of {row['contacts']} "
            f"contacts; {row['penetration_max_mm']:.2f} at most)  speed of the object {row['speed_max_m_s']:.2f} m/s",
            flush=True,
        )
        if config.out is not None:
            write_json(config.out, result)
    return result


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
