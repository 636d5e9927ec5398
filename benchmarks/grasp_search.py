"""Finds a fingertip grasp of a retention skill's object: contacts, inverse kinematics, then cross-entropy.

    python benchmarks/grasp_search.py GraspBall --seed 0 --generations 12

A candidate is 21 numbers: the object's place in the palm (3, m) and the wrist's Euler angles (3, rad), added to those
of the skill's present grasp, which may be a rough one (`Grasp.rough`); and for each finger the direction from which it
touches (rad), how far aside (m), and how deep it closes beyond the surface (m), added to the tables below. Contacts are
where rays meet the object, so any shape will do. The score says how well the skill's own expert lifts the object so,
and how well an eased grip then keeps it while the hand moves, with the index finger and without.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import gymnasium as gym
import mujoco
import numpy as np
from numpy.typing import NDArray

from dexcompose_agents.attribution.release_test import ReleaseTestConfig, base_motion
from dexcompose_envs import hand
from dexcompose_envs.checks import whole_number
from dexcompose_envs.composition.bounds import NORMALISED_PER_UNIT
from dexcompose_envs.errors import UsageError
from dexcompose_envs.registration import env_id
from dexcompose_envs.skills import make_retention
from dexcompose_envs.skills.grasping import Grasp, GraspExpert
from dexcompose_envs.skills.terms import axis_of

Numbers = NDArray[np.float64]

SIGMA = np.repeat([0.006, 0.08, 0.18, 0.005, 0.006], [3, 3, 5, 5, 5])
"""Spread of the first candidates; the 21 numbers in order."""
DIRECTION = np.array([0.3, 0.3, 0.3, 0.3, np.pi - 0.4])
"""About the palm's x axis: 0 looks along the fingers, pi / 2 away from the palm."""
ASIDE = np.array([0.030, 0.010, -0.010, -0.030, 0.008])
"""Along the palm's x axis, towards the index finger; at most `ASIDE_SHARE` of the object's own extent."""
ASIDE_SHARE = 0.75
DEPTH = np.array([0.018, 0.02, 0.02, 0.02, 0.028])
DEPTH_BOUNDS = (0.004, 0.05)
CLEARANCE = 0.016
"""Distance of the fingertips from the object before they close, m."""
HALF_CLOSED = np.array([0.0, 0.9, 0.5, 0.4] * 3 + [0.0, 0.0, 0.9, 0.5, 0.4] + [0.7, 1.0, 0.0, 0.0, -0.5])
"""Fingers (22,) near which inverse kinematics looks for a posture, rad."""
SCREENED = 250
"""Candidates of the first generation, of which those that the fingers can reach are tried."""
SPARE_STEPS, CREEP_STEPS, EASE_STEPS, QUIET_STEPS = 10, 20, 10, 15
"""Control steps: before the end of the skill's time the lift is over; the grip creeps, is eased, and is quiet."""
CARRY = ReleaseTestConfig(steps=60, clean_steps=1, pitch_window=(0, 40), swing_window=(20, 60))
"""How the hand is moved with the eased grip: as in a release test, in less time."""
MARGIN = 2.6
"""Times the object's weight that thumb and fingers, opposed, could carry by friction once the grip is eased; what slips
also digs in, so that a hold has a slip factor of about 3."""
WEIGHTS = {
    "lifted": 1.0, "success": 1.0, "creep": 0.5, "touching": 0.8, "balance": 0.5, "palm": -2.5, "unreached": -4.0,
    "carried": 1.6, "kept": 1.6, "still": 0.8,
}  # fmt: skip
"""What a candidate's score is made of, see `GraspSearch.try_out`."""


@dataclass(frozen=True)
class Found:
    """A candidate that was tried out.

    Attributes:
        numbers: The candidate (21,).
        grasp: The grasp that it stands for.
        score: Sum of its weighted parts.
        parts: Mean of each part over all trials.
    """

    numbers: Numbers
    grasp: Grasp
    score: float
    parts: dict[str, float]

    def __str__(self) -> str:
        return f"score {self.score:.2f} (" + ", ".join(f"{name} {x:.2f}" for name, x in self.parts.items()) + ")"


