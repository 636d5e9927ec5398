"""Training stabiliser A and residual B from settings to a weight file."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from dexcompose_agents.residual.config import ResidualBConfig, StabiliserConfig
from dexcompose_agents.residual.residual_b import ResidualBPolicy
from dexcompose_agents.residual.residual_b_task import ResidualBTask
from dexcompose_agents.residual.stabiliser import StabiliserPolicy
from dexcompose_agents.residual.stabiliser_task import StabiliserTask
from dexcompose_agents.rl.ppo import PPO, ProgressCallback
from dexcompose_envs import __version__, parse_pair
from dexcompose_envs.ownership import FingerMask
from dexcompose_envs.scene import build_scene

if TYPE_CHECKING:
    from dexcompose_agents.diffusion.policy import BasePolicy

STABILISER_SCORE = ("held", "return")
RESIDUAL_B_SCORE = ("success", "return")


def train_stabiliser(
    skill: str,
    config: StabiliserConfig,
    out: str | Path,
    *,
    progress: ProgressCallback | None = None,
    max_minutes: float | None = None,
    **env_options: Any,
) -> StabiliserPolicy:
    """Trains stabiliser A of a retention skill; resumes if `out` holds a checkpoint.

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
        TrainingPaused: After `max_minutes`; the same call goes on from there.
    """
    out = Path(out)
    task = StabiliserTask(skill, config, **env_options)
    try:
        ppo = PPO(task, config.ppo, out=out, score=STABILISER_SCORE, progress=progress)
        network = ppo.train(max_minutes)
    finally:
        task.close()
    masks = [FingerMask.parse(text) for text in config.masks]
    path = out / "stabiliser.safetensors"
    facts = _facts(config, ppo, build_scene(skill).model_hash)
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
    """Trains residual B of a pair on top of frozen pi_B and stabiliser A; resumes if `out` holds a checkpoint.

    Args:
        pair: Such as "GraspBall-PushButton".
        mask: Preserved fingers m*.
        base_policy: pi_B; best on `config.env_device`.
        stabiliser: pi_res_A on `config.env_device`, or None.
        config: Settings.
        out: Folder for `residual_b.safetensors`, checkpoint and logs.
        progress: Called after each iteration with its metrics.
        max_minutes: Wall time of this call, see `PPO.train`; None for no limit.
        **env_options: Options of the environment, such as `held_states`.

    Returns:
        The best policy of all evaluations, as written to the file, on the CPU.

    Raises:
        TrainingPaused: After `max_minutes`; the same call goes on from there.
    """
    out = Path(out)
    task = ResidualBTask(pair, mask, base_policy, stabiliser, config, **env_options)
    try:
        ppo = PPO(task, config.ppo, out=out, score=RESIDUAL_B_SCORE, progress=progress)
        network = ppo.train(max_minutes)
    finally:
        task.close()
    path = out / "residual_b.safetensors"
    policy = ResidualBPolicy(network, bound=task.bound, mask=mask, pair=pair)
    policy.save(path, network, **_facts(config, ppo, build_scene(*parse_pair(pair)).model_hash))
    return ResidualBPolicy.load(path)


def _facts(config: StabiliserConfig | ResidualBConfig, ppo: PPO, model_hash: str) -> dict[str, Any]:
    """What made a policy and how it compared with no residual at all."""
    best = max(ppo.evaluations, key=lambda row: tuple(row[f"composed_{name}"] for name in ppo.score))
    return {
        "config": asdict(config),
        "backend": config.backend,
        "device": torch.cuda.get_device_name(ppo.device) if ppo.device.type == "cuda" else ppo.device.type,
        "env_version": __version__,
        "model_hash": model_hash,
        "iterations": ppo.iteration,
        "steps": ppo.iteration * config.ppo.horizon * config.ppo.num_envs,
        "seconds": round(ppo.seconds, 1),
        "evaluation": {name: round(value, 5) for name, value in best.items()},
    }
