"""The task on which stabiliser A is trained: keep the object while the wrist moves and fingers let go (Eq. 13)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from dexcompose_agents.residual.config import StabiliserConfig
from dexcompose_agents.residual.disturbance_bank import DisturbanceBank, episode_hash
from dexcompose_agents.residual.grip import PeakForce
from dexcompose_agents.residual.stabiliser import FEATURE_SIZE, StabiliserObserver
from dexcompose_agents.residual.worlds import TensorWorlds
from dexcompose_agents.rl.rollout import Step
from dexcompose_agents.runtime.devices import Observation
from dexcompose_envs import hand
from dexcompose_envs.composition.bounds import bounded, preservation_command
from dexcompose_envs.composition.masks import mask_arrays
from dexcompose_envs.ownership import FingerMask
from dexcompose_envs.registration import env_id


def retention_reward(distance: Tensor, turn: Tensor, residual: Tensor, config: StabiliserConfig) -> Tensor:
    """Eq. 13 and a term for rotation, `R_A = -|p_obj - p_palm| - w angle - alpha |Delta_A|^2`, (N,).

    Of `distance` (N,), m; `turn` (N,), rad, the angle by which the object has turned in the palm frame since the start;
    and dq_A (N, 22), rad. The first two are the environment's facts, true whatever noise observations have.
    """
    return -distance - config.rotation_weight * turn - config.alpha * residual.square().sum(dim=1)


class StabiliserTask:
    """N hands that hold an object from the library while a random disturbance acts on wrist and released fingers.

    The action u (N, 22) moves the targets of the preserved fingers: `q_A = q_ref + mbar * beta_A * tanh(u)`. An
    episode ends when the object is lost, or is cut off after `episode_steps`. With u = 0 this is the base arm: the
    reference hold under the same disturbance. A world that diverges is left out of learning; it counts as not held.

    The e-th episode of world i after `reset(seed)` picks its disturbance and mask by a hash of (seed + i, e), so the
    host has nothing to draw while episodes run.

    Args:
        skill: Retention skill, such as "GraspBall".
        config: Settings.
        num_envs: Number of worlds; None for that of the settings.
        **env_options: Further options of the environment, such as `held_states`.
    """

    def __init__(
        self,
        skill: str,
        config: StabiliserConfig,
        *,
        num_envs: int | None = None,
        **env_options: Any,
    ) -> None:
        self.num_envs = n = num_envs or config.learning.num_envs
        self.observation_size, self.action_size = FEATURE_SIZE, hand.NUM_FINGER_JOINTS
        self.config = config
        env_options |= {"start": "held", "terminate_on_success": False}
        env_options |= {"max_episode_steps": config.episode_steps, "base_shake": config.base_shake}
        self.worlds = TensorWorlds(env_id(skill), n, config, **env_options)
        self.device = device = self.worlds.device
        self._context = self.worlds.layout["context"]
        self._observer = StabiliserObserver(self.worlds.layout, n, device)
        size = (config.disturbance_bank, config.episode_steps + 1)
        self._bank = DisturbanceBank(config.disturbance, *size, config.learning.seed, device)
        self._every_world = torch.ones(n, dtype=torch.bool, device=device)
        self._peak_force = PeakForce(self.worlds.layout, n, device)
        masks = [mask_arrays(FingerMask.parse(text), self._every_world) for text in config.masks]
        self._joint_masks = torch.stack([mask.joints for mask in masks])
        self._mask_bits = torch.stack([mask.bits for mask in masks])
        self._world_seed, self._episode, self._pick, self._time = torch.zeros(4, n, dtype=torch.long, device=device)
        self._distance_sum = torch.zeros(n, dtype=torch.float32, device=device)
        self._hold = torch.zeros(n, hand.NUM_ACTIONS, dtype=torch.float32, device=device)
        self._base, self._phase = self._bank.command(self._pick, self._time, self._hold)

    @torch.no_grad()
    def reset(self, seed: int) -> Tensor:
        """New episodes in all worlds; features (N, d)."""
        self._world_seed = seed + torch.arange(self.num_envs, device=self.device)
        self._episode = torch.full_like(self._world_seed, -1)
        obs = self.worlds.reset(seed)
        self._begin(obs, self._every_world)
        return self._features(obs)

    @torch.no_grad()
    def step(self, action: Tensor) -> Step:
        """Executes residuals u (N, 22)."""
        observer, config = self._observer, self.config
        residual = bounded(action, config.bound, observer.joint_mask)
        moved = self.worlds.step(self._command(residual))

        unstable = moved.flag("unstable")
        distance, turn = -moved.number("reward_terms/retention"), moved.number("object_turn")
        lost = moved.terminated
        self._time = self._time + 1
        self._distance_sum = self._distance_sum + distance
        metrics = {"held": ~lost & ~unstable, "distance": self._distance_sum / self._time, "turn": turn}
        metrics |= {"peak_force": self._peak_force.seen(moved.final_obs), "steps": self._time}
        reward = config.reward_scale * retention_reward(distance, turn, residual, config)
        reward = reward - config.drop_penalty * lost.float()

        observer.previous_residual = residual
        self._base, self._phase = self._bank.command(self._pick, self._time, self._hold)
        final = None if moved.final_obs is moved.obs else self._features(moved.final_obs)
        if final is not None:
            self._begin(moved.obs, moved.terminated | moved.truncated)
        features = self._features(moved.obs)
        last = features if final is None else final
        return Step(features, reward, lost, moved.truncated, last, valid=~unstable, metrics=metrics)

    def close(self) -> None:
        """Closes the environment."""
        self.worlds.env.close()

    def _command(self, residual: Tensor) -> Tensor:
        """Targets (N, 28): wrist and released fingers as the disturbance says, preserved fingers by Eq. 8."""
        preserved = self._observer.joint_mask
        wrist, released = self._base.split((hand.NUM_WRIST, hand.NUM_FINGER_JOINTS), dim=1)
        kept = preservation_command(self._hold[:, hand.NUM_WRIST :], residual, preserved)
        return torch.cat([wrist, torch.where(preserved > 0, kept, released)], dim=1).clamp(-1.0, 1.0)

    def _begin(self, obs: Observation, started: Tensor) -> None:
        """Picks disturbance and mask of new episodes in the worlds where `started` (N,) is true."""
        self._episode = self._episode + started
        drawn = episode_hash(self._world_seed, self._episode)
        self._pick = drawn % self._bank.count
        which = drawn // self._bank.count % len(self._joint_masks)
        context = obs["context"]
        wrist = context[:, self._context["previous_action"]][:, : hand.NUM_WRIST]
        hold = torch.cat([wrist, context[:, self._context["reference"]]], dim=1)
        self._hold = torch.where(started[:, None], hold, self._hold)
        self._time = torch.where(started, 0, self._time)
        self._distance_sum = torch.where(started, 0.0, self._distance_sum)
        self._peak_force.begin(started)
        self._observer.begin(obs, started, self._joint_masks[which], self._mask_bits[which])
        self._base, self._phase = self._bank.command(self._pick, self._time, self._hold)

    def _features(self, obs: Observation) -> Tensor:
        return self._observer.features(obs, self._base, self._phase)
