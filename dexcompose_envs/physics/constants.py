"""The numbers of a model that an episode's hidden physics decides: one row of numbers per world, on any engine."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import mujoco
import numpy as np
from numpy.typing import NDArray

from dexcompose_envs.hand import HAND_BIT, OBJECT_BIT
from dexcompose_envs.scene.sensors import OBJECT

Index = tuple[Any, ...]
Places = list[tuple[NDArray[np.float64], Index, slice]]


class Constants:
    """Which numbers of a scene's model depend on the hidden physics, and what they are for one draw.

    They are the mass and inertia of the held object, what MuJoCo derives from these (`mj_setConst`), and the sliding
    friction of the surfaces of hand and object. Row layout: `fields`, one after the other.

    Args:
        model: The scene's compiled model; its own mass and friction are the nominal ones.

    Attributes:
        fields: Name in `MjModel` -> index of its entries and columns of a row; a single column stands for all entries.
        size: Numbers per row.
    """

    def __init__(self, model: mujoco.MjModel) -> None:
        self._nominal = model
        self._body = mujoco.mj_name2id(model, mujoco.mjtObj.mjOBJ_BODY, OBJECT)
        self.fields: dict[str, tuple[Index, slice]] = {}
        self.size = 0
        for name, index, width in _entries(model, self._body):
            self.fields[name] = (index, slice(self.size, self.size + width))
            self.size += width

    def nominal(self) -> NDArray[np.float64]:
        """The row (size,) of the model itself."""
        return self._read(self._nominal)

    def of(self, model: mujoco.MjModel, data: mujoco.MjData, mass: float, friction: float) -> NDArray[np.float64]:
        """The row (size,) of one draw, which is also put into `model`.

        Args:
            model: A copy of the scene's model, whose numbers are overwritten.
            data: Its data, whose state is overwritten.
            mass: Factor on the object's nominal mass and inertia.
            friction: Sliding friction of hand and object.
        """
        if self._body >= 0:
            model.body_mass[self._body] = mass * self._nominal.body_mass[self._body]
            model.body_inertia[self._body] = mass * self._nominal.body_inertia[self._body]
            mujoco.mj_setConst(model, data)  # else derived numbers stay stale and light objects blow up
        index, _ = self.fields["geom_friction"]
        model.geom_friction[index] = friction
        return self._read(model)

    def places(self, model: mujoco.MjModel) -> Places:
        """Where the numbers stand in a model: what `put` asks for."""
        return [(getattr(model, name), index, columns) for name, (index, columns) in self.fields.items()]

    @staticmethod
    def put(places: Places, row: NDArray[np.float64]) -> None:
        """Gives the model of some `places` the numbers of a row (size,)."""
        for array, index, columns in places:
            array[index] = row[columns]

    def _read(self, model: mujoco.MjModel) -> NDArray[np.float64]:
        widths = [columns.stop - columns.start for _, columns in self.fields.values()]
        values = [np.ravel(getattr(model, name)[index]) for name, (index, _) in self.fields.items()]
        return np.concatenate([value[:width] for value, width in zip(values, widths, strict=True)])

    def sound(self, rows: Any, factor: tuple[float, float], friction: tuple[float, float]) -> Any:
        """Whether rows (N, size) could be of draws within these ranges of mass factor and friction (N,), bool."""
        nominal = self.nominal()[None]
        good = (rows > 0.0).all(axis=1)
        pairs = [(self.friction(rows), *friction)]
        if self._body >= 0:
            pairs.append((self.mass(rows) / float(self.mass(nominal)[0]), *factor))
        for value, low, high in pairs:
            good = good & (value >= low - 1e-6) & (value <= high + 1e-6)
        return good

    def mass(self, rows: Any) -> Any:
        """Mass (N,) of the object in kg from rows (N, size); zeros where there is none."""
        if self._body < 0:
            return 0.0 * rows[:, 0]
        return rows[:, self.fields["body_mass"][1].start]

    def friction(self, rows: Any) -> Any:
        """Sliding friction (N,) of hand and object from rows (N, size)."""
        return rows[:, self.fields["geom_friction"][1].start]


def _entries(model: mujoco.MjModel, body: int) -> Iterator[tuple[str, Index, int]]:
    """Name, index and number of columns of everything that depends on the hidden physics."""
    if body >= 0:
        first, count = int(model.body_dofadr[body]), int(model.body_dofnum[body])
        dofs = slice(first, first + count)
        yield "body_mass", (slice(body, body + 1),), 1
        yield "body_inertia", (body,), 3
        yield "body_invweight0", (body,), 2
        yield "body_subtreemass", (slice(body, body + 1),), 1
        yield "dof_M0", (dofs,), count
        yield "dof_invweight0", (dofs,), count
    surfaces = np.flatnonzero(model.geom_contype & (HAND_BIT | OBJECT_BIT))
    yield "geom_friction", (surfaces, 0), 1
