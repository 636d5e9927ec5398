"""Hidden physics: how heavy the object is and how slippery, drawn for every episode and shown to nobody.

People grip with a margin because they don't know an object's weight and surface. So that holding well matters here as
much, mass and friction vary from one episode to the next, and no observation tells which they are.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dexcompose_envs.checks import one_of, real_number
from dexcompose_envs.errors import UsageError
from dexcompose_envs.hand import FRICTION

Range = tuple[float, float]
PRESETS = ("nominal", "randomised")
LIMITS = {"mass": (0.05, 20.0), "friction": (0.01, 1.5)}
"""Least and largest factor on the mass, and friction, that may be asked for."""


MASS_FACTORS: Range = (0.7, 2.5)
"""Range of the factor on the object's mass, unless told otherwise; a skill says it by `RetentionSkill.MASS_FACTORS`."""


@dataclass(frozen=True)
class HiddenPhysics:
    """What an episode's hidden physics are drawn from.

    Attributes:
        mass: Range of the factor on the object's mass and inertia, log-uniform.
        friction: Range of the sliding friction of hand and object, uniform.
        own: Whether episodes from held states have the mass and friction under which the state was collected and
            proved to be quiet; else they are drawn anew.
    """

    mass: Range = MASS_FACTORS
    friction: Range = (0.4, 0.9)
    own: bool = True

    @classmethod
    def of(cls, option: Any, mass: Range = MASS_FACTORS) -> HiddenPhysics:
        """From the option of an environment: "randomised", "nominal", or a mapping.

        `mass` is the object's own range of factors.

        A mapping names "mass" (factor), "friction" or both, each a number or a range; what it leaves out stays as it is
        in "randomised". Held states may not be quiet under what it says.

        Raises:
            UsageError: If it is none of these, or out of reason.
        """
        if not isinstance(option, Mapping):
            name = one_of("physics", option, PRESETS)
            return cls(mass) if name == "randomised" else cls((1.0, 1.0), (FRICTION, FRICTION), own=False)
        given = {one_of("physics", name, tuple(LIMITS)): _range(name, option[name]) for name in option}
        return cls(**{"mass": mass} | given, own=False)

    def sample(self, rng: np.random.Generator) -> NDArray[np.float64]:
        """Draws mass factor and friction (2,)."""
        low, high = np.log(self.mass)
        return np.array([np.exp(rng.uniform(low, high)), rng.uniform(*self.friction)])


def _range(name: str, value: Any) -> Range:
    """A range from a number or two of them."""
    least, most = LIMITS[name]
    pair = value if isinstance(value, (list, tuple)) else (value, value)
    if len(pair) != 2:
        raise UsageError(f"physics[{name!r}] is {value!r}; expected a number, or both ends of a range")
    low, high = (float(real_number(f"physics[{name!r}]", end, least, most)) for end in pair)
    if low > high:
        raise UsageError(f"physics[{name!r}] is {value!r}; expected the lower end first")
    return low, high
