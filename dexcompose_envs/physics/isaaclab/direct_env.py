"""Skills and pairs as Isaac Lab's `DirectRLEnv`: its loop steps the physics, our core says what is seen and counts."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
import torch
from isaaclab.envs import DirectRLEnv, DirectRLEnvCfg
from isaaclab.utils import configclass
from isaaclab_newton.cloner import newton_builder_world_hook
from torch import Tensor

from dexcompose_envs import OUTCOMES, hand, parse_chain
from dexcompose_envs.arrays import to_numpy
from dexcompose_envs.checks import seed_or_none
from dexcompose_envs.core import BatchedCore
from dexcompose_envs.episodes.judge import Step, longest_episode
from dexcompose_envs.errors import UsageError
from dexcompose_envs.options import CoreConfig
from dexcompose_envs.physics.isaaclab.assets import scene_cfg, simulation_cfg
from dexcompose_envs.physics.isaaclab.collisions import world_hook
from dexcompose_envs.physics.isaaclab.engine import IsaacLab
from dexcompose_envs.physics.isaaclab.lab import Lab
from dexcompose_envs.physics.isaaclab.usd import usd_parts
from dexcompose_envs.physics.warp_device import check_device
from dexcompose_envs.scene import Scene, build_scene
from dexcompose_envs.skills.chain import Chain
from dexcompose_envs.timing import CONTROL_STEP, PHYSICS_STEPS_PER_CONTROL_STEP

OWN_OPTIONS = ("retention", "interactions", "backend", "device", "num_threads", "max_episode_steps")
"""Options of an environment that an Isaac Lab configuration says in its own fields."""


@configclass
class DexComposeEnvCfg(DirectRLEnvCfg):
    """One skill, pair or chain; simulation, scene, spaces and episode length follow from its name.

    Attributes:
        name: Such as "OpenDoor" or "PourMug-OpenMicrowave".
        options: Further options of the environment, fields of `CoreConfig`, such as {"physics": "nominal"}.
    """

    name: str = ""
    options: dict = {}  # noqa: RUF012 (configclass makes a factory of it)
    decimation: int = PHYSICS_STEPS_PER_CONTROL_STEP
    action_space: int = hand.NUM_ACTIONS
    observation_space: int = 0
    state_space: int = 0
    is_finite_horizon: bool = False

    def __post_init__(self) -> None:
        """Fills in what follows from the name."""
        scene = scene_of(self.name)
        self.sim = simulation_cfg(scene, "cpu" if not torch.cuda.is_available() else "cuda:0")
        self.scene = scene_cfg(scene, usd_parts(scene), num_envs=64)
        self.episode_length_s = CONTROL_STEP * longest_episode(scene.chain)
        layout = scene.chain.layout.values()
        self.observation_space = sum(max(columns.stop for columns in terms.values()) for terms in layout)


@cache
def env_cfg_class(name: str, base: type[DexComposeEnvCfg] = DexComposeEnvCfg) -> type[Any]:
    """The configuration class of a skill, pair or chain: what `env_cfg_entry_point` names.

    Args:
        name: The skill, pair or chain.
        base: The class whose `name` it fills in.

    Raises:
        UsageError: If a part of the name is no skill.
    """
    scene_of(name)
    facts = {
        "__annotations__": {"name": str},
        "__module__": __name__,
        "__doc__": f"Configuration of {name}.",
        "name": name,
    }
    return configclass(type(f"{name.replace('-', '')}{base.__name__.removeprefix('DexCompose')}", (base,), facts))


def scene_of(name: str) -> Scene:
    """The scene of a skill, pair or chain by its name."""
    retention, interactions = parse_chain(name)
    Chain.of(retention, interactions)
    return build_scene(retention, *interactions)


class DexComposeDirectEnv(DirectRLEnv):
    """N worlds as an Isaac Lab environment.

    Actions, rewards and ends are those of `DexComposeVectorEnv`. The observation {"policy": (N, D)} is its observation
    flattened as `gymnasium.wrappers.FlattenObservation` does: `context`, `task_a`, `task_b`. `extras` has the info of
    the step, under its own names, and in "log" the mean of what ended in it: `success` and the shares of the outcomes.

    Args:
        cfg: The configuration.
        render_mode: As Isaac Lab has it.

    Attributes:
        core: The batched environment, whose physics this one steps.

    Raises:
        UsageError: On an unknown option, or one that the configuration says in a field of its own.
        BackendError: If the device doesn't exist.
    """

    cfg: DexComposeEnvCfg

    def __init__(self, cfg: DexComposeEnvCfg, render_mode: str | None = None, **kwargs: Any) -> None:
        for name in OWN_OPTIONS:
            if name in cfg.options:
                raise UsageError(f"options have {name!r}, which an Isaac Lab configuration says in its own fields")
        check_device(str(cfg.sim.device))
        scene = scene_of(cfg.name)
        retention, interactions = parse_chain(cfg.name)
        steps = round(cfg.episode_length_s / CONTROL_STEP)
        config = CoreConfig.of(
            {
                **cfg.options, "retention": retention, "interactions": interactions, "backend": "isaaclab",
                "device": cfg.sim.device, "max_episode_steps": steps,
            }
        )  # fmt: skip
        with newton_builder_world_hook(world_hook(scene.model)):
            super().__init__(cfg, render_mode, **kwargs)
        self._engine = IsaacLab(scene, Lab(self.sim, self.scene, owned=False))
        self.core = BatchedCore(config, self.num_envs, self._engine)
        self._keys = sorted(self.core.layout)
        self._left = 0
        self._result: Step | None = None
        self._seed_worlds(cfg.seed)

    def reset(
        self, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Starts episodes in all worlds; world i is seeded `seed + i`."""
        self._seed_worlds(seed)
        observation, _ = super().reset(seed, options)
        self.extras = dict(self.core.initial_info())
        return observation, self.extras

    def _seed_worlds(self, seed: int | None) -> None:
        seed = seed_or_none(seed)
        if seed is not None:
            self.core.seed(np.arange(self.num_envs), [seed + world for world in range(self.num_envs)])

    def _pre_physics_step(self, actions: Tensor) -> None:
        """Begins a control step."""
        self.core.prepare_restarts()
        self._left = self.cfg.decimation
        self._engine.aim(self.core.begin(self._targets(actions)))

    def _targets(self, actions: Tensor) -> Tensor:
        """Normalised position targets (N, 28) of the environment's actions: the same."""
        return actions

    def _apply_action(self) -> None:
        """Before each physics step."""
        self._left -= 1
        self._engine.push()
        if self._left == 0:
            self._engine.look()

    def _get_dones(self) -> tuple[Tensor, Tensor]:
        """Ends the control step: which worlds have ended, and which were cut short (N,) each."""
        self._result = result = self.core.finish(self._engine.settle())
        self.extras = dict(result.info)
        ended = result.terminated | result.truncated
        self.extras["log"] = _log(result.info, ended) if bool(ended.any()) else {}
        return result.terminated, result.truncated

    def _get_rewards(self) -> Tensor:
        """Rewards (N,) of the control step."""
        assert self._result is not None
        return self._result.reward

    def _get_observations(self) -> dict[str, Tensor]:
        """All observations side by side."""
        observation = self.core.observe()
        return {"policy": torch.cat([observation[key] for key in self._keys], dim=1)}

    def _reset_idx(self, env_ids: Sequence[int]) -> None:
        """Starts new episodes in some worlds."""
        super()._reset_idx(env_ids)
        self.core.reset(to_numpy(torch.as_tensor(env_ids)).astype(np.int64))

    def close(self) -> None:
        """Ends the simulation, so that the process can have another."""
        if not self._is_closed:
            if hasattr(self, "core"):
                self.core.close()
            super().close()


def _log(info: dict[str, Tensor], ended: Tensor) -> dict[str, float]:
    """Means over the episodes that ended."""
    outcome = info["outcome"][ended]
    shares = {f"outcome/{name}": float((outcome == i).float().mean()) for i, name in enumerate(OUTCOMES) if i}
    return {"success": float(info["success"][ended].float().mean()), **shares}
