"""Base shake: an arm that carries a hand never holds it still, so the wrist's targets tremble during a composite.

Each wrist dimension gets a sum of sines whose frequencies, phases and amplitudes are drawn at reset. It is a function
of the episode's time alone: actions and neighbours don't change it.
"""

from __future__ import annotations

import numpy as np
from array_api_compat import array_namespace
from numpy.typing import NDArray

from dexcompose_envs.hand import NUM_WRIST
from dexcompose_envs.observations import Array
from dexcompose_envs.timing import CONTROL_STEP

COMPONENTS = 3
FREQUENCIES = (0.5, 3.0)
"""Range of the sines' frequencies, Hz."""
AMPLITUDES = np.array([0.012, 0.012, 0.012, 0.06, 0.06, 0.06])
"""Root mean square of the shake at scale 1, m and rad, when all sines have their full amplitude."""
RAMP_STEPS = 10
"""Control steps over which the shake sets in."""
SHAPE = (NUM_WRIST, COMPONENTS, 3)
"""One world's parameters: frequency (Hz), phase (rad), amplitude (m or rad) of every sine."""


def sample(rng: np.random.Generator, scale: float) -> NDArray[np.float64]:
    """Draws one world's parameters, `SHAPE`."""
    frequency = rng.uniform(*FREQUENCIES, SHAPE[:2])
    phase = rng.uniform(0.0, 2 * np.pi, SHAPE[:2])
    share = rng.uniform(0.5, 1.0, SHAPE[:2]) * np.sqrt(2 / COMPONENTS)
    return np.stack([frequency, phase, scale * AMPLITUDES[:, None] * share], axis=-1)


def offset(parameters: Array, elapsed: Array) -> Array:
    """Shift of the wrist targets (N, 6), m and rad, from `sample`'s parameters (N, *SHAPE) and elapsed steps (N,)."""
    xp = array_namespace(parameters)
    frequency, phase, amplitude = parameters[..., 0], parameters[..., 1], parameters[..., 2]
    time = CONTROL_STEP * elapsed[:, None, None]
    ramp = xp.clip(elapsed / RAMP_STEPS, 0.0, 1.0)[:, None]
    return ramp * xp.sum(amplitude * xp.sin(2 * np.pi * frequency * time + phase), axis=-1)
