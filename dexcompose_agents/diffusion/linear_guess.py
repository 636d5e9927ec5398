"""Wrist targets guessed by a linear map of the observations, so that a network need only add the rest."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dexcompose_agents.diffusion.config import NetworkConfig
from dexcompose_envs.checks import require
from dexcompose_envs.hand import NUM_ACTIONS, NUM_WRIST

_RIDGE = 1e-4
"""Ridge per window: the variance of the noise that training adds to observations."""
_SMALLEST_SCALE = 1e-3


class LinearGuess(nn.Module):
    """Wrist targets of a chunk, guessed by ridge regression from what is seen of wrist and task.

    Where a wrist target is in the world is mostly where the thing is that the hand goes to. A network of modest size
    that must say so itself, over a range of a metre, is a centimetre off; told the guess, it says the rest of a few
    centimetres. Fingers are left alone. A chunk is `scale * rest + guess`; everything is normalised.

    `observation_size` counts the numbers in the flattened observation history; of each observation the first 28 are the
    joints.

    Raises:
        UsageError: If observations or actions are too small to be a hand's.
    """

    weight: Tensor
    offset: Tensor
    scale: Tensor

    def __init__(self, observation_size: int, action_size: int, config: NetworkConfig) -> None:
        super().__init__()
        horizon, self._history = config.action_horizon, config.observation_horizon
        observed = observation_size // self._history
        require(observed >= NUM_ACTIONS, "observation size", observed, f"at least {NUM_ACTIONS} joints")
        require(action_size == NUM_ACTIONS, "action size", action_size, f"{NUM_ACTIONS} targets")
        self.register_buffer("weight", torch.zeros(observation_size, horizon * NUM_WRIST))
        self.register_buffer("offset", torch.zeros(horizon, NUM_WRIST))
        self.register_buffer("scale", torch.ones(horizon, action_size))

    @torch.no_grad()
    def fit(self, histories: Tensor, chunks: Tensor) -> None:
        """Fits to histories (n, h, d) and chunks (n, H, a); the largest rest in them becomes 1."""
        seen = torch.ones(histories.shape[2], dtype=torch.bool, device=histories.device)
        seen[NUM_WRIST:NUM_ACTIONS] = False
        ones = torch.ones(len(histories), 1, device=histories.device)
        inputs = torch.cat([histories[:, :, seen].flatten(1), ones], dim=1).double()
        targets = chunks[:, :, :NUM_WRIST].double()
        gram = inputs.T @ inputs
        gram += _RIDGE * len(inputs) * torch.eye(len(gram), dtype=gram.dtype, device=gram.device)
        solved = torch.linalg.solve(gram, inputs.T @ targets.flatten(1))
        weight = self.weight.unflatten(0, (self._history, -1)).zero_()
        weight[:, seen] = solved[:-1].unflatten(0, (self._history, -1)).float()
        self.offset.copy_(solved[-1].reshape(self.offset.shape))
        rest = targets - (inputs @ solved).reshape(targets.shape)
        self.scale[:, :NUM_WRIST] = rest.abs().amax(0).clamp(min=_SMALLEST_SCALE).float()

    def rest(self, chunks: Tensor, history: Tensor) -> Tensor:
        """What is to be added to the guess of flattened histories (n, h * d) to give chunks (n, H, a)."""
        return (chunks - self._guess(history)) / self.scale

    def complete(self, rest: Tensor, history: Tensor) -> Tensor:
        """Undoes `rest`."""
        return rest * self.scale + self._guess(history)

    def _guess(self, history: Tensor) -> Tensor:
        wrist = (history @ self.weight).unflatten(1, self.offset.shape) + self.offset
        return nn.functional.pad(wrist, (0, self.scale.shape[1] - NUM_WRIST))
