"""The task on which stabiliser A is trained: keep the object while the wrist moves and fingers let go (Eq. 13)."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dexcompose_agents.residual.bounds import Float32, bounded, preservation_command
from dexcompose_agents.residual.config import StabiliserConfig
from dexcompose_agents.residual.disturbances import draw_disturbance
from dexcompose_agents.residual.rollout import Step
from dexcompose_agents.residual.stabiliser import FEATURE_SIZE, StabiliserObserver
from dexcompose_agents.residual.transition import INTERACT
from dexcompose_envs import hand
from dexcompose_envs.ownership import FingerMask
from dexcompose_envs.registration import env_id


def retention_reward(distance: Float32, residual: Float32, alpha: float) -> Float32:
    """Eq. 13, `R_A = -|p_obj - p_palm| - alpha |Delta_A|^2`, (N,).

    Args:
        distance: Distance of the object from its hold target in the palm frame (N,), m.
        residual: dq_A (N, 22), rad.
        alpha: Weight of the squared residual.
    """
    return -distance - np.float32(alpha) * np.square(residual).sum(axis=1)


class StabiliserTask:
    """N hands that hold an object from the library while a random disturbance acts on wrist and released fingers.

    The action u (N, 22) moves the targets of the preserved fingers: `q_A = q_ref + mbar * beta_A * tanh(u)`. An
    episode ends when the object is lost, or is cut off after `episode_steps`. With u = 0 this is the base arm: the
    reference hold under the same disturbance.

    Args:
        skill: Retention skill, such as "GraspBall".
        config: Settings.
        num_envs: Number of worlds; None for that of the settings.
        held_split: Part of the held-state library that episodes start from.
        **env_options: Further options of the environment, such as `held_states`.
    """

    def __init__(
        self,
        skill: str,
        config: StabiliserConfig,
        *,
        num_envs: int | None = None,
        held_split: str = "train",
        **env_options: Any,
    ) -> None:
        self.num_envs = num_envs or config.ppo.num_envs
        self.observation_size, self.action_size = FEATURE_SIZE, hand.NUM_FINGER_JOINTS
        self.config = config
        self.masks = [FingerMask.parse(text) for text in config.masks]
        self.env = gym.make_vec(
            env_id(skill),
            num_envs=self.num_envs,
            start="held",
            held_split=held_split,
            terminate_on_success=False,
            max_episode_steps=config.episode_steps,
            base_shake=config.base_shake,
            num_threads=config.num_threads,
            **env_options,
        )
        layout = self.env.unwrapped.layout  # type: ignore[attr-defined]
        self._observer = StabiliserObserver(layout, self.num_envs)
        self._columns = layout["context"]
        worlds, steps = self.num_envs, config.episode_steps + 1
        self._wrist = np.zeros((worlds, steps, hand.NUM_WRIST), np.float32)
        self._fingers = np.zeros((worlds, steps, hand.NUM_FINGER_JOINTS), np.float32)
        self._phase = np.zeros((worlds, steps), np.int64)
        self._time = np.zeros(worlds, np.int64)
        self._distance_sum = np.zeros(worlds, np.float32)
        self._rngs: list[np.random.Generator] = []
        self._base = np.zeros((worlds, hand.NUM_ACTIONS), np.float32)
        self._reference = np.zeros((worlds, hand.NUM_FINGER_JOINTS), np.float32)

    def reset(self, seed: int) -> Tensor:
        """New episodes in all worlds; features (N, d)."""
        self._rngs = [np.random.default_rng([seed + world, 1]) for world in range(self.num_envs)]
        obs, _ = self.env.reset(seed=seed)
        self._begin(obs, np.arange(self.num_envs))
        return self._features(obs)

    def step(self, action: Tensor) -> Step:
        """Executes residuals u (N, 22)."""
        observer, config = self._observer, self.config
        residual = bounded(action.numpy(), config.bound, observer.joint_mask)
        command = self._base.copy()
        kept = preservation_command(self._reference, residual, observer.joint_mask)
        fingers = command[:, hand.NUM_WRIST :]
        command[:, hand.NUM_WRIST :] = np.where(observer.joint_mask > 0, kept, fingers)
        obs, _, terminated, truncated, info = self.env.step(np.clip(command, -1.0, 1.0))

        ended = terminated | truncated
        facts = info.get("final_info", info)
        unstable = facts["unstable"].astype(bool)
        distance = -facts["reward_terms/retention"].astype(np.float32)
        lost = terminated & ~unstable
        self._time += 1
        self._distance_sum += distance
        metrics = {
            "held": torch.from_numpy(~lost & ~unstable),
            "distance": torch.from_numpy(self._distance_sum / self._time),
            "steps": torch.from_numpy(self._time.copy()),
        }
        reward = config.reward_scale * retention_reward(distance, residual, config.alpha) - config.drop_penalty * lost

        observer.previous_residual[:] = residual
        self._base = self._base_action()
        final = self._features(info["final_obs"]) if ended.any() else None
        if final is not None:
            self._begin(obs, np.flatnonzero(ended))
        features = self._features(obs)
        return Step(
            observation=features,
            reward=torch.from_numpy(reward.astype(np.float32)),
            terminated=torch.from_numpy(terminated.copy()),
            truncated=torch.from_numpy(truncated.copy()),
            final_observation=features if final is None else final,
            valid=torch.from_numpy(~unstable),
            metrics=metrics,
        )

    def close(self) -> None:
        """Closes the environment."""
        self.env.close()

    def _begin(self, obs: dict[str, NDArray[np.float32]], worlds: NDArray[np.int64]) -> None:
        """Draws mask and disturbance of new episodes."""
        masks = []
        hold = obs["context"][:, self._columns["previous_action"]].copy()
        reference = obs["context"][:, self._columns["reference"]].copy()
        hold[:, hand.NUM_WRIST :] = reference
        hold_targets = hand.denormalize(hold)
        for world in worlds:
            rng = self._rngs[world]
            masks.append(self.masks[int(rng.integers(len(self.masks)))])
            drawn = draw_disturbance(
                rng, hold_targets[world, hand.NUM_WRIST :], self._wrist.shape[1], self.config.disturbance
            )
            targets = np.concatenate([hold_targets[world, : hand.NUM_WRIST] + drawn.wrist, drawn.fingers], axis=1)
            normalised = np.clip(hand.normalize(targets), -1.0, 1.0)
            self._wrist[world] = normalised[:, : hand.NUM_WRIST]
            self._fingers[world] = normalised[:, hand.NUM_WRIST :]
            self._phase[world] = drawn.phase
        self._time[worlds] = 0
        self._distance_sum[worlds] = 0.0
        self._reference[worlds] = reference[worlds]
        self._observer.begin(obs, worlds, masks)
        self._base = self._base_action()

    def _base_action(self) -> Float32:
        """The disturbance's targets for the next control step, (N, 28)."""
        worlds = np.arange(self.num_envs)
        return np.concatenate([self._wrist[worlds, self._time], self._fingers[worlds, self._time]], axis=1)

    def _features(self, obs: dict[str, NDArray[np.float32]]) -> Tensor:
        phase = np.eye(INTERACT + 1, dtype=np.float32)[self._phase[np.arange(self.num_envs), self._time]]
        return torch.from_numpy(self._observer.features(obs, self._base, phase))
