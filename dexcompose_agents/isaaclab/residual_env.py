"""Residual B in Isaac Lab: the composite as an environment whose actions correct pi_B, for its wrappers' learners."""

from __future__ import annotations

from typing import Any

import torch
from isaaclab.utils import configclass
from torch import Tensor

from dexcompose_agents.artefacts.shipped import choose_mask
from dexcompose_agents.diffusion.policy import load_policy
from dexcompose_agents.methods.parts import load_stabiliser
from dexcompose_agents.residual.config import ResidualBConfig, residual_b_preset
from dexcompose_agents.residual.residual_b import residual_b_size, residual_dimensions
from dexcompose_agents.residual.residual_b_task import ResidualBTask
from dexcompose_agents.residual.worlds import Moved
from dexcompose_agents.runtime.devices import Observation
from dexcompose_envs import parse_pair
from dexcompose_envs.composition.task import Layout
from dexcompose_envs.core import BatchedCore
from dexcompose_envs.errors import UsageError
from dexcompose_envs.physics.isaaclab.direct_env import DexComposeDirectEnv, DexComposeEnvCfg, scene_of


@configclass
class ResidualBEnvCfg(DexComposeEnvCfg):
    """Training of a pair's residual B on the shipped base policy and stabiliser.

    Attributes:
        mask: Preserved fingers such as "TH+MF+RF"; "": the shipped mask.
        settings: Fields of `ResidualBConfig` that differ from preset "cpu", such as {"dimensions": ("wrist",)}.
    """

    mask: str = ""
    settings: dict = {}  # noqa: RUF012 (configclass makes a factory of it)

    def __post_init__(self) -> None:
        """Fills in what follows from the pair."""
        super().__post_init__()
        self.fit()

    def fit(self) -> None:
        """Sizes that follow from mask and settings: actions are the dimensions that the residual may move."""
        mask, config = choose_mask(self.name, self.mask or None)[0], self.config(1)
        moves = config.moves(parse_pair(self.name)[1])
        self.action_space = len(residual_dimensions(moves, mask, config.residual_writes))
        layout = scene_of(self.name).chain.layout
        sizes = {key: max(columns.stop for columns in terms.values()) for key, terms in layout.items()}
        self.observation_space = residual_b_size(sizes["task_b"], sizes["context"])

    def config(self, num_envs: int) -> ResidualBConfig:
        """Settings of reward, bounds and dimensions; what learns is said elsewhere."""
        ppo = residual_b_preset("cpu").ppo
        learning = type(ppo)(num_envs=num_envs, evaluation_rounds=max(1, -(-128 // num_envs)))
        return residual_b_preset("cpu", ppo=learning, **self.settings)


class ResidualBDirectEnv(DexComposeDirectEnv):
    """N composites in which the action u (N, k) corrects pi_B: `da_B = M_B beta_B tanh(u)` (Eqs. 10 to 12).

    The observation {"policy": (N, d)} is that of `residual_b_features`, the reward Eq. 14 with the terms of
    `ResidualBConfig`. In hold and transition, where pi_B does not act, u is without effect.

    Args:
        cfg: The configuration.
        render_mode: As Isaac Lab has it.

    Raises:
        UsageError: If terminal observations are asked for, which would have pi_B move on twice.
    """

    cfg: ResidualBEnvCfg

    def __init__(self, cfg: ResidualBEnvCfg, render_mode: str | None = None, **kwargs: Any) -> None:
        if cfg.compute_final_obs:
            raise UsageError("compute_final_obs is True; expected False: pi_B plans once per control step")
        cfg.fit()  # mask or settings may have been changed since
        self._seed: int | None = None
        super().__init__(cfg, render_mode, **kwargs)
        mask = choose_mask(cfg.name, cfg.mask or None)[0]
        device = str(self.device)
        policy = load_policy(parse_pair(cfg.name)[1], device=device)
        stabiliser = load_stabiliser(cfg.name, mask, device=device)
        worlds = CoreWorlds(self.core)
        self.task = ResidualBTask(cfg.name, mask, policy, stabiliser, cfg.config(self.num_envs), worlds)
        self._seed = cfg.seed or 0

    def reset(
        self, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Starts episodes in all worlds; world i, and pi_B's noise in it, is seeded `seed + i`."""
        self._seed = 0 if seed is None else seed
        return super().reset(seed, options)

    def _targets(self, actions: Tensor) -> Tensor:
        return self.task.act(actions)

    def _get_rewards(self) -> Tensor:
        """Eq. 14 (N,)."""
        assert self._result is not None
        result, final = self._result, self.core.observe()
        moved = Moved(final, final, result.terminated, result.truncated, result.info)
        scored = self.task.score(moved)
        return torch.where(scored.valid, scored.reward, 0.0)

    def _get_observations(self) -> dict[str, Tensor]:
        """What residual B sees (N, d)."""
        observation = self.core.observe()
        if self._seed is not None:
            features, self._seed = self.task.start(observation, self._seed), None
        else:
            features = self.task.go_on(observation, self.reset_buf)
        return {"policy": features}


class CoreWorlds:
    """Worlds that somebody else steps, as `ResidualBTask` asks about them."""

    def __init__(self, core: BatchedCore) -> None:
        self._core = core
        self.env: Any = None
        self.device = torch.device(core.arrays.device or "cpu")
        self.layout: Layout = core.layout

    def wrist_shake(self) -> Tensor:
        """See `Worlds`."""
        shake: Tensor = self._core.wrist_shake()
        return shake

    def reset(self, seed: int) -> Observation:
        """Isaac Lab's loop does it."""
        raise NotImplementedError("Isaac Lab's environment resets these worlds")

    def step(self, action: Tensor) -> Moved:
        """Isaac Lab's loop does it."""
        raise NotImplementedError("Isaac Lab's environment steps these worlds")
