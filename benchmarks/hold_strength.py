"""How firmly a retention skill holds its object, and how far the hold is to be softened.

    python benchmarks/hold_strength.py GraspBall

The slip factor of a hold is the sum over the fingers' contacts with the object of friction times normal force, divided
by the object's weight: how many times its weight the hold could carry. It is read at the end of a quiet hold with five
fingers, at nominal mass and friction. A hold is softened by a squeeze s: its finger targets become q + s (q_ref - q),
where q are the joints of the settled hold and q_ref the targets that made it; s = 1 leaves it as it was grasped.

The scripted expert grasps from scratch. Where it succeeds, the hand stays still and the hold settles; then the targets
move to the softened ones, and after another quiet hold contacts are looked at. Bisection finds the squeeze of a wanted
slip factor: the skill's `HOLD_SQUEEZE`. `--held-states` begins from the states of a library instead; where these are
softened already, s counts from there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import mujoco
import numpy as np
import tyro
from gauges_common import HeldContacts, nominal_worlds, weight
from numpy.typing import NDArray
from rich.console import Console
from throughput_common import make_table, provenance

from dexcompose_agents.runtime.provenance import write_json
from dexcompose_envs import hand
from dexcompose_envs.agent import Agent
from dexcompose_envs.errors import UsageError
from dexcompose_envs.held_states import HeldStateLibrary
from dexcompose_envs.rollouts import Episode, Moment, Watcher, run_episodes
from dexcompose_envs.scene import build_scene
from dexcompose_envs.skills import make_expert, make_retention

SETTLE_STEPS = 50
"""Control steps of a quiet hold, before and after the softening: 2 s."""
SOFTEN_STEPS = 10
"""Control steps over which the finger targets move to the softened ones."""
FIRST_SEED = 2**29
"""Seeds of the expert's episodes: above those of demonstrations and held states, below evaluation's."""
HALVINGS = 12
"""Bisections after which the slip factor has to be near enough."""
Array = NDArray[np.float64]


@dataclass(frozen=True)
class Config:
    """What to measure."""

    skill: Annotated[str, tyro.conf.Positional]
    """Retention skill."""
    held_states: str | None = None
    """Skill or .npz file of a held-state library to begin from; default: fresh grasps of the scripted expert."""
    split: str = "train"
    """Part of the library: "all", "train" or "test"."""
    worlds: int = 32
    """Holds to measure."""
    squeezes: tuple[float, ...] = (1.0, 0.7, 0.5, 0.35, 0.2)
    """Values of s for the table."""
    target: float = 3.0
    """Wanted slip factor."""
    tolerance: float = 0.1
    """How near the slip factor must come to it."""
    out: Path | None = None
    """JSON file to write."""


@dataclass(frozen=True, eq=False)
class Hold:
    """A settled hold: the environment's state (S,), finger joints q (22,), rad, and command (28,), m and rad."""

    state: Array
    joints: Array
    command: Array


@dataclass(frozen=True)
class Strength:
    """What N holds are worth at one squeeze."""

    squeeze: float
    slip_factor: float
    """Mean over all holds; one that lost its object counts as 0."""
    least: float
    largest: float
    thumb_force: float
    """Mean normal force of the thumb on the object, N."""
    moved_mm: float
    """Median displacement of the object in the palm frame since the settled hold, mm."""
    lost: int
    """Holds that lost their object."""


