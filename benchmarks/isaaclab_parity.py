"""How far Isaac Lab's scene and the default engine agree, from single numbers of the model up to success rates.

    .venv/bin/python benchmarks/isaaclab_parity.py measure --backend mujoco
    .venv-isaaclab/bin/python benchmarks/isaaclab_parity.py measure --backend isaaclab --device cpu
    .venv/bin/python benchmarks/isaaclab_parity.py report --out benchmarks/results/isaaclab_parity

The two have environments of their own, so each measures for itself and `report` compares: numbers of the solver's
model with the MJCF's; the same actions from the same states (those of `dexcompose` on the default engine, replayed
open-loop); how far an object drifts in a quiet hold; success of base policies and of the composition on the same seeds.
Both write to `--work`; what is done there is not done again. `report` writes `report.json`, and `report.md` for people.
On two cores Isaac Lab's share takes about an hour.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import mujoco
import numpy as np
import tyro
from base_policies import FIRST_SEED
from numpy.typing import NDArray

from dexcompose_agents.diffusion.agent import PolicyAgent
from dexcompose_agents.evaluation.protocol import evaluate
from dexcompose_agents.evaluation.statistics import wilson_interval
from dexcompose_agents.methods import make_method
from dexcompose_agents.runtime.compute import make_numpy_vec
from dexcompose_agents.runtime.provenance import machine_info, read_json, software_versions, write_json
from dexcompose_agents.runtime.threads import one_thread
from dexcompose_envs import SKILLS, env_id
from dexcompose_envs.errors import UsageError
from dexcompose_envs.files import atomic_write
from dexcompose_envs.rollouts import Episode, run_episodes
from dexcompose_envs.scene import build_scene, model_hash_of

BACKENDS = ("mujoco", "isaaclab")
PAIRS = ("GraspBall-PushButton", "PickCan-OpenMicrowave", "PickStick-OpenDoor", "PourMug-TurnOnSwitch")
"""Every skill takes part in one."""
GROUPS = ("joint_position", "palm_position", "object_position", "object_quaternion", "b_joint_angle", "b_joint_travel")
"""Sensor groups whose traces are compared: rad (wrist: m), m, m in the palm frame, unit quaternion, rad, m."""
AFTER = (1, 10, 50, 100)
"""Control steps after which they are."""
FIELDS = {
    "body": ("mass",),
    "joint": ("range", "damping", "armature", "frictionloss", "stiffness", "solreflimit"),
    "geom": ("size", "friction", "condim", "priority", "solref", "solimp"),
}
DIFFERENCES = (
    "Integrator: Newton has implicitfast, the default engine one that is discrete in time.",
    "Precision: single, like every engine on a GPU; the default engine has double.",
    "Collision bits: USD has none. Pairs that they keep apart are filtered one by one, with the same result.",
    "Springs that are no lines (the switch): USD has none. They are joint efforts.",
    "Actuators: Isaac Lab writes a position and a velocity actuator for each joint and clamps their sum at the joint.",
    "Contact forces come from Isaac Lab's contact sensors, all other sensors from poses and velocities of its assets.",
    "Fixtures: articulations on a fixed base, whose pose resets write, instead of mocap bodies.",
    "Gravity compensation of the hand is written into the USD; the converter leaves it out.",
)
"""What is different, and why."""


@dataclass(frozen=True)
class Measure:
    """Measures one of the two."""

    backend: str
    """"mujoco" first, whose actions "isaaclab" then replays."""
    device: str | None = None
    """Device of "isaaclab" and of the networks."""
    worlds: int = 4
    """Worlds of replay and hold."""
    steps: int = 100
    """Control steps of replay and hold."""
    episodes: int = 32
    """Episodes per skill of the base policies."""
    rollouts: int = 128
    """Rollouts per pair of `dexcompose`."""
    num_envs: int = 64
    """Worlds stepped together by policies and composites."""
    pairs: tuple[str, ...] = PAIRS
    """Pairs."""
    skills: tuple[str, ...] = SKILLS
    """Skills whose base policy is run."""
    parts: tuple[str, ...] = ("model", "replay", "hold", "policies", "composites")
    """What to measure."""
    work: Path = Path("runs/isaaclab_parity")
    """Folder of what is measured."""


@dataclass(frozen=True)
class Report:
    """Compares what was measured."""

    work: Path = Path("runs/isaaclab_parity")
    """Folder of what was measured."""
    out: Path = Path("runs/isaaclab_parity")
    """Folder of report.json and report.md."""


def make(name: str, config: Measure, num_envs: int, **options: Any) -> Any:
    """A vector environment that speaks NumPy, without autoreset, from the test part of the held states."""
    where = {} if config.backend == "mujoco" else {"backend": config.backend, "device": config.device}
    return make_numpy_vec(env_id(name), num_envs, autoreset_mode="Disabled", **where, **options)


def measure(config: Measure) -> None:
    """Measures what isn't there yet."""
    if config.backend not in BACKENDS:
        raise UsageError(f"backend is {config.backend!r}; expected one of {', '.join(BACKENDS)}")
    jobs: dict[str, tuple[tuple[str, ...], Callable[[str, Measure], Any]]] = {
        "model": (config.pairs if config.backend == "isaaclab" else (), model_of),
        "replay": (config.pairs, replay),
        "hold": (config.pairs, hold),
        "policies": (config.skills, policy),
        "composites": (config.pairs, composite),
    }
    folder = config.work / config.backend
    for part in config.parts:
        names, job = jobs[part]
        for name in names:
            path = folder / f"{part}-{name}.json"
            if not path.exists():
                made = {**machine_info(), **software_versions()}
                with one_thread():
                    write_json(path, {"model_hash": model_hash_of(name), "made": made, "rows": job(name, config)})
                print(path, flush=True)


