"""What the wrappers share: facts about the wrapped environment, and what they refuse to stand around."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import gymnasium as gym
import numpy as np
from array_api_compat import is_torch_array
from gymnasium.vector import AutoresetMode, VectorEnv

from dexcompose_envs.composition.task import Layout
from dexcompose_envs.errors import UsageError
from dexcompose_envs.hand import NUM_ACTIONS

AnyEnv = gym.Env[Any, Any] | VectorEnv[Any, Any, Any]


def box(size: int) -> gym.spaces.Box:
    """The space of `size` normalised actions."""
    return gym.spaces.Box(-1.0, 1.0, (size,), np.float32)


def recordable(value: object) -> object:
    """An argument as `RecordConstructorArgs` should keep it: arrays as lists, so that specs can be written as JSON."""
    return value.tolist() if isinstance(value, np.ndarray) or is_torch_array(value) else value


def wrapper_chain(env: AnyEnv) -> Iterator[Any]:
    """The environment, then what it wraps, down to the bare one."""
    layer: Any = env
    while layer is not None:
        yield layer
        layer = getattr(layer, "env", None)


def layer_with(env: AnyEnv, name: str) -> Any:
    """The outermost layer that has an attribute.

    Raises:
        AttributeError: If none has.
    """
    for layer in wrapper_chain(env):
        if hasattr(layer, name):
            return layer
    raise AttributeError(f"{env} has no attribute {name!r}")


def check_spaces(env: AnyEnv, wrapper: str, layout: Layout) -> None:
    """Refuses what changes observations or actions inside of our `wrapper`, about to stand around `env`.

    Raises:
        UsageError: If a layer has other spaces than the bare environment, our own `ActionOwnership` apart.
    """
    sizes = {key: (max(columns.stop for columns in terms.values()),) for key, terms in layout.items()}
    actions, of_world = box(NUM_ACTIONS), "single_" if isinstance(env, VectorEnv) else ""
    for layer in reversed(list(wrapper_chain(env))):
        observed, acted = (getattr(layer, f"{of_world}{kind}_space") for kind in ("observation", "action"))
        actions = box(len(layer.action_indices)) if "action_indices" in layer.__dict__ else actions
        shapes = {key: space.shape for key, space in observed.items()} if isinstance(observed, Mapping) else None
        if shapes != sizes or acted != actions:
            what = "observation" if shapes != sizes else "action"
            raise UsageError(
                f"{type(layer).__name__} changes the {what} space inside {wrapper}; put it outside of our wrappers: "
                f"{type(layer).__name__}(BoundedResidual(ActionOwnership(env, ...), ...), ...)"
            )


def array_device(venv: VectorEnv[Any, Any, Any]) -> Any | None:
    """The torch device on which a vector environment's arrays are; None if it gives NumPy arrays.

    Unlike `venv.unwrapped.device` this knows of `ToNumpy` wrappers.
    """
    return next((layer.device for layer in wrapper_chain(venv) if hasattr(layer, "device")), None)


def autoreset_mode(venv: VectorEnv[Any, Any, Any]) -> AutoresetMode:
    """The vector environment's autoreset mode.

    Raises:
        UsageError: If its metadata doesn't say.
    """
    mode = venv.metadata.get("autoreset_mode")
    if not isinstance(mode, AutoresetMode):
        raise UsageError(f"metadata['autoreset_mode'] of {venv} is {mode!r}; expected a gymnasium AutoresetMode")
    return mode


def check_same_step(venv: VectorEnv[Any, Any, Any], adapter: str) -> None:
    """Refuses a vector environment for an adapter if it resets in another mode than SAME_STEP.

    Raises:
        UsageError: If it does.
    """
    if (mode := autoreset_mode(venv)) is not AutoresetMode.SAME_STEP:
        raise UsageError(f"autoreset mode of {venv} is {mode.name}; {adapter} expected SAME_STEP")
