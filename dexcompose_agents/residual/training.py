"""Training stabiliser A and residual B from settings to a weight file."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from dexcompose_agents.residual.config import ResidualBConfig, ResidualConfig, StabiliserConfig
from dexcompose_agents.residual.joint import JointPPO, TunedStabiliser
from dexcompose_agents.residual.residual_b import ResidualBPolicy
from dexcompose_agents.residual.residual_b_task import ResidualBTask
from dexcompose_agents.residual.stabiliser import StabiliserPolicy
from dexcompose_agents.residual.stabiliser_task import StabiliserTask
from dexcompose_agents.rl.actor_critic import DeterministicPolicy
from dexcompose_agents.rl.learners import LEARNER_SETTINGS, Learner, find_learner
from dexcompose_agents.rl.policy_evaluation import CONFIRMATION_SEED
from dexcompose_agents.rl.residual_network import ResidualNetwork
from dexcompose_agents.rl.trainer import ProgressCallback
from dexcompose_envs import __version__, parse_pair
from dexcompose_envs.artefacts import checksum
from dexcompose_envs.errors import UsageError
from dexcompose_envs.held_states import COLUMNS
from dexcompose_envs.ownership import FingerMask

if TYPE_CHECKING:
    from dexcompose_agents.diffusion.policy import BasePolicy


def train_stabiliser(
    skill: str,
    config: StabiliserConfig,
    out: str | Path,
    *,
    progress: ProgressCallback | None = None,
    max_minutes: float | None = None,
    **env_options: Any,
) -> StabiliserPolicy:
    """Trains stabiliser A of a retention skill, or goes on if `out` holds a checkpoint of just this training.

    Args:
        skill: Such as "GraspBall".
        config: Settings.
        out: Folder for `stabiliser.safetensors`, checkpoint and logs.
        progress: Called after each iteration with its metrics.
        max_minutes: Wall time of this call, see `PPO.train`; None for no limit.
        **env_options: Options of the environment, such as `held_states`.

    Returns:
        The best policy of all evaluations, as written to the file, on the CPU.

    Raises:
        FileError: If `out` belongs to another training.
        Paused: After `max_minutes`; the same call goes on from there.
    """
    task = StabiliserTask(skill, config, **env_options)
    identity = {"trains": "stabiliser", "skill": skill, "options": _plain(env_options)}
    make = find_learner(config.learner)
    _, network, facts = _train(task, config, make, out, ("held", "return"), identity, progress, max_minutes)
    path = Path(out) / "stabiliser.safetensors"
    masks = [FingerMask.parse(text) for text in config.masks]
    StabiliserPolicy(network, bound=config.bound, masks=masks, skill=skill).save(path, network, **facts)
    return StabiliserPolicy.load(path)


def train_residual_b(
    pair: str,
    mask: FingerMask,
    base_policy: BasePolicy,
    stabiliser: StabiliserPolicy | None,
    config: ResidualBConfig,
    out: str | Path,
    *,
    progress: ProgressCallback | None = None,
    max_minutes: float | None = None,
    **env_options: Any,
) -> ResidualBPolicy:
    """Trains residual B on top of frozen pi_B and stabiliser A, or goes on as `train_stabiliser` does.

    What comes out is no residual at all, exactly zero, unless the best one succeeds more often than that on episodes by
    which nothing was chosen, twice as many as those that ranked it.

    Args:
        pair: Such as "GraspBall-PushButton".
        mask: Preserved fingers m*.
        base_policy: pi_B; best on `config.env_device`. It is known by its `weights_hash`, or else by its class.
        stabiliser: pi_res_A on `config.env_device`, or None.
        config: Settings.
        out: Folder for `residual_b.safetensors`, checkpoint and logs; with `config.joint` also for the fine-tuned
            `stabiliser.safetensors`.
        progress: As for `train_stabiliser`, like all that follows.
        max_minutes: See there.
        **env_options: See there.

    Raises:
        UsageError: If the stabiliser is another skill's, or there is none that could be fine-tuned.
        FileError: If `out` belongs to another training.
        Paused: After `max_minutes`; the same call goes on from there.
    """
    if stabiliser is not None and stabiliser.skill != parse_pair(pair)[0]:
        raise UsageError(f"the stabiliser is {stabiliser.skill}'s; expected that of {parse_pair(pair)[0]}")
    partner: TunedStabiliser | None = None
    make: Callable[..., Learner] = find_learner(config.learner)
    if config.joint:
        if stabiliser is None:
            raise UsageError("joint is True without a stabiliser; expected one to fine-tune")
        partner = TunedStabiliser(stabiliser, mask)
        make = partial(JointPPO, partner=partner, partner_learning_rate=config.joint_learning_rate)
    task = ResidualBTask(pair, mask, base_policy, partner or stabiliser, config, **env_options)
    identity = {
        "trains": "residual_b",
        "pair": pair,
        "mask": str(mask),
        "bound": task.bound.tolist(),
        "dimensions": [*task.dimensions],
        "base_policy": getattr(base_policy, "weights_hash", type(base_policy).__name__),
        "stabiliser": None if stabiliser is None else {"weights": stabiliser.weights_hash, "bound": stabiliser.bound},
        "options": _plain(env_options),
    }
    learner, network, facts = _train(
        task, config, make, out, ("success", "return"), identity, progress, max_minutes, must_win=True
    )
    if partner is not None and stabiliser is not None and isinstance(learner, JointPPO):
        tuned = learner.best_partner if facts["kept"] else stabiliser.network
        partner.save(Path(out) / "stabiliser.safetensors", tuned, **facts, pair=pair)
    path = Path(out) / "residual_b.safetensors"
    ResidualBPolicy(
        network, bound=task.bound, mask=mask, pair=pair, dimensions=task.dimensions, wrist_error=config.wrist_error,
        writes_all=config.residual_writes == "all",
    ).save(path, network, **facts)  # fmt: skip
    return ResidualBPolicy.load(path)


def _train(
    task: StabiliserTask | ResidualBTask,
    config: ResidualConfig,
    make: Callable[..., Learner],
    out: str | Path,
    score: tuple[str, ...],
    identity: Mapping[str, Any],
    progress: ProgressCallback | None,
    max_minutes: float | None,
    must_win: bool = False,
) -> tuple[Learner, ResidualNetwork, dict[str, Any]]:
    """The learner, its best network, and what made it and how it compared with no residual at all; closes the task.

    With `must_win` a network that is no better than no residual by the first of the scores, on episodes of its own for
    this comparison, gives way to one that says nothing.
    """
    try:
        env = task.worlds.env.unwrapped
        apart = (*LEARNER_SETTINGS, "num_threads")
        settings = {name: value for name, value in asdict(config).items() if name not in apart}
        columns = {name: getattr(env.held_library, name) for name in COLUMNS}
        held = checksum({}, {name: value for name, value in columns.items() if value is not None})[:16]
        origin = {"config": settings, "model_hash": env.model_hash, "held_states": held}
        learner = make(task, config.learning, out=out, score=score, progress=progress, identity={**identity, **origin})
        network = learner.train(max_minutes)
        facts: dict[str, Any] = {"evaluation": dict(learner.best_evaluation())}
        if must_win:
            facts["confirmation"] = again = _confirmation(learner, network, config)
            facts["kept"] = again[f"composed_{score[0]}"] > again[f"base_{score[0]}"]
    finally:
        task.close()
    if not facts.get("kept", True):
        network = network.silent()
    device = learner.device
    made = {
        **origin,
        "config": {**settings, "num_threads": config.num_threads, learner.SETTINGS: asdict(config.learning)},
        "backend": config.backend,
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "env_version": __version__,
        "iterations": learner.iteration,
        "steps": learner.iteration * config.learning.horizon * config.learning.num_envs,
        "seconds": round(learner.seconds, 1),
        **{name: _rounded(fact) if isinstance(fact, dict) else fact for name, fact in facts.items()},
    }
    return learner, network, made


def _confirmation(learner: Learner, network: ResidualNetwork, config: ResidualConfig) -> dict[str, float]:
    """How no residual and the network do on episodes that nothing was chosen by."""
    rounds, row = 2 * config.learning.evaluation_rounds, dict[str, float]()
    for arm, policy in {"base": None, "composed": DeterministicPolicy(network)}.items():
        seen = learner.evaluate(policy, rounds=rounds, seed=CONFIRMATION_SEED)
        row |= {f"{arm}_{name}": value for name, value in seen.items()}
    return {"episodes": float(rounds * config.learning.num_envs), **row}


def _rounded(numbers: Mapping[str, float]) -> dict[str, float]:
    return {name: round(value, 5) for name, value in numbers.items()}


def _plain(options: Mapping[str, Any]) -> dict[str, Any]:
    """Options of an environment that decide what is learned, by their texts; the library is known by its content."""
    return {name: str(value) for name, value in options.items() if name not in ("held_states", "num_threads")}