class Settler(Watcher):
    """Lets an agent grasp, or takes held states as they are, and keeps still until the hold has settled."""

    name = "settle"

    def __init__(self, env: Any, agent: Agent | None, reach_steps: int) -> None:
        """In the worlds of an environment; an agent has so many control steps to succeed."""
        self._env, self._agent, self._reach_steps = env, agent, reach_steps
        self._holds = np.zeros(env.num_envs, bool)
        self._since = np.zeros(env.num_envs, np.int64)
        self._command = np.zeros((env.num_envs, hand.NUM_ACTIONS))

    def reset(self, obs: Mapping[str, Any], info: Mapping[str, Any], env_ids: Any, seeds: Any) -> None:
        """Takes the command of held states; an agent begins anew."""
        if self._agent is not None:
            self._agent.reset(obs, info, env_ids, seeds)
        self._holds[env_ids], self._since[env_ids] = self._agent is None, 0
        self._command[env_ids] = obs["context"][env_ids, self._env.layout["context"]["previous_action"]]

    def act(self, obs: Mapping[str, Any]) -> NDArray[np.float32]:
        """The agent's actions, and the same command where something is held."""
        acted = self._command if self._agent is None else self._agent.act(obs)
        return np.where(self._holds[:, None], self._command, acted).astype(np.float32)

    def step(self, moment: Moment) -> NDArray[np.bool_]:
        """Keeps wrist and fingers where the agent has succeeded."""
        reached = ~self._holds & np.asarray(moment.info["success"], bool)
        wrist = hand.normalize(self._env.sensors()["joint_position"])[:, : hand.NUM_WRIST]
        stay = np.concatenate([wrist, moment.actions[:, hand.NUM_WRIST :]], axis=1)
        self._command[reached], self._since[reached] = stay[reached], moment.steps[reached]
        self._holds |= reached
        settled = self._holds & (moment.steps - self._since >= SETTLE_STEPS)
        return moment.unstable | settled | (~self._holds & (moment.steps >= self._reach_steps))

    def result(self, world: int, moment: Moment) -> Hold | None:
        """The hold; None where nothing is held."""
        if moment.unstable[world] or not (self._holds[world] and moment.info["task_a_held"][world]):
            return None
        joints = self._env.sensors()["joint_position"][world, hand.NUM_WRIST :]
        return Hold(self._env.get_state()[world], joints, hand.denormalize(self._command[world]))


class Softener(Watcher):
    """Moves finger targets to softened ones, waits, and looks at contacts."""

    name = "soften"

    def __init__(self, env: Any, holds: Sequence[Hold], squeeze: float) -> None:
        """One hold per world."""
        self._env, self._data, self._now = env, mujoco.MjData(env.scene.model), 0
        self._command = np.stack([hold.command for hold in holds])
        self._soft = softened(np.stack([hold.joints for hold in holds]), self._command[:, hand.NUM_WRIST :], squeeze)

    def reset(self, obs: Any, info: Any, env_ids: Any, seeds: Any) -> None:
        """Nothing: all worlds begin at once."""

    def begin(self, worlds: Any, moment: Moment) -> None:
        """Remembers where the objects are."""
        self._start = self._env.sensors()["object_position"]

    def act(self, obs: Any) -> NDArray[np.float32]:
        """Commands on the way to the softened ones, or there."""
        self._now += 1
        share, command = min(1.0, self._now / SOFTEN_STEPS), self._command.copy()
        command[:, hand.NUM_WRIST :] += share * (self._soft - command[:, hand.NUM_WRIST :])
        return np.clip(hand.normalize(command), -1.0, 1.0).astype(np.float32)

    def step(self, moment: Moment) -> NDArray[np.bool_]:
        """All worlds end together, lost objects included."""
        return moment.unstable | (moment.steps >= SOFTEN_STEPS + SETTLE_STEPS)

    def result(self, world: int, moment: Moment) -> tuple[float, float, float]:
        """Slip factor, thumb force (N) and the object's displacement (m); zeros where the object is lost."""
        if moment.unstable[world] or not moment.info["task_a_held"][world]:
            return 0.0, 0.0, 0.0
        self._env.load_into(self._data, world)
        moved = np.linalg.norm(self._env.sensors()["object_position"][world] - self._start[world])
        return *grip(self._env.scene.model, self._data), float(moved)


def softened(joints: Array, reference: Array, squeeze: float) -> Array:
    """Finger targets q + s (q_ref - q), rad, of joints q and targets q_ref, both (N, 22), rad."""
    return joints + squeeze * (reference - joints)


def grip(model: mujoco.MjModel, data: mujoco.MjData) -> tuple[float, float]:
    """Slip factor of the fingers' hold, and normal force of the thumb, N."""
    fingers = [touch for touch in HeldContacts(model).touches(data) if touch.finger]
    carried = sum(touch.friction * touch.normal for touch in fingers)
    return carried / weight(model), sum(touch.normal for touch in fingers if touch.finger == "TH")


