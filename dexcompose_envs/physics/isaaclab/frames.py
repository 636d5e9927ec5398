"""Rotations of torch tensors; and the one place where the order of quaternions changes.

Isaac Lab has x, y, z, w; MuJoCo, and all that this package says of itself, w, x, y, z.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


def w_first(quaternion: Tensor) -> Tensor:
    """Quaternions (..., 4) of Isaac Lab's in this package's order."""
    return torch.roll(quaternion, 1, dims=-1)


def w_last(quaternion: Tensor) -> Tensor:
    """Quaternions (..., 4) of this package's in Isaac Lab's order."""
    return torch.roll(quaternion, -1, dims=-1)


def multiplied(first: Tensor, second: Tensor) -> Tensor:
    """Products of quaternions (..., 4), w first."""
    w0, v0, w1, v1 = first[..., :1], first[..., 1:], second[..., :1], second[..., 1:]
    scalar = w0 * w1 - (v0 * v1).sum(-1, keepdim=True)
    return torch.cat([scalar, w0 * v1 + w1 * v0 + torch.linalg.cross(v0, v1)], dim=-1)


def inverse(quaternion: Tensor) -> Tensor:
    """Inverses of unit quaternions (..., 4), w first."""
    return quaternion * quaternion.new_tensor([1.0, -1.0, -1.0, -1.0])


def rotated(quaternion: Tensor, vector: Tensor) -> Tensor:
    """Vectors (..., 3) turned by unit quaternions (..., 4), w first."""
    w, v = quaternion[..., :1], quaternion[..., 1:].expand_as(vector)
    twice = 2.0 * torch.linalg.cross(v, vector)
    return vector + w * twice + torch.linalg.cross(v, twice)


class Motion(NamedTuple):
    """Where frames are and how they move, in the world: (N, k, ...), m, m/s and rad/s, quaternions w first."""

    position: Tensor
    quaternion: Tensor
    linear: Tensor
    angular: Tensor

    def carried(self, position: Tensor, quaternion: Tensor) -> Motion:
        """Frames fixed to these, at a place (k, 3) and turned (k, 4) in them."""
        arm = rotated(self.quaternion, position.expand_as(self.position))
        turned = multiplied(self.quaternion, quaternion.expand_as(self.quaternion))
        return Motion(self.position + arm, turned, self.linear + torch.linalg.cross(self.angular, arm), self.angular)

    def seen_from(self, other: Motion) -> Motion:
        """The same in other frames, as somebody sees it who moves with them."""
        back, arm = inverse(other.quaternion), self.position - other.position
        linear = self.linear - other.linear - torch.linalg.cross(other.angular, arm)
        return Motion(
            rotated(back, arm),
            multiplied(back, self.quaternion),
            rotated(back, linear),
            rotated(back, self.angular - other.angular),
        )

    def take(self, index: Tensor) -> Motion:
        """Some of the frames, by their indices (m,)."""
        return Motion(*(part[:, index] for part in self))
