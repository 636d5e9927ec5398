"""What the environment core asks of a physics engine."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from dexcompose_envs.arrays import Arrays
from dexcompose_envs.errors import MachineError
from dexcompose_envs.observations import Array
from dexcompose_envs.physics.constants import Constants


class BackendError(MachineError):
    """A physics back end that can't be used on this machine; the message says what is missing."""


class ContactOverflowError(BackendError):
    """An engine dropped contacts because its buffers were full: nothing computed since can be trusted."""


class Engine(Protocol):
    """Steps N worlds of one scene.

    Sensor data belong to the last physics step of a control step, that is, to the state one physics step (5 ms) before
    the state reached; right after `write` and `set_state` they belong to the state itself. All engines agree on this.

    Attributes:
        num_worlds: N.
        state_size: Numbers of one world's full state.
        sensordata: Latest sensor data (N, nsensordata).
        arrays: Library and device of everything that goes in and out.
        constants: What worlds differ in besides their state: the meaning of `hidden`.
    """

    num_worlds: int
    state_size: int
    sensordata: Array
    arrays: Arrays
    constants: Constants

    def step(self, targets: Array) -> Array:
        """Advances all worlds by one control step.

        Args:
            targets: Position targets (N, 28), m and rad.

        Returns:
            Mask (N,), True where the world's simulation diverged. Such worlds hold no usable state until written to.
        """

    def write(self, worlds: Array, parts: Mapping[str, Array]) -> None:
        """Puts worlds, a mask (N,), into states.

        Args:
            worlds: The worlds.
            parts: `rows.PHYSICS_PARTS`, each with N rows, of which those in the mask count.
        """

    def problem(self) -> Array | None:
        """Worlds (N,) int whose physics were cut short in any step so far, 0 where all is well; None: can't happen."""

    def explain(self, problem: int) -> str:
        """A value of `problem` in words."""

    def get_state(self) -> Array:
        """Full state of all worlds, fresh (N, state_size): setting it again continues bit by bit the same."""

    def set_state(self, state: Array, worlds: Array) -> None:
        """Sets the full state (M, state_size) of some worlds (indices (M,)); sensor data are left to the caller."""

    def hidden(self) -> Array:
        """Each world's numbers that hidden physics decide (N, constants.size), fresh."""

    def qpos(self) -> Array:
        """Generalised positions (N, nq), fresh."""

    def qvel(self) -> Array:
        """Generalised velocities (N, nv), fresh."""

    def load_into(self, data: Any, world: int) -> None:
        """Copies one world's state into an `MjData` and computes what rendering needs."""

    def close(self) -> None:
        """Releases threads and memory; nothing but `close` may be called afterwards."""
