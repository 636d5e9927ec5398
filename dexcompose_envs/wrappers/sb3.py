"""A vector environment as a Stable-Baselines3 `VecEnv`.

Importing this module imports Stable-Baselines3, and with it torch; nothing else in the package does.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import VectorEnv
from numpy.typing import NDArray

from dexcompose_envs.errors import UsageError
from dexcompose_envs.wrappers.common import array_device, check_same_step, layer_with, wrapper_chain
from dexcompose_envs.wrappers.to_numpy import ToNumpy

try:
    from stable_baselines3.common.vec_env import VecEnv
    from stable_baselines3.common.vec_env.base_vec_env import VecEnvIndices, VecEnvObs, VecEnvStepReturn
except ImportError as error:
    raise ImportError("SB3VecEnv needs the package stable-baselines3: pip install stable-baselines3") from error


class SB3VecEnv(VecEnv):
    """Lets Stable-Baselines3 train on N worlds that step at once.

    Info dictionaries are filled only for the worlds whose episode ended in the step, with `terminal_observation`,
    `TimeLimit.truncated`, `is_success`, `outcome` and `episode` (return `r`, length `l`, time `t` in s), so that
    success and return appear in the logs without a `VecMonitor`. Use it with "MultiInputPolicy", or with `flatten=True`
    and "MlpPolicy".

    Args:
        venv: A vector environment in SAME_STEP autoreset mode, wrapped or not. One of torch tensors is put into a
            `ToNumpy`, because Stable-Baselines3 stores its rollouts in NumPy arrays.
        flatten: If true, dictionary observations become one array, as by Gymnasium's `FlattenObservation`.

    Raises:
        UsageError: If the vector environment resets in another mode.
    """

    def __init__(self, venv: VectorEnv[Any, Any, Any], flatten: bool = False) -> None:
        check_same_step(venv, "SB3VecEnv")
        self.venv = venv if array_device(venv) is None else ToNumpy(venv)
        space = venv.single_observation_space
        self._keys = tuple(space.spaces) if flatten and isinstance(space, gym.spaces.Dict) else None
        super().__init__(
            venv.num_envs, space if self._keys is None else gym.spaces.flatten_space(space), venv.single_action_space
        )
        self._actions: NDArray[Any] | None = None
        self._returns = np.zeros(self.num_envs)
        self._lengths = np.zeros(self.num_envs, dtype=np.int64)
        self._start_time = time.time()

    def reset(self) -> VecEnvObs:
        """Resets all worlds with the seeds and options set beforehand by `seed` and `set_options`."""
        seeds = None if self._seeds[0] is None else list(self._seeds)
        if any(options != self._options[0] for options in self._options):
            raise UsageError(f"options differ between worlds: {self._options}; expected the same for all of them")
        observation, _ = self.venv.reset(seed=seeds, options=dict(self._options[0]) or None)  # type: ignore[arg-type]
        self._reset_seeds()
        self._reset_options()
        self.reset_infos = [{} for _ in range(self.num_envs)]
        self._returns[:], self._lengths[:] = 0.0, 0
        return self._flatten(observation)

    def step_async(self, actions: NDArray[Any]) -> None:
        """Stores the actions (N, D) for `step_wait`."""
        self._actions = actions

    def step_wait(self) -> VecEnvStepReturn:
        """Observations, rewards (N,), dones (N,), and N info dictionaries, empty but for the worlds that ended."""
        observation, reward, terminated, truncated, info = self.venv.step(self._actions)
        done = terminated | truncated
        self._returns += reward
        self._lengths += 1
        infos: list[dict[str, Any]] = [{} for _ in range(self.num_envs)]
        final = info.get("final_info", {})
        for i in np.flatnonzero(done).tolist():
            infos[i] = {
                "terminal_observation": self._flatten(_world(info["final_obs"], i)),
                "TimeLimit.truncated": bool(truncated[i] and not terminated[i]),
                "episode": {
                    "r": float(self._returns[i]), "l": int(self._lengths[i]), "t": time.time() - self._start_time,
                },
                **{key: final[key][i].item() for key in ("is_success", "outcome") if key in final},
            }  # fmt: skip
        self._returns[done], self._lengths[done] = 0.0, 0
        return self._flatten(observation), np.asarray(reward, dtype=np.float32), done, infos

    def close(self) -> None:
        """Closes the vector environment."""
        self.venv.close()

    def get_images(self) -> Sequence[NDArray[np.uint8] | None]:
        """One picture per world, as the vector environment renders it."""
        frames = self.venv.render()
        return [None] * self.num_envs if frames is None else list(frames)  # type: ignore[arg-type]

    def get_attr(self, attr_name: str, indices: VecEnvIndices = None) -> list[Any]:
        """The vector environment's attribute, repeated for each world; inner wrappers are searched too."""
        return [getattr(layer_with(self.venv, attr_name), attr_name) for _ in self._get_indices(indices)]

    def set_attr(self, attr_name: str, value: Any, indices: VecEnvIndices = None) -> None:
        """Sets an attribute for all worlds, which share one environment, on the layer that has it, else outermost."""
        self._check_all(indices)
        layer = next((layer for layer in wrapper_chain(self.venv) if hasattr(layer, attr_name)), self.venv)
        setattr(layer, attr_name, value)

    def env_method(
        self, method_name: str, *method_args: Any, indices: VecEnvIndices = None, **method_kwargs: Any
    ) -> list[Any]:
        """Calls a method of the vector environment once for all worlds and repeats the result for each."""
        self._check_all(indices)
        result = getattr(layer_with(self.venv, method_name), method_name)(*method_args, **method_kwargs)
        return [result] * self.num_envs

    def env_is_wrapped(self, wrapper_class: type[Any], indices: VecEnvIndices = None) -> list[bool]:
        """Whether a wrapper of this class is around the vector environment."""
        wrapped = any(isinstance(layer, wrapper_class) for layer in wrapper_chain(self.venv))
        return [wrapped] * len(list(self._get_indices(indices)))

    def _check_all(self, indices: VecEnvIndices) -> None:
        if len(list(self._get_indices(indices))) != self.num_envs:
            raise UsageError(f"indices are {indices}; expected all {self.num_envs} worlds, which share one environment")

    def _flatten(self, observation: Any) -> Any:
        keys = self._keys
        return observation if keys is None else np.concatenate([observation[key] for key in keys], axis=-1)


def _world(batch: Any, i: int) -> Any:
    """World i of observations, which are a dictionary of arrays or an array of dictionaries."""
    return {key: value[i] for key, value in batch.items()} if isinstance(batch, dict) else batch[i]
