"""A bank of disturbances on the device, from which every episode picks one without asking the host."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from dexcompose_agents.residual.config import DisturbanceConfig
from dexcompose_agents.residual.disturbances import Disturbance, draw_disturbance
from dexcompose_envs import hand
from dexcompose_envs.composition.bounds import NORMALISED_PER_UNIT
from dexcompose_envs.episodes.phases import PHASES

_LOW_32_BITS = 0xFFFFFFFF
_MULTIPLIER = 0x45D9F3B  # Below 2^31, so that 64-bit products of 32-bit numbers never overflow.
_SIZES = (hand.NUM_WRIST, hand.NUM_FINGER_JOINTS, 1, len(PHASES))


def episode_hash(world_seed: Tensor, episode: Tensor) -> Tensor:
    """A number in [0, 2^32) per episode, (N,) int64, the same on every device; a hash needs no generator's state.

    `world_seed` is the reset's seed plus the world's number, `episode` the number in its world, (N,) int64 >= 0.
    """
    value = world_seed & _LOW_32_BITS
    for extra in (episode & _LOW_32_BITS, 0):
        for _ in range(2):
            value = ((value >> 16 ^ value) * _MULTIPLIER) & _LOW_32_BITS
        value = value >> 16 ^ value ^ extra
    return value


class DisturbanceBank:
    """K disturbances of T control steps, drawn once, and the commands that they make of a hold pose.

    Only the way of released fingers depends on the state an episode starts from, as a blend between q_ref and a
    target of the bank; the wrist's targets are offsets.

    Args:
        config: Sizes and speeds.
        count: Number of disturbances K.
        steps: Their length T.
        seed: Seed of all of them.
        device: Where they are kept; 19 kB per disturbance of 151 steps.
    """

    def __init__(
        self, config: DisturbanceConfig, count: int, steps: int, seed: int, device: str | torch.device = "cpu"
    ) -> None:
        self.count = count
        rows = [_rows(draw_disturbance(np.random.default_rng([seed, i]), steps, config)) for i in range(count)]
        self._table = torch.tensor(np.stack(rows), dtype=torch.float32, device=device)

    def command(self, pick: Tensor, step: Tensor, hold: Tensor) -> tuple[Tensor, Tensor]:
        """What wrist and fingers are told, were all fingers released (N, 28), normalised, and one-hot phases (N, 3).

        Args:
            pick: Which disturbance each world is under, (N,) int64 in [0, K).
            step: Control step of each world's episode, (N,) int64 in [0, T).
            hold: The action that holds the object at the episode's start, normalised targets (N, 28).
        """
        wrist, target, share, phase = self._table[pick, step].split(_SIZES, dim=1)
        fingers = (1.0 - share) * hold[:, hand.NUM_WRIST :] + share * target
        return torch.cat([hold[:, : hand.NUM_WRIST] + wrist, fingers], dim=1).clamp(-1.0, 1.0), phase


def _rows(drawn: Disturbance) -> np.ndarray:
    """One row (32,) per step: wrist offset, target of released fingers (both normalised), share, one-hot phase."""
    wrist, fingers = slice(0, hand.NUM_WRIST), slice(hand.NUM_WRIST, None)
    posture = np.zeros((len(drawn.share), hand.NUM_ACTIONS))
    posture[:, fingers] = hand.OPEN_FINGERS + drawn.motion
    offset, target = drawn.wrist * NORMALISED_PER_UNIT[wrist], hand.normalize(posture)[:, fingers]
    return np.concatenate([offset, target, drawn.share[:, None], np.eye(len(PHASES))[drawn.phase]], axis=1)
