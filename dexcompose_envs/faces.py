"""What the single and the vector environment share: spaces, facts, pictures, copies."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import wraps
from typing import Any, TypeVar

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from dexcompose_envs import hand
from dexcompose_envs.arrays import to_numpy
from dexcompose_envs.checks import one_of
from dexcompose_envs.core import BatchedCore
from dexcompose_envs.errors import DexComposeError, StepError, UsageError
from dexcompose_envs.held_states import HeldStateLibrary
from dexcompose_envs.options import CoreConfig
from dexcompose_envs.scene import Scene
from dexcompose_envs.scene.rendering import OffscreenRenderer
from dexcompose_envs.timing import CONTROL_STEP

RENDER_FPS = round(1 / CONTROL_STEP)
RESET_OPTIONS = ("start", "held_index", "state", "reset_mask")

Method = TypeVar("Method", bound=Callable[..., Any])


def observation_space(layout: Mapping[str, Mapping[str, slice]]) -> spaces.Dict[Any]:
    """Unbounded float32 boxes, one per key of the layout."""
    sizes = {key: max(columns.stop for columns in terms.values()) for key, terms in layout.items()}
    return spaces.Dict({key: spaces.Box(-np.inf, np.inf, (size,), np.float32) for key, size in sizes.items()})


def action_space() -> spaces.Box:
    """Normalised absolute position targets."""
    return spaces.Box(-1.0, 1.0, (hand.NUM_ACTIONS,), np.float32)


def check_options(options: dict[str, Any] | None) -> dict[str, Any]:
    """Reset options without those that are None.

    Raises:
        UsageError: On an unknown option, or two that exclude each other.
    """
    options = {name: value for name, value in (options or {}).items() if value is not None}
    for name in options:
        one_of("reset option", name, RESET_OPTIONS)
    for name in ("start", "held_index"):
        if "state" in options and name in options:
            raise UsageError(f"got the reset options 'state' and {name!r}; expected one of them")
    return options


def in_one_piece(method: Method) -> Method:
    """For methods that Ctrl-C may leave half done: the environment then has to be reset before it goes on."""

    @wraps(method)
    def guarded(self: Face, *args: Any, **kwargs: Any) -> Any:
        try:
            return method(self, *args, **kwargs)
        except DexComposeError:  # refused, with nothing done
            raise
        except BaseException:
            self._is_reset = False
            raise

    return guarded  # type: ignore[return-value]


class Face:
    """An environment's side that users see, over a core of N worlds.

    Attributes:
        layout: Observation key -> term -> columns.
        render_mode: None or "rgb_array".
    """

    metadata: dict[str, Any]
    _is_reset: bool
    _renderer: OffscreenRenderer | None

    def _open(self, config: CoreConfig, num_worlds: int) -> None:
        if config.render_mode is not None:
            one_of("render_mode", config.render_mode, self.metadata["render_modes"])
        self._built_from = (config, num_worlds)
        self.core = BatchedCore(config, num_worlds)
        self.layout = self.core.layout
        self.render_mode = config.render_mode
        self._renderer = None
        self._is_reset = False

    @property
    def retention(self) -> str | None:
        """Name of the skill whose object is held."""
        return self.core.config.retention

    @property
    def interactions(self) -> tuple[str, ...]:
        """Names of the skills whose fixtures are worked, in turn."""
        return self.core.config.interactions

    @property
    def task_keys(self) -> tuple[str, ...]:
        """Observation keys of the interactions, in turn."""
        return self.core.chain.task_keys

    @property
    def interaction_starts(self) -> NDArray[np.float64]:
        """Normalised hand poses (k, 28) from which the interactions start, where their fixtures are placed."""
        return hand.normalize(self.core.chain.start_poses)

    @property
    def interaction_offsets(self) -> NDArray[np.float64]:
        """What is added to each interaction's own action (k, 28), since its fixture is placed aside, normalised."""
        offsets = self.core.chain.offsets
        return hand.normalize(offsets) - hand.normalize(np.zeros_like(offsets))

    @property
    def scene(self) -> Scene:
        """Model and sensors."""
        return self.core.scene

    @property
    def model_hash(self) -> str:
        """Fingerprint of the model's physics."""
        return self.core.scene.model_hash

    @property
    def held_library(self) -> HeldStateLibrary:
        """The held states that episodes start from."""
        return self.core.sampler.library

    def held_columns(self) -> dict[str, NDArray[np.float64]]:
        """The present states as columns of a held-state library, all but `reference` and `hold_target` (N, k)."""
        return self.core.held_columns()

    def hidden_physics(self) -> dict[str, NDArray[np.float64]]:
        """What no observation tells: "mass", a factor on the object's own, and "friction" of hand and object (N,)."""
        return dict(zip(("mass", "friction"), self.core.hidden_physics().T, strict=True))

    def sensors(self) -> dict[str, NDArray[np.float64]]:
        """What the sensors say now, fresh: group -> (N, size), SI units; see `scene/sensors.py` for the groups."""
        groups = self.core.snapshot().sensors
        return {name: np.array(to_numpy(value), np.float64) for name, value in groups.items()}

    def wrist_shake(self) -> Any:
        """By how much base shake will shift the next step's wrist targets (N, 6), m and rad, where actions live.

        No observation tells it; it is there for training, which may pay for what makes up for it.
        """
        return self.core.wrist_shake()

    def load_into(self, data: Any, world: int = 0) -> None:
        """Copies one world's state into an `MjData` of `scene.model`, for a viewer."""
        self.core.engine.load_into(data, world)

    def engine_usage(self) -> dict[str, float]:
        """Mean contacts and constraint rows per world now, of engines that can tell."""
        usage = getattr(self.core.engine, "usage", None)
        return {} if usage is None else usage()

    def _check_reset(self) -> None:
        if not self._is_reset:
            raise StepError("step was called before reset, or after an interrupted one; expected a reset first")

    def _draw(self, world: int) -> NDArray[np.uint8]:
        if self._renderer is None:
            config = self.core.config
            self._renderer = OffscreenRenderer(self.scene.model, config.camera, config.width, config.height)
        return self._renderer.render(self.core.engine, world)

    def close(self) -> None:
        """Frees the renderer and the engine."""
        if self._renderer is not None:
            self._renderer.close()
            self._renderer = None
        self._is_reset = False
        self.core.close()

    def __getstate__(self) -> dict[str, Any]:
        """What a copy needs: everything but the engine and the picture, which it makes for itself."""
        kept = {name: value for name, value in vars(self).items() if name not in ("core", "_renderer")}
        return kept | {"frozen": self.core.freeze()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        frozen = state.pop("frozen")
        vars(self).update(state)
        self._renderer = None
        self.core = BatchedCore(*self._built_from)
        self.core.thaw(frozen)
