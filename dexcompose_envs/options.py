"""The options of an environment, the same for one world and for many."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from dexcompose_envs.checks import one_of, real_number, whole_number
from dexcompose_envs.episodes.hidden_physics import HiddenPhysics
from dexcompose_envs.errors import UsageError
from dexcompose_envs.held_states import HeldStateLibrary
from dexcompose_envs.scene.rendering import check_picture
from dexcompose_envs.skills.chain import Chain


@dataclass(frozen=True, kw_only=True)
class CoreConfig:
    """What distinguishes one environment from another."""

    retention: str | None = None
    """Retention skill A, or None."""
    interactions: tuple[str, ...] = ()
    """Interaction skills, done in turn: B, and any that come after it."""
    start: str | None = None
    """"held" starts from the held-state library (Eq. 2), "scratch" with the object on the table; None means "held" for
    composites and "scratch" for single skills."""
    held_split: str = "train"
    """Part of the held-state library that resets draw from: "all", "train" or "test", which is for evaluation."""
    held_states: HeldStateLibrary | str | Path | None = None
    """Library, path or None for the shipped one."""
    terminate_on_success: bool = True
    """Whether success ends the episode."""
    base_shake: float | None = None
    """Scale of the wrist's tremble, see `base_shake.py`; None: 1 for composites and 0 for single skills."""
    physics: str | Mapping[str, Any] = "randomised"
    """Hidden mass and friction of each episode: "randomised", "nominal", or a mapping such as {"mass": (0.5, 4.0),
    "friction": 0.5} of factors and coefficients, fixed or as ranges; see `episodes/hidden_physics.py`."""
    sensor_noise: float = 0.0
    """Scale of the noise on what is observed, see `episodes/sensor_noise.py`; 1 is that of good sensors."""
    backend: str = "mujoco"
    """Physics engine, see `physics.make_engine`."""
    device: str | None = None
    """Device of the engine."""
    num_threads: int | None = None
    """CPU threads of the engine; None: all usable cores, or one for a single environment."""
    max_episode_steps: int | None = None
    """Control steps after which an episode is truncated; None: the registered number."""
    render_mode: str | None = None
    """None or "rgb_array"."""
    camera: str = "overview"
    """"overview", "hand" or "fixture"."""
    width: int = 640
    """Picture width, pixels."""
    height: int = 480
    """Picture height, pixels."""

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> CoreConfig:
        """Options by name; a UsageError if there is no such option."""
        known = [item.name for item in fields(cls)]
        return cls(**{one_of("environment option", name, known): value for name, value in options.items()})

    def __post_init__(self) -> None:
        """Refuses what no environment can do; names and files are looked at where they are used."""
        object.__setattr__(self, "interactions", tuple(self.interactions))  # a list, in specs read from JSON
        if not isinstance(self.terminate_on_success, bool):
            raise UsageError(f"terminate_on_success is {self.terminate_on_success!r}; expected True or False")
        if self.base_shake is not None:
            real_number("base_shake", self.base_shake, 0.0, 5.0)
        HiddenPhysics.of(self.physics)  # refuses what makes no sense
        real_number("sensor_noise", self.sensor_noise, 0.0, 10.0)
        if self.num_threads is not None:
            whole_number("num_threads", self.num_threads)
        if self.max_episode_steps is not None:
            whole_number("max_episode_steps", self.max_episode_steps)
        check_picture(self.camera, self.width, self.height)

    def chain(self) -> Chain:
        """The skills; a UsageError if one is unknown, or they don't make a chain."""
        return Chain.of(self.retention, self.interactions)

    def start_of(self, chain: Chain) -> str:
        """How episodes start, unless a reset says otherwise."""
        return self.start or ("held" if chain.is_composite else "scratch")

    def hidden_physics_of(self, chain: Chain) -> HiddenPhysics:
        """What `physics` means for the object."""
        return HiddenPhysics.of(self.physics, *([] if chain.retention is None else [chain.retention.MASS_FACTORS]))

    def shake_of(self, chain: Chain) -> float:
        """Scale of the wrist's tremble."""
        return float(chain.is_composite) if self.base_shake is None else float(self.base_shake)