def model_of(pair: str, config: Measure) -> dict[str, Any]:
    """Largest difference between the solver's model and the MJCF's, by kind and field, and how many were compared."""
    venv = make(pair, config, 1, physics="nominal")
    venv.reset(seed=0)
    from isaaclab_newton.physics import NewtonManager

    ours, theirs = build_scene(*pair.split("-")).model, NewtonManager._solver.mj_model
    found: dict[str, Any] = {}
    for kind, fields in FIELDS.items():
        count = {"body": "nbody", "joint": "njnt", "geom": "ngeom"}[kind]
        names = [_plain(kind, getattr(theirs, kind)(i).name) for i in range(getattr(theirs, count))]
        things = {getattr(ours, kind)(i).name: getattr(ours, kind)(i) for i in range(getattr(ours, count))}
        both = [(things[name], getattr(theirs, kind)(i)) for i, name in enumerate(names) if name in things]
        if kind == "body":  # what doesn't move has no mass that matters
            both = [(a, b) for a, b in both if a.weldid[0] != 0]
        for field in fields:
            name = {"solreflimit": "solref"}.get(field, field)
            apart = [float(np.abs(_value(a, name) - _value(b, name)).max()) for a, b in both]
            found[f"{kind}.{field}"] = {"compared": len(apart), "largest_difference": max(apart, default=0.0)}
    venv.close()
    return found


def _value(thing: Any, field: str) -> NDArray[Any]:
    """A field of a thing; of a geom's sizes those that its shape has."""
    value = np.ravel(getattr(thing, field))
    shape = mujoco.mjtGeom
    sizes = {shape.mjGEOM_SPHERE: 1, shape.mjGEOM_CAPSULE: 2, shape.mjGEOM_CYLINDER: 2, shape.mjGEOM_BOX: 3}
    return value[: sizes[int(np.ravel(thing.type)[0])]] if field == "size" else value


def _plain(kind: str, name: str) -> str:
    """The MJCF's name of a thing that Newton named by its path."""
    if kind == "geom":
        return name.rsplit("/", 1)[-1].rpartition("_")[0]
    known = {"body": ("b_", "a_"), "joint": ("b_",)}[kind]
    tail = name.rsplit("/", 1)[-1].split("_")
    joined = "_".join(tail[-2:])
    return joined if joined.startswith(known) or joined.startswith("wrist_") else tail[-1]


