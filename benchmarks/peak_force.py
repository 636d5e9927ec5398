"""How hard methods press: mean over episodes of the largest contact force of any finger on the held object.

    python benchmarks/peak_force.py --episodes 96 --out benchmarks/results/peak_force

A grasp that nothing ever shakes loose is easy to have by force; this tells such a one from one that reacts. Writes
`results.json`. Episodes start from the test part of the held states, at seeds from 2**29 on, below evaluation's.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tyro
from numpy.typing import NDArray

from dexcompose_agents.artefacts.shipped import trained_in
from dexcompose_agents.evaluation.protocol import make_worlds
from dexcompose_agents.evaluation.until_decided import UntilDecided
from dexcompose_agents.methods import make_method
from dexcompose_envs import PAIRS
from dexcompose_envs.files import atomic_write
from dexcompose_envs.observations import FORCE_SCALE
from dexcompose_envs.rollouts import Episode, Moment, run_episodes

FIRST_SEED = 2**29


@dataclass
class Config:
    """What to measure."""

    pairs: tuple[str, ...] = tuple("-".join(pair) for pair in PAIRS)
    """Pairs."""
    methods: tuple[str, ...] = ("frozen", "no-stabiliser", "zero-shot", "dexcompose")
    """Methods, by registered name or as module:Class."""
    episodes: int = 96
    """Episodes per method and pair."""
    num_envs: int = 32
    """Worlds stepped together."""
    pretrained: Path | None = None
    """Folder of `dexcompose train all` whose weights and held states are used; by default what ships."""
    out: Path = Path("runs/peak_force")
    """Folder of results.json."""


class PeakForces(UntilDecided):
    """Keeps the largest force (N) of any finger on the object, links' net forces summed, in each episode."""

    def __init__(self, columns: slice, num_envs: int) -> None:
        self._columns, self._peak = columns, np.zeros(num_envs)

    def begin(self, worlds: NDArray[np.int64], moment: Moment) -> None:
        """Episodes have begun in some worlds (K,)."""
        self._peak[worlds] = self._forces(moment)[worlds]

    def step(self, moment: Moment) -> NDArray[np.bool_]:
        """Worlds (N,) that are through."""
        self._peak = np.maximum(self._peak, self._forces(moment))
        return super().step(moment)

    def result(self, world: int, moment: Moment) -> float:
        """The peak of an episode that is over."""
        return float(self._peak[world])

    def _forces(self, moment: Moment) -> NDArray[Any]:
        return moment.obs["context"][:, self._columns].max(axis=1) / FORCE_SCALE


def measure(pair: str, name: str, episodes: int, num_envs: int) -> dict[str, Any]:
    """Forces and successes of one method on one pair."""
    venv = make_worlds(pair, min(num_envs, episodes))
    watcher = PeakForces(venv.unwrapped.layout["context"]["finger_contact"], venv.num_envs)
    plan = [Episode(FIRST_SEED + number) for number in range(episodes)]
    rollouts = list(run_episodes(venv, make_method(name, pair), plan, watcher))
    venv.close()
    forces = np.array([rollout.result for rollout in rollouts])
    return {
        "pair": pair, "method": name, "episodes": episodes,
        "peak_force_mean": round(float(forces.mean()), 3), "peak_force_sd": round(float(forces.std(ddof=1)), 3),
        "peak_force_p95": round(float(np.quantile(forces, 0.95)), 3),
        "successes": sum(bool(rollout.info["success"]) for rollout in rollouts),
        "held_at_end": sum(bool(rollout.info["task_a_held"]) for rollout in rollouts),
    }  # fmt: skip


def main(config: Config) -> list[dict[str, Any]]:
    """Measures and prints the table."""
    rows = []
    with trained_in(config.pretrained):
        for pair in config.pairs:
            for name in config.methods:
                row = measure(pair, name, config.episodes, config.num_envs)
                rows.append(row)
                print(
                    f"{pair:22s} {name:14s} peak force {row['peak_force_mean']:5.2f} N (SD {row['peak_force_sd']:.2f}, "
                    f"95 % below {row['peak_force_p95']:.2f})  success {row['successes']}/{row['episodes']}",
                    flush=True,
                )
    config.out.mkdir(parents=True, exist_ok=True)
    atomic_write(config.out / "results.json", json.dumps({"first_seed": FIRST_SEED, "rows": rows}, indent=1) + "\n")
    return rows


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