class FingerReach:
    """Inverse kinematics of the fingers, the palm being fixed: damped least squares, one finger after another."""

    def __init__(self) -> None:
        self._model = hand.make_spec().compile()
        self._data = mujoco.MjData(self._model)
        tips = [self._model.geom(f"C_{finger.lower()}distal") for finger in hand.FINGERS]
        self.radii = np.array([tip.size[0] for tip in tips])
        # The pad of each finger: on its last link's axis, a little behind the end.
        self._pads = [(int(tip.bodyid[0]), tip.pos + np.array([0.0, 0.0, tip.size[1] - 0.004])) for tip in tips]

    def reach(self, points: Numbers, start: Numbers, steps: int, pull: float) -> tuple[Numbers, float]:
        """Joints (22,) whose fingertips are nearest to points (5, 3) of the palm frame, and the summed distance, m.

        Args:
            points: Where the middles of the fingertips should be.
            start: Joints to begin with.
            steps: Iterations.
            pull: How strongly joints that are free to move are drawn to `HALF_CLOSED`.
        """
        joints, goals, jacobian = start.copy(), points @ hand.PALM_AT_ZERO.T, np.zeros((3, self._model.nv))
        for _ in range(steps):
            tips = self._tips(joints)
            for finger, (body, _), tip, goal in zip(hand.FINGERS, self._pads, tips, goals, strict=True):
                columns = hand.finger_slice(finger)
                own = slice(columns.start - hand.NUM_WRIST, columns.stop - hand.NUM_WRIST)
                mujoco.mj_jac(self._model, self._data, jacobian, None, tip, body)
                own_jacobian = jacobian[:, columns]
                damped = own_jacobian @ own_jacobian.T + 4e-6 * np.eye(3)
                inverse = own_jacobian.T @ np.linalg.inv(damped)
                error = (goal - tip) * min(1.0, 0.03 / (np.linalg.norm(goal - tip) + 1e-9))
                free = pull * (HALF_CLOSED[own] - joints[own])
                move = inverse @ error + free - inverse @ (own_jacobian @ free)
                joints[own] = np.clip(joints[own] + move, hand.ACTION_LOW[columns], hand.ACTION_HIGH[columns])
        return joints, float(np.linalg.norm(goals - self._tips(joints), axis=1).sum())

    def _tips(self, joints: Numbers) -> Numbers:
        """Pads of the fingertips (5, 3) in world axes, the palm's frame being the wrist at rest."""
        self._data.qpos[hand.NUM_WRIST :] = joints
        mujoco.mj_kinematics(self._model, self._data)
        mujoco.mj_comPos(self._model, self._data)
        return np.array([self._data.xpos[b] + self._data.xmat[b].reshape(3, 3) @ pad for b, pad in self._pads])


class Surface:
    """Where an object can be touched, by rays in the palm's axes.

    Args:
        model: A scene that holds the object.
        pose: The object as it lies at the start (7,).
    """

    def __init__(self, model: mujoco.MjModel, pose: Numbers) -> None:
        self._model, self._data, self._quaternion = model, mujoco.MjData(model), pose[3:]
        self._data.qpos[:3] += 100.0  # the hand
        self._joint = self._data.joint(int(model.body("object").jntadr[0]))
        self._middle = np.array([0.0, 0.0, 100.0])

    def touch(self, euler: Numbers, direction: Numbers, aside: Numbers) -> tuple[Numbers, Numbers]:
        """Contact points from the object's centre, and outward normals, each (5, 3), in the palm's axes.

        Args:
            euler: The wrist's Euler angles (3,).
            direction: From which side each finger touches (5,), rad, see `DIRECTION`.
            aside: How far from the middle along the palm's x axis (5,), m, see `ASIDE`.
        """
        turn = np.zeros(4)
        mujoco.mju_mat2Quat(turn, hand.palm_rotation(euler).T.ravel())
        mujoco.mju_mulQuat(self._joint.qpos[3:], turn, self._quaternion)
        self._joint.qpos[:3] = self._middle
        mujoco.mj_kinematics(self._model, self._data)
        out = np.stack([np.zeros(5), -np.sin(direction), np.cos(direction)], axis=-1)
        points, normals = np.zeros((5, 3)), np.zeros((5, 3))
        width = self._half_width()
        for i in range(5):
            offset = np.clip(aside[i], -ASIDE_SHARE * width, ASIDE_SHARE * width)
            points[i], normals[i] = self._hit(np.array([offset, 0.0, 0.0]), out[i])
        return points, normals

    def _half_width(self) -> float:
        """How far the object reaches to both sides along the palm's x axis, m; a ray might find it hollow there."""
        boxes, ends = self._model.geom_aabb, []
        for geom in np.flatnonzero(self._model.geom_bodyid == self._model.body("object").id):
            turn = self._data.geom_xmat[geom].reshape(3, 3)
            middle = (self._data.geom_xpos[geom] + turn @ boxes[geom, :3] - self._middle)[0]
            half = np.abs(turn[0]) @ boxes[geom, 3:]
            ends.append([middle + half, half - middle])
        return float(np.max(ends, axis=0).min())

    def _hit(self, inside: Numbers, out: Numbers) -> tuple[Numbers, Numbers]:
        """Where a ray from afar against `out`, aimed at a point inside, meets the object; its normal there."""
        start, normal = inside + 0.5 * out, np.zeros(3)
        away = mujoco.mj_ray(self._model, self._data, start + self._middle, -out, None, 1, -1, None, normal)
        return (start - away * out if away >= 0 else inside), (normal if away >= 0 else out)


