"""The composition of skills in one hand, Eqs. 8 to 12, both sides together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from dexcompose_envs.composition.interactor import Interactor, Nominal
from dexcompose_envs.composition.masks import writable
from dexcompose_envs.composition.policies import PolicyLike
from dexcompose_envs.composition.preserver import Preserver, Reference, Stabiliser
from dexcompose_envs.composition.task import CompositionTask
from dexcompose_envs.episodes.phases import HOLD_STEPS, TRANSITION_STEPS
from dexcompose_envs.hand import NUM_WRIST
from dexcompose_envs.observations import Array
from dexcompose_envs.ownership import FingerMask


class Composer:
    """Composes the preservation command of skill A with the policies of the interactions under a finger mask.

    Per control step: `nominal = composer.nominal(obs)`, then `composer.compose(obs, nominal, delta_b)`, on the
    observations of all N worlds. A residual of zero gives exactly the nominal composition. Everything stays where the
    observations are, NumPy or a torch device; worlds are told apart by boolean masks, so that the host need know none.

    Args:
        task: What is composed.
        mask: Preserved fingers m*.
        policies: pi_B of each interaction in turn, frozen.
        stabiliser: pi_res_A; None keeps the preserved fingers at the reference.
        reference: What the preserved fingers follow, see `Preserver`.
        hide_preserved: Whether preserved fingers are hidden from policies that were trained with hidden fingers.
        residual_writes_all: Whether residual B writes all 28 dimensions instead of B's.
        hold_steps: Length of the phase *hold*.
        transition_steps: Length of the phase *transition*.
    """

    def __init__(
        self,
        task: CompositionTask,
        mask: FingerMask,
        policies: Sequence[PolicyLike],
        stabiliser: Stabiliser | None = None,
        *,
        reference: Reference = "hold",
        hide_preserved: bool = True,
        residual_writes_all: bool = False,
        hold_steps: int = HOLD_STEPS,
        transition_steps: int = TRANSITION_STEPS,
    ) -> None:
        self.mask, self._writes_all = mask, residual_writes_all
        hidden = mask.preserved if hide_preserved else ()
        self.interactor = Interactor(task, policies, hidden, hold_steps=hold_steps, transition_steps=transition_steps)
        self.preserver = Preserver(task, mask, reference, stabiliser)

    def reset(self, obs: Mapping[str, Array], started: Array | None, seeds: Array, step: Array | None = None) -> None:
        """Starts episodes in some worlds; see `Interactor.reset`."""
        self.interactor.reset(obs, started, seeds, step)
        self.preserver.reset(obs, started, seeds, step)

    def nominal(self, obs: Mapping[str, Array]) -> Nominal:
        """a_B of the next control step; call once per step, before `compose`."""
        return self.interactor.nominal(obs)

    def writable(self, nominal: Nominal) -> Array:
        """Where residual B may act in this control step, (N, 28) bool."""
        return writable(self.mask, nominal.interacting, self._writes_all)

    def compose(self, obs: Mapping[str, Array], nominal: Nominal, delta_b: Array | None = None) -> Array:
        """The executed action (N, 28) in [-1, 1]: Eqs. 8, 9, 11 and 12; da_B (N, 28), normalised, where `writable`."""
        if delta_b is None:
            return self.preserver.compose(obs, nominal.base_action)
        allowed = self.writable(nominal)
        residual_a = (allowed * delta_b)[:, NUM_WRIST:] if self._writes_all else None
        return self.preserver.compose(obs, nominal.corrected(delta_b, allowed), residual_a)
