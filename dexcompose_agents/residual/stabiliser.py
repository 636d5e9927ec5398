"""Stabiliser A: what it observes, and the trained policy that keeps a held object in the hand (Eqs. 7 and 8)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dexcompose_agents.rl.actor_critic import DeterministicPolicy
from dexcompose_agents.rl.networks import load_network
from dexcompose_agents.rl.policy_evaluation import Policy
from dexcompose_agents.rl.residual_network import ResidualNetwork
from dexcompose_agents.runtime.devices import Observation, as_given, to_tensors
from dexcompose_envs import hand
from dexcompose_envs.artefacts import ArtefactError
from dexcompose_envs.composition.bounds import bounded
from dexcompose_envs.composition.masks import mask_arrays
from dexcompose_envs.composition.task import Layout
from dexcompose_envs.errors import UsageError
from dexcompose_envs.observations import FORCE_SCALE
from dexcompose_envs.ownership import FingerMask

FEATURES = {
    "joint_position": 22, "joint_velocity": 22, "torque": 22, "reference": 22, "previous_residual": 22,
    "object_position": 3, "object_rotation": 6, "object_linear_velocity": 3, "object_angular_velocity": 3,
    "palm_offset": 3, "fingertip_error": 5, "contact": 5, "wrist_lead": 6, "wrist_velocity": 6,
    "released_command": 22, "phase": 3, "mask": 5,
}  # fmt: skip
"""The features in order, with sizes. Joint features are zero on released fingers, `released_command` on preserved ones;
`fingertip_error` is the change of a fingertip's distance to the object since the start, `wrist_lead` the wrist's next
target minus its position (normalised)."""
FEATURE_SIZE = sum(FEATURES.values())
CONTACT_FORCE = 0.1
"""A finger is in contact from this force (N) on."""
_OBJECT_TERMS = (
    "object_position", "object_rotation", "object_linear_velocity", "object_angular_velocity", "palm_offset",
)  # fmt: skip


class StabiliserObserver:
    """Turns environment observations into the features of stabiliser A; used in training and in deployment alike.

    It remembers, per world, the mask, the fingertip distances at the episode's start and the previous residual.
    """

    def __init__(self, layout: Layout, num_envs: int, device: str | torch.device = "cpu") -> None:
        context = layout["context"]
        needed = {"reference", "torque", "joint_velocity", "finger_contact", "fingertip_distance", *_OBJECT_TERMS}
        missing = sorted(needed - set(context))
        if missing:
            raise UsageError(f"the task's context lacks {', '.join(missing)}; expected a task with a held object")
        self._context = context
        self.num_envs = num_envs
        joints, fingers = (num_envs, hand.NUM_FINGER_JOINTS), (num_envs, len(hand.FINGERS))
        # Never written to, so they may share their numbers.
        self.joint_mask = self.previous_residual = torch.zeros(joints, dtype=torch.float32, device=device)
        self.mask_bits = self._start_distance = torch.zeros(fingers, dtype=torch.float32, device=device)

    def begin(self, obs: Observation, started: Tensor, joint_mask: Tensor, mask_bits: Tensor) -> None:
        """Starts episodes where `started` (N,), with mbar (N, 22) or (22,) and m (N, 5) or (5,), float32."""
        rows = started[:, None]
        self.joint_mask = torch.where(rows, joint_mask, self.joint_mask)
        self.mask_bits = torch.where(rows, mask_bits, self.mask_bits)
        self.previous_residual = torch.where(rows, 0.0, self.previous_residual)
        self._start_distance = torch.where(rows, self._term(obs, "fingertip_distance"), self._start_distance)

    def features(self, obs: Observation, base_action: Tensor, phase: Tensor | None = None) -> Tensor:
        """Features (N, `FEATURE_SIZE`) in the order of `FEATURES`.

        Args:
            obs: Observations of all N worlds.
            base_action: What wrist and released fingers are about to do, (N, 28), normalised targets.
            phase: One-hot phase (N, 3); None reads it from the observation.
        """
        preserved = self.joint_mask
        wrist, fingers = slice(0, hand.NUM_WRIST), slice(hand.NUM_WRIST, hand.NUM_ACTIONS)
        position = obs["task_a"][:, : hand.NUM_ACTIONS]
        velocity, reference = self._term(obs, "joint_velocity"), self._term(obs, "reference")
        contact = (self._term(obs, "finger_contact") > FORCE_SCALE * CONTACT_FORCE).float()
        parts = [
            (position[:, fingers] - reference) * preserved,
            velocity[:, fingers] * preserved,
            self._term(obs, "torque") * preserved,
            reference * preserved,
            self.previous_residual * preserved,
            *(self._term(obs, name) for name in _OBJECT_TERMS),
            self._term(obs, "fingertip_distance") - self._start_distance,
            contact,
            base_action[:, wrist] - position[:, wrist],
            velocity[:, wrist],
            base_action[:, fingers] * (1.0 - preserved),
            self._term(obs, "phase") if phase is None else phase,
            self.mask_bits,
        ]
        return torch.cat(parts, dim=1)

    def _term(self, obs: Observation, name: str) -> Tensor:
        return obs["context"][:, self._context[name]]


class StabiliserPolicy:
    """The trained stabiliser of one retention skill, deterministic, recomputed at every control step.

    Args:
        network: Trained on the features of `StabiliserObserver`.
        bound: beta_A of Eq. 7, rad.
        masks: The masks it was trained with.
        skill: The retention skill it belongs to.
    """

    def __init__(self, network: ResidualNetwork, *, bound: float, masks: Sequence[FingerMask], skill: str) -> None:
        expected = (FEATURE_SIZE, hand.NUM_FINGER_JOINTS)
        if (network.observation_size, network.action_size) != expected:
            got = f"{network.observation_size} -> {network.action_size}"
            raise UsageError(f"the stabiliser's network maps {got} numbers; expected {expected[0]} -> {expected[1]}")
        self.bound, self.masks, self.skill = float(bound), tuple(masks), skill
        self.network, policy = network, DeterministicPolicy(network)
        self._policy: Policy = policy
        self.device, self.weights_hash = policy.device, policy.weights_hash
        self._observer: StabiliserObserver | None = None

    @classmethod
    def load(
        cls, path: str | Path, device: str | torch.device = "cpu", *, mask: FingerMask | None = None, **expected: Any
    ) -> StabiliserPolicy:
        """Reads a stabiliser to a device; it must be trained with `mask` and its manifest say what is `expected`.

        Raises:
            ArtefactError: If the file is missing, truncated, corrupt, or made for something else.
        """
        network, manifest = load_network(path, "stabiliser", **expected)
        masks = [FingerMask.parse(text) for text in manifest["masks"]]
        if mask is not None and mask not in masks:
            known = ", ".join(map(str, masks))
            raise ArtefactError(f"'{path}' was trained with {known}; expected a stabiliser of {mask}")
        return cls(network.to(device), bound=manifest["bound"], masks=masks, skill=manifest["skill"])

    def save(self, path: str | Path, network: ResidualNetwork, **facts: Any) -> None:
        """Writes network and manifest; `facts` say what made it."""
        masks = [str(mask) for mask in self.masks]
        network.save(path, {"kind": "stabiliser", "skill": self.skill, "masks": masks, "bound": self.bound, **facts})

    # What it remembers outlives the call: plain tensors, also for a caller in inference mode.
    @torch.inference_mode(False)
    @torch.no_grad()
    def reset(self, obs: Mapping[str, Any], layout: Layout, started: Any, mask: FingerMask) -> None:
        """Starts episodes in some worlds, of arrays or tensors; see `composition.preserver.Stabiliser`."""
        if self._observer is None or self._observer.num_envs != len(started):
            self._observer = StabiliserObserver(layout, len(started), self.device)
        started = torch.as_tensor(started, device=self.device)
        preserved = mask_arrays(mask, started)
        self._observer.begin(to_tensors(obs, self.device), started, preserved.joints, preserved.bits)

    @torch.inference_mode(False)
    @torch.no_grad()
    def act(self, obs: Mapping[str, Any], base_action: Any) -> Any:
        """dq_A (N, 22) of Eq. 7, rad, zero on released fingers, within the bound; of the kind of `base_action`."""
        observer = self._observer
        if observer is None:
            raise RuntimeError("act() was called before reset()")
        moving = torch.as_tensor(base_action, dtype=torch.float32, device=self.device)
        action = self._policy(observer.features(to_tensors(obs, self.device), moving))
        observer.previous_residual = bounded(action, self.bound, observer.joint_mask)
        return as_given(observer.previous_residual, base_action)
