"""`ActionOwnership`: the agent commands only the dimensions that a finger mask leaves to the interaction skill.

Skill A's side of the composition, Eqs. 7 to 9 and 12: `a = M_A * (q_ref + dq_A) + M_B * a_agent`.
"""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.utils import RecordConstructorArgs
from gymnasium.vector import VectorEnv, VectorWrapper

from dexcompose_envs.composition.arrays import any_array, check_array
from dexcompose_envs.composition.masks import OwnedDimensions
from dexcompose_envs.composition.preserver import Preserver, Stabiliser
from dexcompose_envs.composition.preserver import Reference as JointReference
from dexcompose_envs.composition.task import CompositionTask
from dexcompose_envs.errors import UsageError
from dexcompose_envs.hand import NUM_ACTIONS
from dexcompose_envs.observations import Array
from dexcompose_envs.ownership import FingerMask
from dexcompose_envs.wrappers.common import AnyEnv, check_spaces, recordable, wrapper_chain
from dexcompose_envs.wrappers.side import OfOneWorld, OneSide

Reference = JointReference | Stabiliser
"""What preserved joints follow: "hold", a stabiliser around "hold", 22 joint targets (rad), or a function to such."""


class _Owning(OneSide):
    """What single and vector wrapper have in common."""

    def __init__(self, env: AnyEnv, mask: str | FingerMask, reference: Reference = "hold") -> None:
        saved = {"mask": str(mask), "reference": recordable(reference)}
        RecordConstructorArgs.__init__(self, _disable_deepcopy=True, **saved)  # type: ignore[arg-type]
        super().__init__(env)  # type: ignore[call-arg]
        if any("action_indices" in layer.__dict__ for layer in wrapper_chain(self.env)):
            raise UsageError(
                f"{self.env} is one of our wrappers; ActionOwnership expected all {NUM_ACTIONS} joint targets: wrap "
                "the environment itself and put BoundedResidual around ActionOwnership"
            )
        task = CompositionTask.of_env(self.env)
        check_spaces(self.env, "ActionOwnership", task.layout)
        self.mask = FingerMask.parse(mask)
        if callable(reference):
            follow: Any = reference if isinstance(env, VectorEnv) else OfOneWorld(reference)
            self._preserver = Preserver(task, self.mask, follow)
        elif isinstance(reference, Stabiliser):
            self._preserver = Preserver(task, self.mask, stabiliser=reference)
        else:
            self._preserver = Preserver(task, self.mask, reference)
        self._play(self._preserver, OwnedDimensions(np.flatnonzero(self.mask.action_mask_b())))

    @np.errstate(under="ignore")
    def _executed(self, action: Any) -> tuple[Any, dict[str, Array]]:
        obs = self._observation
        owned = check_array("action", action, (*self._batch, len(self.action_indices)), any_array(obs))
        self._preserver.check_start(obs)
        return self._rows(self._preserver.compose(obs, self._owned.spread(self._batched(owned)))), {}


class ActionOwnership(_Owning, gym.Wrapper[Any, Any, Any, Any], RecordConstructorArgs):
    """Gives the agent only the dimensions that B owns; the preserved joints follow a reference.

    The action becomes `Box(-1, 1, (28 - preserved joints,))`: the owned dimensions in `ACTION_NAMES` order, listed in
    the attribute `action_indices`. The agent has them from the first step on; hold and transition are played by a
    `BoundedResidual` around this wrapper. Whatever changes spaces belongs outside of both.

    Set states by this wrapper's `set_state`, or by `reset(options={"state": ...})`, so that it sees what was set.

    Args:
        env: An environment with the full 28-dimensional action.
        mask: Preserved fingers, as a `FingerMask` or as text such as `"TH+RF+LF"`.
        reference: What the preserved joints follow. `"hold"` is the held state's reference hold action `q_ref`, read
            from the observation, so the episode must start from a held state. A stabiliser (`load_stabiliser` of
            `dexcompose_agents`) corrects that. An array (22,) gives constant joint targets in rad. A callable maps each
            observation to targets (22,) in rad, clipped to the joint ranges; if it has `reset(num_envs)`,
            `reset_envs(env_ids)` or `seed_envs(seeds)`, it is told of resets.

    Raises:
        UsageError: On a bad mask or reference, on an environment whose spaces aren't its own, and on actions of the
            wrong shape or that aren't finite.
    """


class ActionOwnershipVector(_Owning, VectorWrapper[Any, Any, Any, Any, Any], RecordConstructorArgs):
    """The twin of `ActionOwnership` for vector environments, in every autoreset mode, with the same arguments.

    A callable reference gets the batched observation and returns (N, 22) or (22,) rad, NumPy or torch. Around a torch
    environment actions are composed on its device, from torch or NumPy actions; numbers on a GPU aren't checked, and
    `reset_envs` gets boolean masks (N,), not numbers of worlds.
    """
