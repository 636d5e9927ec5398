"""What the environment core asks of a physics engine."""

from __future__ import annotations

from typing import Protocol

from dexcompose_envs.observations import Array


class Engine(Protocol):
    """Steps N worlds of one scene.

    Sensor data belong to the last physics step of a control step, that is, to the state one physics step (5 ms) before
    the state reached; right after `set_state` and `reset` they belong to the state itself. All engines agree on this.

    Attributes:
        num_worlds: N.
        state_size: Numbers of one world's full state.
        sensordata: Latest sensor data (N, nsensordata), float64.
    """

    num_worlds: int
    state_size: int
    sensordata: Array

    def step(self, targets: Array) -> Array:
        """Advances all worlds by one control step.

        Args:
            targets: Position targets (N, 28), m and rad.

        Returns:
            Mask (N,), True where the world's simulation diverged. Such worlds hold no usable state until reset.
        """

    def reset(self, worlds: Array, qpos: Array, qvel: Array, targets: Array, fixture_pose: Array | None) -> None:
        """Puts worlds (indices (M,)) into states: qpos (M, nq), qvel (M, nv), targets (M, 28), fixture pose (M, 7)."""

    def get_state(self) -> Array:
        """Full state of all worlds, fresh (N, state_size): setting it again continues bit by bit the same."""

    def set_state(self, state: Array, worlds: Array) -> None:
        """Sets the full state (M, state_size) of some worlds (indices (M,)); sensor data are left to the caller."""

    def qpos(self) -> Array:
        """Generalised positions (N, nq), fresh."""

    def qvel(self) -> Array:
        """Generalised velocities (N, nv), fresh."""

    def close(self) -> None:
        """Releases threads and memory."""
