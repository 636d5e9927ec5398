"""The finger ownership mask as a value: which fingers keep the held object and which are free for the second task.

A mask `m in {0,1}^5` preserves the fingers with 1 for the retention skill A and releases the others to the interaction
skill B (section 2 of the method). `mbar` expands it to the 22 finger joints, `M_A` to the 28 action dimensions, and
`M_B = 1 - M_A`; the wrist therefore always belongs to B.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dexcompose_envs.errors import UsageError
from dexcompose_envs.hand import FINGERS, NUM_ACTIONS, NUM_WRIST, finger_slice

CANONICAL_ORDER = ("TH", "FF", "MF", "RF", "LF")
"""Order in which masks are written: thumb first, then index to little finger."""


@dataclass(frozen=True)
class FingerMask:
    """The fingers preserved for the retention skill.

    Masks are immutable, hashable and equal if they preserve the same fingers; `str` writes them as `TH+RF+LF`.

    Attributes:
        preserved: Names of the preserved fingers; any order is accepted and `CANONICAL_ORDER` is stored.

    Raises:
        UsageError: If a finger is unknown or named twice, or if there is none.
    """

    preserved: tuple[str, ...]

    def __post_init__(self) -> None:
        names = tuple(self.preserved)
        expected = f"expected one or more of {', '.join(CANONICAL_ORDER)}, each once, joined by '+', such as 'TH+RF+LF'"
        unknown = [name for name in names if name not in FINGERS]
        if unknown:
            raise UsageError(f"unknown finger {unknown[0]!r} in mask {'+'.join(map(str, names))!r}; {expected}")
        if not names:
            raise UsageError(f"mask preserves no finger; {expected}")
        if len(set(names)) != len(names):
            raise UsageError(f"mask {'+'.join(names)!r} names a finger twice; {expected}")
        object.__setattr__(self, "preserved", tuple(finger for finger in CANONICAL_ORDER if finger in names))

    @classmethod
    def parse(cls, text: str | FingerMask) -> FingerMask:
        """Reads a mask such as `"TH+RF+LF"`: preserved fingers in any order and case; a `FingerMask` stays as it is."""
        if isinstance(text, FingerMask):
            return text
        if not isinstance(text, str):
            raise UsageError(f"finger mask is {text!r} of type {type(text).__name__}; expected text such as 'TH+RF+LF'")
        return cls(tuple(part.strip().upper() for part in text.split("+")) if text.strip() else ())

    @classmethod
    def from_bits(cls, bits: ArrayLike) -> FingerMask:
        """Makes a mask from 5 booleans in `FINGERS` order (FF, MF, RF, LF, TH), true = preserved."""
        values = np.asarray(bits)
        if values.shape != (len(FINGERS),) or not np.isin(values, (0, 1)).all():
            raise UsageError(
                f"mask bits are {bits!r}; expected {len(FINGERS)} values of 0 or 1 for {', '.join(FINGERS)}"
            )
        return cls(tuple(finger for finger, bit in zip(FINGERS, values, strict=True) if bit))

    @classmethod
    def all_fingers(cls) -> FingerMask:
        """The mask that preserves the whole hand and leaves only the wrist to B."""
        return cls(CANONICAL_ORDER)

    @classmethod
    def candidates(cls) -> tuple[FingerMask, ...]:
        """The 30 masks that preserve at least one finger and release at least one, most preserved fingers first."""
        return tuple(
            cls(fingers) for count in range(len(FINGERS) - 1, 0, -1) for fingers in combinations(CANONICAL_ORDER, count)
        )

    def __str__(self) -> str:
        """Preserved fingers in canonical order, joined by '+'."""
        return "+".join(self.preserved)

    @property
    def released(self) -> tuple[str, ...]:
        """Fingers that belong to the interaction skill, in canonical order."""
        return tuple(finger for finger in CANONICAL_ORDER if finger not in self.preserved)

    @property
    def num_released(self) -> int:
        """Number of released fingers, 0 to 4."""
        return len(self.released)

    @property
    def bits(self) -> NDArray[np.bool_]:
        """The mask `m` (5,) in `FINGERS` order, true = preserved."""
        return np.array([finger in self.preserved for finger in FINGERS])

    def joint_mask(self) -> NDArray[np.bool_]:
        """The expansion `mbar` (22,) to the finger joints, true = joint of a preserved finger."""
        return self.action_mask_a()[NUM_WRIST:]

    def action_mask_a(self) -> NDArray[np.bool_]:
        """`M_A` (28,) in `ACTION_NAMES` order, true = dimension that the retention skill commands (Eq. 12)."""
        mask = np.zeros(NUM_ACTIONS, dtype=np.bool_)
        for finger in self.preserved:
            mask[finger_slice(finger)] = True
        return mask

    def action_mask_b(self) -> NDArray[np.bool_]:
        """`M_B = 1 - M_A` (28,), true = dimension that the interaction skill commands; includes the wrist."""
        return ~self.action_mask_a()
