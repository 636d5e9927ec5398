"""The task on which residual B is trained: the whole composite, learned from in the interaction phase (Eq. 14)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import gymnasium as gym
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dexcompose_agents.composition import Composer
from dexcompose_agents.residual.bounds import Float32, bounded
from dexcompose_agents.residual.config import ResidualBConfig
from dexcompose_agents.residual.residual_b import (
    bound_of,
    normalised,
    residual_b_features,
    residual_b_size,
    residual_mask,
)
from dexcompose_agents.residual.rollout import Step
from dexcompose_agents.residual.stabiliser import StabiliserPolicy
from dexcompose_envs import hand
from dexcompose_envs.ownership import FingerMask
from dexcompose_envs.registration import env_id

if TYPE_CHECKING:
    from dexcompose_agents.diffusion.policy import BasePolicy


def composite_reward(
    progress: Float32, success: Float32, distance: Float32, residual: Float32, config: ResidualBConfig
) -> Float32:
    """Eq. 14, `R_B = R_taskB - beta |p_obj - p_palm| - alpha |delta_B|^2`, (N,).

    `R_taskB` is the scaled progress of the interaction in this step plus a bonus when the composite succeeds.

    Args:
        progress: New progress of B in this step (N,); sums to at most 1 over an episode.
        success: 1 where the composite succeeded in this step, else 0, (N,).
        distance: Distance of the held object from its hold target in the palm frame (N,), m.
        residual: delta_B (N, 28), m and rad.
        config: Weights.
    """
    task = config.progress_scale * progress + config.success_bonus * success
    return task - config.beta * distance - config.alpha * np.square(residual).sum(axis=1)


class ResidualBTask:
    """N composite rollouts in which the action u (N, 28) corrects pi_B: `da_B = M_B beta_B tanh(u)`.

    Hold and transition run on the nominal plan; their steps are marked as not valid, so nothing is learned from them.
    With u = 0 this is the base arm: masks and stabiliser A with pi_B as it is.

    Args:
        pair: Such as "GraspBall-PushButton".
        mask: Preserved fingers m*.
        base_policy: pi_B, frozen.
        stabiliser: pi_res_A, frozen, or None.
        config: Settings.
        held_split: Part of the held-state library that episodes start from.
        **env_options: Further options of the environment, such as `held_states`.
    """

    def __init__(
        self,
        pair: str,
        mask: FingerMask,
        base_policy: BasePolicy,
        stabiliser: StabiliserPolicy | None,
        config: ResidualBConfig,
        *,
        held_split: str = "train",
        **env_options: Any,
    ) -> None:
        self.config, self.mask, self.num_envs = config, mask, config.ppo.num_envs
        self.env = gym.make_vec(
            env_id(pair), num_envs=self.num_envs, held_split=held_split, num_threads=config.num_threads, **env_options
        )
        core: Any = self.env.unwrapped
        layout = core.layout
        sizes = {key: max(columns.stop for columns in terms.values()) for key, terms in layout.items()}
        self.observation_size = residual_b_size(sizes["task_b"], sizes["context"])
        self.action_size = hand.NUM_ACTIONS
        self.bound = bound_of(config)
        self.composer = Composer(mask, base_policy, stabiliser, core.interaction_start, layout)
        self._previous = np.zeros((self.num_envs, hand.NUM_ACTIONS), np.float32)
        self._noise_seeds = np.zeros(self.num_envs, np.int64)

    def reset(self, seed: int) -> Tensor:
        """New episodes in all worlds; features (N, d)."""
        obs, _ = self.env.reset(seed=seed)
        self._noise_seeds = seed + np.arange(self.num_envs)
        self._begin(obs, np.arange(self.num_envs))
        return self._look(obs)

    def step(self, action: Tensor) -> Step:
        """Executes residuals u (N, 28)."""
        nominal, config = self._nominal, self.config
        residual = bounded(action.numpy(), self.bound, residual_mask(self.mask, nominal))
        command = self.composer.compose(self._obs, nominal, normalised(residual))
        obs, _, terminated, truncated, info = self.env.step(command)

        ended = terminated | truncated
        facts = info.get("final_info", info)
        unstable = facts["unstable"].astype(bool)
        success = facts["success"].astype(np.float32)
        lost = terminated & ~facts["task_a_held"].astype(bool) & ~unstable
        distance = -facts["reward_terms/retention"].astype(np.float32)
        progress = facts["reward_terms/progress"].astype(np.float32)
        reward = composite_reward(progress, success, distance, residual, config) - config.drop_penalty * lost

        self._previous = residual
        final = None
        if ended.any():
            # The base policy must not move on for a look at a final observation: a_B stays what it was.
            final = torch.from_numpy(residual_b_features(info["final_obs"], nominal, self.mask, self._previous))
            worlds = np.flatnonzero(ended)
            self._noise_seeds[worlds] += self.num_envs
            self._begin(obs, worlds)
        features = self._look(obs)
        if final is not None:
            final = torch.where(torch.from_numpy(ended)[:, None], final, features)
        return Step(
            observation=features,
            reward=torch.from_numpy(reward.astype(np.float32)),
            terminated=torch.from_numpy(terminated.copy()),
            truncated=torch.from_numpy(truncated.copy()),
            final_observation=features if final is None else final,
            valid=torch.from_numpy(nominal.interacting & ~unstable),
            metrics={
                "success": torch.from_numpy(success),
                "held": torch.from_numpy(facts["task_a_held"].astype(np.float32)),
                "done": torch.from_numpy(facts["task_b_done"].astype(np.float32)),
                "steps": torch.from_numpy(facts["elapsed_steps"].astype(np.float32)),
            },
        )

    def close(self) -> None:
        """Closes the environment."""
        self.env.close()

    def _begin(self, obs: dict[str, NDArray[np.float32]], worlds: NDArray[np.int64]) -> None:
        self._previous[worlds] = 0.0
        self.composer.reset(obs, worlds, self._noise_seeds[worlds])

    def _look(self, obs: dict[str, NDArray[np.float32]]) -> Tensor:
        """Asks pi_B what it would do next and forms the features."""
        self._obs, self._nominal = obs, self.composer.nominal(obs)
        return torch.from_numpy(residual_b_features(obs, self._nominal, self.mask, self._previous))