def settled_holds(config: Config) -> list[Hold]:
    """Holds as they were grasped, settled; those that didn't come about are left out.

    Raises:
        UsageError: If there is none.
    """
    skill, seeds = make_retention(config.skill), range(FIRST_SEED, FIRST_SEED + config.worlds)
    agent: Agent | None = None
    options: dict[str, Any] = {"start": "scratch"}
    plan = [Episode(seed) for seed in seeds]
    if config.held_states is None:
        agent = make_expert(config.skill)
    else:
        library = HeldStateLibrary.load(config.held_states, skill=config.skill)
        rows = library.indices(config.split)
        options = {"start": "held", "held_states": library}
        plan = [Episode(seed, {"held_index": rows[i % len(rows)]}) for i, seed in enumerate(seeds)]
    venv = nominal_worlds(config.skill, config.worlds, **options)
    settler = Settler(venv.unwrapped, agent, skill.MAX_STEPS)
    holds = [rollout.result for rollout in run_episodes(venv, settler, plan, settler)]
    venv.close()
    if not any(holds):
        raise UsageError(f"none of {config.worlds} grasps of {config.skill} held its object; expected some")
    return [hold for hold in holds if hold is not None]


class Gauge:
    """Softens the same holds again and again."""

    def __init__(self, skill: str, holds: Sequence[Hold]) -> None:
        """Builds as many worlds as there are holds."""
        self._holds = holds
        self._venv = nominal_worlds(skill, len(holds), start="scratch")

    def measure(self, squeeze: float) -> Strength:
        """What the holds are worth at this squeeze."""
        softener = Softener(self._venv.unwrapped, self._holds, squeeze)
        plan = [Episode(0, {"state": hold.state}) for hold in self._holds]
        results = [rollout.result for rollout in run_episodes(self._venv, softener, plan, softener)]
        slip, thumb, moved = np.array(results).T
        return Strength(
            squeeze=squeeze,
            slip_factor=round(float(slip.mean()), 4),
            least=round(float(slip.min()), 4),
            largest=round(float(slip.max()), 4),
            thumb_force=round(float(thumb.mean()), 4),
            moved_mm=round(1000 * float(np.median(moved)), 4),
            lost=int((slip == 0.0).sum()),
        )

    def close(self) -> None:
        """Frees the worlds."""
        self._venv.close()


def bisect(gauge: Gauge, target: float, tolerance: float) -> Strength:
    """The squeeze at which the slip factor is `target`, to three digits.

    Raises:
        UsageError: If the grasps are too weak as they are, or no squeeze comes near enough.
    """
    low, high = 0.0, 1.0
    found = gauge.measure(high)
    if found.slip_factor < target - tolerance:
        raise UsageError(f"the slip factor is {found.slip_factor:.2f} as grasped; expected more than {target:g}")
    for _ in range(HALVINGS):
        if abs(found.slip_factor - target) <= tolerance:
            return found
        found = gauge.measure(round((low + high) / 2, 3))
        low, high = (found.squeeze, high) if found.slip_factor < target else (low, found.squeeze)
    raise UsageError(f"no squeeze gives a slip factor within {tolerance:g} of {target:g}; the nearest: {found}")


def main(config: Config) -> dict[str, Any]:
    """Measures, prints, and writes the file if one is wanted."""
    holds = settled_holds(config)
    gauge = Gauge(config.skill, holds)
    rows = [gauge.measure(squeeze) for squeeze in config.squeezes]
    found = bisect(gauge, config.target, config.tolerance)
    gauge.close()
    title = f"{config.skill}: {len(holds)} of {config.worlds} holds, {weight(build_scene(config.skill).model):.2f} N"
    cells = [list(asdict(row).values()) for row in (*rows, found)]
    Console(width=120).print(make_table(title, list(asdict(found)), cells))
    print(f"HOLD_SQUEEZE = {found.squeeze:g}")
    result = {
        "settings": {name: value for name, value in asdict(config).items() if name != "out"},
        "holds": len(holds), "rows": [asdict(row) for row in rows], "found": asdict(found), **provenance(),
    }  # fmt: skip
    if config.out is not None:
        write_json(config.out, result)
    return result


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
