"""`BoundedResidual`: the agent corrects a base policy instead of replacing it.

Skill B's side of the composition, Eqs. 10 and 11: `a_exec = pi(o) + bound * r`, with the agent's `r` in [-1, 1]. A
network that ends in a tanh gives the paper's `beta * tanh(.)`; anything outside [-1, 1] is clipped, so the correction
keeps its bound.
"""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
from array_api_compat import array_namespace
from gymnasium.utils import RecordConstructorArgs
from gymnasium.vector import VectorEnv, VectorWrapper
from numpy.typing import ArrayLike, NDArray

from dexcompose_envs.composition.arrays import Constant, any_array, check_array
from dexcompose_envs.composition.interactor import Interactor
from dexcompose_envs.composition.masks import OwnedDimensions
from dexcompose_envs.composition.policies import PolicyLike, TaskPolicy
from dexcompose_envs.composition.task import CompositionTask
from dexcompose_envs.errors import UsageError
from dexcompose_envs.hand import NUM_ACTIONS
from dexcompose_envs.observations import Array
from dexcompose_envs.wrappers.common import AnyEnv, check_spaces, recordable, wrapper_chain
from dexcompose_envs.wrappers.side import OfOneWorld, OneSide


class _Correcting(OneSide):
    """What single and vector wrapper have in common."""

    def __init__(self, env: AnyEnv, base_policy: PolicyLike | list[PolicyLike], bound: ArrayLike) -> None:
        RecordConstructorArgs.__init__(self, _disable_deepcopy=True, base_policy=base_policy, bound=recordable(bound))  # type: ignore[arg-type]
        super().__init__(env)  # type: ignore[call-arg]
        if any(isinstance(layer, _Correcting) for layer in wrapper_chain(self.env)):
            raise UsageError(f"{self.env} already acts by a residual; expected one BoundedResidual only")
        task = CompositionTask.of_env(self.env)
        check_spaces(self.env, "BoundedResidual", task.layout)
        owner = next((layer for layer in wrapper_chain(self.env) if "action_indices" in layer.__dict__), None)
        owned = OwnedDimensions(np.arange(NUM_ACTIONS) if owner is None else owner.action_indices)
        policies: list[Any] = list(base_policy) if isinstance(base_policy, list | tuple) else [base_policy]
        if not isinstance(env, VectorEnv):
            functions = (callable(policy) and not isinstance(policy, TaskPolicy) for policy in policies)
            policies = [OfOneWorld(each) if is_one else each for each, is_one in zip(policies, functions, strict=True)]
        self._interactor = Interactor(task, policies, () if owner is None else owner.mask.preserved, owned=owned)
        self.bound = _checked_bound(bound, owned.indices)
        self._bound = Constant(self.bound)
        self._play(self._interactor, owned)

    def reset(self, *, seed: Any = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Resets the environment, or the worlds of `options["reset_mask"]`, and the base policy's state for them."""
        observation, info = super().reset(seed=seed, options=options)
        like = any_array(self._observation)
        none = array_namespace(like).zeros_like(like[:, 0], dtype=array_namespace(like).bool)
        return observation, self._informed(info, {"residual_active": none})

    @np.errstate(under="ignore")
    def _executed(self, action: Any) -> tuple[Any, dict[str, Array]]:
        obs = self._observation
        like = any_array(obs)
        xp = array_namespace(like)
        residual = check_array("residual action", action, (*self._batch, len(self.action_indices)), like)
        nominal = self._interactor.nominal(obs)
        check_array("the base policy's action", self._rows(nominal.base_action), (*self._batch, NUM_ACTIONS), like)
        correction = self._bound.like(like) * xp.clip(self._batched(residual), -1.0, 1.0)
        executed = nominal.corrected(self._owned.spread(correction), nominal.interacting[:, None])
        return self._rows(self._owned.take(executed)), {"residual_active": nominal.interacting}


class BoundedResidual(_Correcting, gym.Wrapper[Any, Any, Any, Any], RecordConstructorArgs):
    """Makes the action a residual in [-1, 1] that is scaled by a bound and added to a base policy's action.

    The executed action is `clip(base + bound * residual, -1, 1)`; a zero residual executes exactly the base policy's
    action. Around `ActionOwnership` the residual has the owned dimensions only, and the preserved fingers are hidden
    from a base policy that was trained with hidden fingers.

    Around a composite the wrapper first plays *hold* and *transition*, as the composition methods do: for 50 control
    steps residuals are ignored. `info["residual_active"]` says whether the residual of the step just made was executed.
    Around a single skill the base policy acts from the first step on. With more than one interaction each has its hold
    and its transition, and its own base policy.

    Set states by this wrapper's `set_state`, or by `reset(options={"state": ...})`: it then goes on at the state's
    place in its episode, with base policies that start anew.

    Args:
        env: An environment with normalised joint targets as action, or an `ActionOwnership` around one.
        base_policy: Either an object with `act(task_obs (N, obs_dim)) -> (N, 28)`, which reads the skill's observation
            (`task_b`, or `task_a` where there is no interaction), or a callable that gets the whole observation and
            returns (28,) or (1, 28); or a list of such, one for each interaction. It may have `reset(num_envs)`,
            `reset_envs(env_ids)`, `seed_envs(seeds, env_ids)` and `hide_fingers(names)`, see `TaskPolicy`; its noise is
            seeded as the worlds are.
        bound: Largest correction in normalised units, at least 0: one number, or one for each of the 28 dimensions
            (or of the residual's own).

    Raises:
        UsageError: On a bad bound, on an environment that already has a residual or whose spaces aren't its own, and
            on residuals or base actions of the wrong shape or that aren't finite.
    """


class BoundedResidualVector(_Correcting, VectorWrapper[Any, Any, Any, Any, Any], RecordConstructorArgs):
    """The twin of `BoundedResidual` for vector environments, in every autoreset mode, with the same arguments.

    A callable base policy gets the batched observation and returns (N, 28) or (28,), NumPy or torch. Around a torch
    environment actions are composed on its device, from torch or NumPy residuals; numbers on a GPU aren't checked, a
    base policy reads tensors, and its `reset_envs` gets boolean masks (N,), not numbers of worlds.
    """


def _checked_bound(bound: ArrayLike, indices: NDArray[np.intp]) -> NDArray[np.float32]:
    """The bound of each residual dimension (D,)."""
    shape = np.shape(bound)
    if shape not in ((), (NUM_ACTIONS,), indices.shape):
        raise UsageError(f"bound has shape {shape}; expected one number or {NUM_ACTIONS} of them")
    values = check_array("bound", bound, shape)
    if (values < 0).any():
        raise UsageError(f"bound is {values.min()}; expected numbers of at least 0")
    return values[indices] if shape == (NUM_ACTIONS,) else np.broadcast_to(values, indices.shape).copy()