def replay(pair: str, config: Measure) -> dict[str, Any]:
    """Traces (T, N, size) of the sensor groups under the actions of `dexcompose` on the default engine."""
    options = {"base_shake": 0.0, "physics": "nominal", "terminate_on_success": False}
    venv = make(pair, config, config.worlds, **options)
    held = np.arange(config.worlds) * 7
    obs, info = venv.reset(seed=0, options={"held_index": held})
    path = config.work / "mujoco" / f"replay-{pair}.json"
    recorded = None if config.backend == "mujoco" else np.array(read_json(path)["rows"]["actions"], np.float32)
    method = make_method("dexcompose", pair) if recorded is None else None
    if method is not None:
        method.reset(obs, info, range(config.worlds), range(config.worlds))
    actions, traces = [], dict[str, list[NDArray[np.float64]]]()
    for step in range(config.steps):
        action = method.act(obs) if recorded is None and method is not None else recorded[step]  # type: ignore[index]
        obs, *_ = venv.step(action)
        actions.append(np.asarray(action, np.float64).round(6).tolist())
        for group, value in venv.unwrapped.sensors().items():
            if group in GROUPS:
                traces.setdefault(group, []).append(value.round(7))
    venv.close()
    return {"actions": actions, "traces": {group: np.array(trace).tolist() for group, trace in traces.items()}}


def hold(pair: str, config: Measure) -> dict[str, Any]:
    """How far objects move in the palm frame while nothing but gravity acts (N,), mm, and how many are kept."""
    venv = make(pair, config, config.worlds, base_shake=0.0, physics="nominal")
    obs, _ = venv.reset(seed=0, options={"held_index": np.arange(config.worlds) * 7})
    action = np.array(obs["context"])[:, venv.unwrapped.layout["context"]["previous_action"]]
    first = venv.unwrapped.sensors()["object_position"]
    for _ in range(config.steps):
        _, _, _, _, info = venv.step(action)
    moved = np.linalg.norm(venv.unwrapped.sensors()["object_position"] - first, axis=1)
    venv.close()
    return {"drift_mm": (1000 * moved).round(3).tolist(), "kept": int(np.sum(info["task_a_held"]))}


def policy(skill: str, config: Measure) -> dict[str, Any]:
    """Success of a base policy."""
    agent = PolicyAgent.load(skill, device=config.device or "cpu")
    venv = make(skill, config, min(config.num_envs, config.episodes))
    plan = [Episode(FIRST_SEED + number) for number in range(config.episodes)]
    successes = [bool(rollout.info["success"]) for rollout in run_episodes(venv, agent, plan)]
    venv.close()
    return {"episodes": len(successes), "successes": sum(successes)}


def composite(pair: str, config: Measure) -> dict[str, Any]:
    """Outcomes of `dexcompose` with the shipped weights."""
    found = evaluate(
        pair, "dexcompose", seeds=1, rollouts=config.rollouts, num_envs=config.num_envs, backend=config.backend,
        device=config.device,
    )  # fmt: skip
    outcomes = [record.outcome for record in found.records]
    return {"episodes": len(outcomes), "outcomes": {name: outcomes.count(name) for name in sorted(set(outcomes))}}


def report(config: Report) -> None:
    """Compares, writes and prints."""
    found = {
        backend: {path.stem: read_json(path) for path in sorted((config.work / backend).glob("*.json"))}
        for backend in BACKENDS
    }
    content = compared(*(found[backend] for backend in BACKENDS))
    write_json(config.out / "report.json", content)
    atomic_write(config.out / "report.md", page(content))
    print(page(content))