class GraspSearch:
    """A cross-entropy search over grasps of one skill's object.

    Args:
        skill: Name of the retention skill.
        seed: Seed of all that is drawn.
        population: Candidates per generation; a multiple of 6.
        trials: Lifts per candidate; candidates that did best are tried three more times as often.
        start: Grasp whose palm point, Euler angles and approach the search begins with; None: the skill's own.
        num_threads: CPU threads; None: all usable cores.

    Raises:
        UsageError: If the skill is no retention skill, its expert no `GraspExpert`, or a number is none.
    """

    def __init__(
        self, skill: str, seed: int = 0, population: int = 18, trials: int = 2, start: Grasp | None = None,
        num_threads: int | None = None,
    ) -> None:  # fmt: skip
        task = make_retention(skill)
        expert = task.expert()
        if not isinstance(expert, GraspExpert):
            raise UsageError(f"the expert of {skill} is a {type(expert).__name__}; expected a GraspExpert")
        self._task, self._expert = task, expert
        self.start = expert.grasp if start is None else start
        self._rng = np.random.default_rng(whole_number("seed", seed, 0))
        self._population = 6 * (whole_number("population", population, 6) // 6)
        self._trials = whole_number("trials", trials)
        options: dict[str, Any] = {"terminate_on_success": False, "max_episode_steps": 1000, "num_threads": num_threads}
        worlds = self._population * self._trials
        made: Any = gym.make_vec(env_id(skill), num_envs=worlds, autoreset_mode="Disabled", **options)
        self._venv = made.unwrapped
        self._data = mujoco.MjData(self._venv.scene.model)
        self._surface, self._fingers = Surface(self._venv.scene.model, task.nominal_pose), FingerReach()

    def grasp(self, numbers: Numbers) -> tuple[Grasp, float]:
        """The grasp of a candidate (21,), and how far its contacts are out of reach, m."""
        place, euler, direction, aside, depth = np.split(numbers, [3, 6, 11, 16])
        center, euler = self.start.palm_point + place, self.start.euler + euler
        points, normals = self._surface.touch(euler, DIRECTION + direction, ASIDE + aside)
        radii, depth = self._fingers.radii, np.clip(DEPTH + depth, *DEPTH_BOUNDS)
        clear, closed = (center + points + normals * away[:, None] for away in (radii + CLEARANCE, radii - depth))
        preshape, far = self._fingers.reach(clear, HALF_CLOSED, 25, 0.06)
        close, farther = self._fingers.reach(closed, preshape, 15, 0.0)
        return Grasp(center, euler, self.start.approach, preshape, close), far + farther

    def try_out(self, grasps: Sequence[Grasp], unreached: Sequence[float]) -> list[dict[str, float]]:
        """Lifts the object with each grasp as often as worlds allow, eases the grip, moves the hand, and looks.

        Returns:
            For each grasp the means of: lifted (share of 10 cm), success (of the skill), creep (less is nearer to 1),
            touching (share of the fingertips), balance (least share of a finger other than the index), palm (whether
            palm or proximal links touch), unreached (m), carried (with the eased grip of all fingers), kept and still
            (the same while the index finger lets go).
        """
        venv, each = self._venv, self._venv.num_envs // len(grasps)
        worlds = each * len(grasps)
        seeds = self._rng.integers(0, 2**31, each).tolist()
        experts = [self._expert.holding(grasp) for grasp in grasps]
        obs, info = venv.reset(seed=seeds * len(grasps))
        for i, expert in enumerate(experts):
            expert.reset({key: value[i * each : (i + 1) * each] for key, value in obs.items()}, {}, range(each), seeds)
        begun, success = venv.sensors()["object_world_position"][:, 2], np.zeros(worlds, bool)
        lift_steps = self._task.MAX_STEPS - SPARE_STEPS
        for step in range(lift_steps):
            if step == lift_steps - CREEP_STEPS:
                before = venv.sensors()["object_position"]
            action = np.concatenate([expert.act({}) for expert in experts])
            obs, *_, info = venv.step(action)
            success |= info["success"]
        sensors, force = venv.sensors(), venv.held_columns()["contact"]
        held, height = sensors["object_position"], sensors["object_world_position"][:, 2]
        lifted = np.clip((height - begun) / 0.1, 0.0, 1.0)
        palm = np.array([self._is_touched_by_the_palm(world) for world in range(worlds)])
        eased = self._ease(obs, action, force[:, hand.FINGERS.index("TH")])
        carried, _ = self._carry(eased, "")
        kept, moved = self._carry(eased, "FF")
        crept = np.linalg.norm(held - before, axis=1)
        up = lifted > 0.5
        parts = {
            "lifted": lifted,
            "success": success,
            "creep": up * np.exp(-crept / 0.002),
            "touching": up * (force > 0.2).mean(axis=1),
            "balance": up * np.minimum(1.0, 4 * force[:, 1:].min(axis=1) / np.maximum(force[:, 1:].sum(axis=1), 0.1)),
            "palm": up & palm,
            "unreached": np.repeat(unreached, each),
            "carried": up & carried,
            "kept": up & kept,
            "still": up * np.exp(-moved / 0.01),
        }
        means = {name: np.reshape(part, (len(grasps), each)).mean(axis=1) for name, part in parts.items()}
        return [{name: float(mean[i]) for name, mean in means.items()} for i in range(len(grasps))]

    def _ease(self, obs: Any, grip: Numbers, thumb: Numbers) -> Numbers:
        """Eases the grip to a person's margin and holds still; the command (N, 28) that then holds.

        `thumb` (N,) is the force of the thumb before, N.
        """
        model, fingers = self._venv.scene.model, slice(hand.NUM_WRIST, None)
        needed = MARGIN * float(model.body("object").mass[0]) * 9.81 / (2 * hand.FRICTION)
        squeeze = np.clip(needed / np.maximum(thumb, 0.3), 0.1, 1.5)[:, None]
        joints, command = np.asarray(obs["task_a"][:, fingers.start : hand.NUM_ACTIONS], np.float64), grip.copy()
        soft = np.clip(joints + squeeze * (grip[:, fingers] - joints), -1.0, 1.0)
        for step in range(EASE_STEPS + QUIET_STEPS):
            share = min(1.0, (step + 1) / EASE_STEPS)
            command[:, fingers] = (1 - share) * grip[:, fingers] + share * soft
            self._venv.step(command)
        return command

    def _carry(self, command: Numbers, released: str) -> tuple[NDArray[np.bool_], Numbers]:
        """Whether worlds keep the object while the hand moves and a finger lets go, and how far it moved (N,), m.

        Afterwards everything is as before. `released` is the finger, "" for none.
        """
        venv, skill = self._venv, self._task
        state, before = venv.get_state(), venv.sensors()
        motion = base_motion(CARRY, np.zeros(1), skill.HOLD_ROLL)[0] * NORMALISED_PER_UNIT[: hand.NUM_WRIST]
        opened = hand.normalize(np.append(np.zeros(hand.NUM_WRIST), hand.OPEN_FINGERS))
        columns = hand.finger_slice(released) if released else slice(0, 0)
        action = command.copy()
        for step in range(CARRY.steps):
            share = min(1.0, 2 * (step + 1) / CARRY.steps)
            action[:, : hand.NUM_WRIST] = np.clip(command[:, : hand.NUM_WRIST] + motion[step], -1.0, 1.0)
            action[:, columns] = (1 - share) * command[:, columns] + share * opened[columns]
            venv.step(action)
        after = venv.sensors()
        moved = np.linalg.norm(after["object_position"] - before["object_position"], axis=1)
        axes = [axis_of(sensors["object_quaternion"]) for sensors in (before, after)]
        turned = np.arccos(np.clip(np.sum(axes[0] * axes[1], axis=1), -1.0, 1.0))
        venv.set_state(state)
        return (moved < skill.RETENTION_RADIUS) & (turned < (skill.MAX_TURN or np.inf)), moved

    def _is_touched_by_the_palm(self, world: int) -> bool:
        """Whether a world's object touches more of the hand than the two outer links of its fingers."""
        data, model = self._data, self._venv.scene.model
        self._venv.load_into(data, world)
        held = int(model.body("object").id)
        outer = {model.body(link).id for finger in hand.FINGERS for link in hand.FINGER_LINKS[finger][1:]}
        pairs = model.geom_bodyid[data.contact.geom]
        others = {int(b if a == held else a) for a, b in pairs if held in (a, b)}
        return bool(others - outer - {0})

    def evaluate(self, candidates: Sequence[Numbers]) -> list[Found]:
        """Tries candidates out, best first."""
        made = [self.grasp(numbers) for numbers in candidates]
        tried = self.try_out([grasp for grasp, _ in made], [far for _, far in made])
        scores = [sum(weight * parts[name] for name, weight in WEIGHTS.items()) for parts in tried]
        found = zip(candidates, [grasp for grasp, _ in made], scores, tried, strict=True)
        return sorted((Found(*parts) for parts in found), key=lambda candidate: -candidate.score)

    def run(self, generations: int, report: Callable[[str], None] = lambda line: None) -> Found:
        """Searches.

        Args:
            generations: How often candidates are drawn; each takes the time of two short episodes per world.
            report: Takes a line on every generation.

        Returns:
            The best of the last elite and its mean, tried out on fresh seeds.
        """
        mean, sigma, drawn = np.zeros(len(SIGMA)), SIGMA, self._population
        finalists = [mean] * 3
        for generation in range(whole_number("generations", generations)):
            number = SCREENED if generation == 0 else drawn
            many = [mean, *(mean + sigma * self._rng.standard_normal((number - 1, len(SIGMA))))]
            if generation == 0:
                many = sorted(many, key=lambda numbers: self.grasp(numbers)[1])[:drawn]
            first = self.evaluate(many)
            again = self.evaluate([found.numbers for found in first[: drawn // 3]])
            elite = np.array([found.numbers for found in again[: max(2, drawn // 6)]])
            mean = 0.3 * mean + 0.7 * elite.mean(axis=0)
            sigma = np.maximum(0.4 * sigma + 0.6 * elite.std(axis=0), 0.12 * SIGMA)
            finalists = [mean, *elite[:2]]
            everyone = np.mean([found.score for found in first])
            report(f"generation {generation + 1}: {again[0]}, all {everyone:.2f}")
        return self.evaluate(finalists)[0]

    def close(self) -> None:
        """Releases the environment."""
        self._venv.close()


def as_python(grasp: Grasp) -> str:
    """The grasp as a skill file holds it, but for the line breaks."""
    parts = [f"    {name}=np.array({(np.round(value, 4) + 0.0).tolist()})," for name, value in asdict(grasp).items()]
    return "\n".join(["GRASP = Grasp(", *parts, ")"])


def main(arguments: Sequence[str] | None = None) -> Found:
    """Runs a search and prints the grasp."""
    parser = argparse.ArgumentParser(prog="python benchmarks/grasp_search.py", description=__doc__)
    parser.add_argument("skill", help="a retention skill, such as GraspBall")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--generations", type=int, default=12)
    parser.add_argument("--population", type=int, default=18, help="candidates per generation")
    parser.add_argument("--trials", type=int, default=2, help="lifts per candidate")
    parser.add_argument("--threads", type=int, help="CPU threads; default: all")
    given = parser.parse_args(arguments)
    search = GraspSearch(given.skill, given.seed, given.population, given.trials, num_threads=given.threads)
    found = search.run(given.generations, lambda line: print(line, flush=True))
    search.close()
    print(f"found, on fresh seeds: {found}", as_python(found.grasp), sep="\n")
    return found


if __name__ == "__main__":
    main()
