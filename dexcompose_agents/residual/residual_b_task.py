"""The task on which residual B is trained: the whole composite, learned from in the interaction phase (Eq. 14)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from dexcompose_agents.residual.config import ResidualBConfig
from dexcompose_agents.residual.grip import PeakForce
from dexcompose_agents.residual.residual_b import (
    bound_of,
    dimensions_named,
    residual_b_features,
    residual_b_size,
    residual_dimensions,
    wrist_error_columns,
)
from dexcompose_agents.residual.stabiliser import StabiliserPolicy
from dexcompose_agents.residual.worlds import Moved, TensorWorlds, Worlds
from dexcompose_agents.rl.rollout import Step
from dexcompose_agents.runtime.devices import Observation
from dexcompose_envs import hand, parse_pair
from dexcompose_envs.composition.bounds import bounded, normalised
from dexcompose_envs.composition.composer import Composer
from dexcompose_envs.composition.task import CompositionTask
from dexcompose_envs.errors import UsageError
from dexcompose_envs.ownership import FingerMask
from dexcompose_envs.registration import env_id

if TYPE_CHECKING:
    from dexcompose_agents.diffusion.policy import BasePolicy


def composite_reward(
    progress: Tensor, success: Tensor, approach: Tensor, astray: Tensor, distance: Tensor, residual: Tensor,
    config: ResidualBConfig,
) -> Tensor:  # fmt: skip
    """Eq. 14, `R_B = R_taskB - beta |p_obj - p_palm| - alpha |delta_B|^2`, (N,), with delta_B (N, 28), m and rad.

    `R_taskB` is the scaled `progress` of B in this step (at most 1 in an episode) plus a bonus for composite `success`
    (0 or 1), minus the scaled `approach` (m), how far the hand is from where B needs it, minus the scaled `astray`,
    see `wrist_astray`; `distance` (m) is that of the object from its hold target in the palm frame, (N,) all.
    """
    task = config.progress_scale * progress + config.success_bonus * success
    task = task - config.approach_scale * approach - config.tracking_scale * astray
    return task - config.beta * distance - config.alpha * residual.square().sum(dim=1)


def wrist_astray(residual: Tensor, shake: Tensor, bound: Tensor) -> Tensor:
    """How far the wrist is sent from where pi_B would have it: squared, in units of beta_B, summed over 6 dimensions.

    That is by the residual (N, 28) and by what the base adds unasked, `shake` (N, 6), m and rad; dimensions that the
    residual may not move (`bound` (28,) is 0) don't count.
    """
    wrist = slice(0, hand.NUM_WRIST)
    share = torch.where(bound[wrist] > 0, 1.0 / bound[wrist].clamp(min=1e-6), 0.0)
    return ((residual[:, wrist] + shake) * share).square().sum(dim=1)


class Scored(NamedTuple):
    """What a control step of N worlds is worth, before anything begins anew."""

    reward: Tensor
    valid: Tensor
    """Where pi_B acted, and there was something to learn (N,)."""
    metrics: dict[str, Tensor]


class ResidualBTask:
    """N composite rollouts in which the action u (N, k) corrects pi_B: `da_B = M_B beta_B tanh(u)`.

    The k dimensions are those that the settings or the skill let the residual move; da_B (N, 28) is zero elsewhere.
    Hold and transition run on the nominal plan; their steps are marked as not valid, so nothing is learned from them.
    With u = 0 this is the base arm: masks and stabiliser A with pi_B as it is.

    Args:
        pair: Such as "GraspBall-PushButton".
        mask: Preserved fingers m*.
        base_policy: pi_B, frozen; best on the environment's device.
        stabiliser: pi_res_A, frozen, on the environment's device, or None.
        config: Settings.
        worlds: What steps; None makes a vector environment of the pair.
        **env_options: Further options of the environment, such as `held_states`.

    Raises:
        UsageError: If the stabiliser is on another device than the environment.
    """

    def __init__(
        self,
        pair: str,
        mask: FingerMask,
        base_policy: BasePolicy,
        stabiliser: StabiliserPolicy | None,
        config: ResidualBConfig,
        worlds: Worlds | None = None,
        **env_options: Any,
    ) -> None:
        self.config, self.mask, self.num_envs = config, mask, config.learning.num_envs
        if config.episode_steps is not None:
            env_options.setdefault("max_episode_steps", config.episode_steps)
        self.worlds = worlds or TensorWorlds(env_id(pair), self.num_envs, config, **env_options)
        self.device = device = self.worlds.device
        if stabiliser is not None and stabiliser.device != device:
            raise UsageError(f"the stabiliser is on {stabiliser.device}; expected {device}, where the environment is")
        layout = self.worlds.layout
        sizes = {key: max(columns.stop for columns in terms.values()) for key, terms in layout.items()}
        self.observation_size = residual_b_size(sizes["task_b"], sizes["context"])
        interaction, writes = parse_pair(pair)[1], config.residual_writes
        self.dimensions = residual_dimensions(config.moves(interaction), mask, writes)
        self._owned, self.action_size = dimensions_named(self.dimensions), len(self.dimensions)
        self.bound = bound_of(config, interaction).to(device)
        self._moved_bound = self.bound * self._owned.spread(self.bound.new_ones(1, self.action_size))[0]
        if config.wrist_error and config.shortcut:
            self.shortcut = wrist_error_columns(self.observation_size)
        self.composer = Composer(
            CompositionTask.of_name(pair), mask, [base_policy], stabiliser,
            residual_writes_all=writes == "all",
        )  # fmt: skip
        self._peak_force = PeakForce(layout, self.num_envs, device)
        self._every_world = torch.ones(self.num_envs, dtype=torch.bool, device=device)
        self._previous = self.bound.new_zeros(self.num_envs, hand.NUM_ACTIONS)
        self._residual, self._astray = self._previous, self._previous[:, 0]
        self._noise_seeds = torch.zeros(self.num_envs, dtype=torch.long, device=device)

    @torch.no_grad()
    def reset(self, seed: int) -> Tensor:
        """New episodes in all worlds; features (N, d)."""
        return self.start(self.worlds.reset(seed), seed)

    @torch.no_grad()
    def step(self, action: Tensor) -> Step:
        """Executes residuals u (N, k)."""
        moved = self.worlds.step(self.act(action))
        scored, final = self.score(moved), None
        ended = moved.terminated | moved.truncated
        if moved.final_obs is not moved.obs:
            # The base policy must not move on for a look at a final observation: a_B stays what it was.
            final = self._features(moved.final_obs)
            features = self.go_on(moved.obs, ended)
        else:
            features = self._look(moved.obs)
        last = features if final is None else torch.where(ended[:, None], final, features)
        return Step(features, scored.reward, moved.terminated, moved.truncated, last, scored.valid, scored.metrics)

    @torch.no_grad()
    def act(self, action: Tensor) -> Tensor:
        """Normalised position targets (N, 28) of residuals u (N, k); whoever steps the worlds calls `score` then."""
        nominal = self._nominal
        self._residual = bounded(self._owned.spread(action), self.bound, self.composer.writable(nominal))
        astray = wrist_astray(self._residual, self.worlds.wrist_shake(), self._moved_bound)
        self._astray = torch.where(nominal.interacting, astray, 0.0)
        return self.composer.compose(self._obs, nominal, normalised(self._residual))

    @torch.no_grad()
    def score(self, moved: Moved) -> Scored:
        """What the control step just made is worth."""
        nominal, config = self._nominal, self.config
        unstable, held = moved.flag("unstable"), moved.flag("task_a_held")
        success, distance = moved.number("success"), -moved.number("reward_terms/retention")
        lost = moved.terminated & ~held & ~unstable
        progress, approach = moved.number("reward_terms/progress"), moved.number("approach")
        approach = torch.where(nominal.interacting, approach, 0.0)
        reward = composite_reward(progress, success, approach, self._astray, distance, self._residual, config)
        reward = reward - config.drop_penalty * lost.float()
        self._previous = self._residual
        peak = self._peak_force.seen(moved.final_obs)
        done, steps = moved.flag("task_b_done"), moved.number("elapsed_steps")
        metrics = {"success": success, "held": held, "done": done, "steps": steps, "peak_force": peak}
        return Scored(reward, nominal.interacting & ~unstable, metrics)

    @torch.no_grad()
    def go_on(self, obs: Observation, ended: Tensor) -> Tensor:
        """Features (N, d) of the present observations, where the worlds of a mask (N,) have begun new episodes."""
        self._noise_seeds = torch.where(ended, self._noise_seeds + self.num_envs, self._noise_seeds)
        self._begin(obs, ended)
        return self._look(obs)

    @torch.no_grad()
    def start(self, obs: Observation, seed: int) -> Tensor:
        """Features (N, d) of the first observations of new episodes in all worlds."""
        self._noise_seeds = seed + torch.arange(self.num_envs, device=self.device)
        self._begin(obs, self._every_world)
        return self._look(obs)

    def close(self) -> None:
        """Closes the environment."""
        self.worlds.env.close()

    def _begin(self, obs: Observation, started: Tensor) -> None:
        self._previous = torch.where(started[:, None], 0.0, self._previous)
        self._peak_force.begin(started)
        self.composer.reset(obs, started, self._noise_seeds)

    def _look(self, obs: Observation) -> Tensor:
        """Asks pi_B what it would do next and forms the features."""
        self._obs, self._nominal = obs, self.composer.nominal(obs)
        return self._features(obs)

    def _features(self, obs: Observation) -> Tensor:
        return residual_b_features(obs, self._nominal, self.mask, self._previous, self.config.wrist_error)