def compared(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> dict[str, Any]:
    """The report of what both measured: file name without ending -> content.

    Raises:
        UsageError: If they measured another model.
    """
    content: dict[str, Any] = {
        "made": {name: next(iter(each.values()))["made"] for name, each in zip(BACKENDS, (ours, theirs), strict=True)},
        "model_hashes": {}, "model": {}, "replay": {}, "hold": {}, "policies": {}, "composites": {},
    }  # fmt: skip
    for key, measured in theirs.items():
        if key.startswith("model-"):
            content["model"][key.partition("-")[2]] = measured["rows"]
    for key in sorted(ours.keys() & theirs.keys()):
        part, _, name = key.partition("-")
        hashes = {each[key]["model_hash"] for each in (ours, theirs)}
        if len(hashes) > 1:
            raise UsageError(f"{key} was measured on models {' and '.join(sorted(hashes))}; expected one")
        content["model_hashes"][name] = hashes.pop()
        a, b = ours[key]["rows"], theirs[key]["rows"]
        if part == "replay":
            content[part][name] = _deviations(a["traces"], b["traces"])
        elif part == "hold":
            content[part][name] = {"mujoco": a, "isaaclab": b}
        else:
            content[part][name] = {"mujoco": _rate(a), "isaaclab": _rate(b)}
    return content


def page(content: Mapping[str, Any]) -> str:
    """The report for people, Markdown."""
    made = content["made"]
    versions = [
        f"{name}: {about['cpu']}, {about['cores']} cores, Python {about['python']}, MuJoCo {about['mujoco']}, torch "
        f"{about['torch']}"
        for name, about in made.items()
    ]
    parts = ["<!-- Written by `benchmarks/isaaclab_parity.py report`. -->\n# Isaac Lab against the default engine"]
    parts += ["Made with", "\n".join(f"- {line}" for line in versions)]
    rates = [
        (name, *(f"{row[b]['percent']} ({row[b]['interval_95'][0]} to {row[b]['interval_95'][1]})" for b in BACKENDS))
        for part in ("composites", "policies")
        for name, row in content[part].items()
    ]
    parts += ["## Success, % (95 % interval), same seeds: `dexcompose` on pairs, base policies on skills"]
    parts += [_table(("", "default engine", "Isaac Lab"), rates)]
    drift = [
        (name, *(f"{np.mean(row[b]['drift_mm']):.2f}, {max(row[b]['drift_mm']):.2f}" for b in BACKENDS))
        for name, row in content["hold"].items()
    ]
    parts += ["## Drift of the object in a quiet hold of 4 s, mm: mean, largest"]
    parts += [_table(("", "default engine", "Isaac Lab"), drift)]
    parts += ["## Largest difference in an open-loop replay from the same states, after so many control steps"]
    steps = [str(after) for after in AFTER]
    rows = [
        (name, f"`{group}`", *(f"{value[after]:.2g}" if after in value else "" for after in steps))
        for name, groups in content["replay"].items()
        for group, value in groups.items()
    ]
    parts += [_table(("", "sensor (m, rad)", *steps), rows)]
    parts += ["## Largest difference between the solver's model and the MJCF (how many were compared)"]
    pairs, fields = [*content["model"]], [*next(iter(content["model"].values()), {})]
    cells = [[content["model"][pair][field] for pair in pairs] for field in fields]
    rows = [
        (f"`{field}`", *(f"{each['largest_difference']:.1g} ({each['compared']})" for each in row))
        for field, row in zip(fields, cells, strict=True)
    ]
    parts += [_table(("", *pairs), rows)]
    parts += ["## What differs, and why", "\n".join(f"- {line}" for line in DIFFERENCES)]
    return "\n\n".join(parts) + "\n"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return "\n".join("| " + " | ".join(row) + " |" for row in (head, ["---"] * len(head), *rows))


def _deviations(ours: dict[str, Any], theirs: dict[str, Any]) -> dict[str, dict[str, float]]:
    """Group -> after how many steps -> largest difference over worlds and components."""
    apart = {group: np.abs(np.array(ours[group]) - np.array(theirs[group])).max(axis=(1, 2)) for group in ours}
    return {
        group: {str(after): float(f"{value[after - 1]:.3g}") for after in AFTER if after <= len(value)}
        for group, value in apart.items()
    }


def _rate(row: dict[str, Any]) -> dict[str, Any]:
    successes = row["successes"] if "successes" in row else row["outcomes"].get("success", 0)
    interval = wilson_interval(successes, row["episodes"])
    bounds = [round(100 * interval.low, 1), round(100 * interval.high, 1)]
    return {**row, "percent": round(100 * successes / row["episodes"], 1), "interval_95": bounds}


Command = Annotated[Measure, tyro.conf.subcommand("measure")] | Annotated[Report, tyro.conf.subcommand("report")]


def main(config: Command) -> None:
    """Measures or reports."""
    if isinstance(config, Measure):
        measure(config)
    else:
        report(config)


if __name__ == "__main__":
    main(tyro.cli(Command))  # type: ignore[arg-type]
