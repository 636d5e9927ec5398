"""What every network of a residual has in common: it normalises observations, and a file says of which class it is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from dexcompose_agents.artefacts.weights import load_weights, save_weights
from dexcompose_agents.rl.normalizer import RunningNormalizer
from dexcompose_envs.artefacts import ArtefactError


class ResidualNetwork(nn.Module, ABC):
    """A network that maps raw observations (..., d) to unbounded residuals u (..., k).

    Whoever executes u bounds it as `bound * tanh(u)` (Eqs. 7 and 10).

    Args:
        observation_size: d.
        action_size: k.
    """

    NAME: ClassVar[str]
    """What files call the class."""
    LEAST: ClassVar[Mapping[str, Any]]
    """Those of its `sizes` that can be smaller where nothing is to be said, as small as can be."""

    def __init__(self, observation_size: int, action_size: int) -> None:
        super().__init__()
        self.observation_size, self.action_size = observation_size, action_size
        self.normalizer = RunningNormalizer(observation_size)

    @abstractmethod
    def mean(self, observation: Tensor) -> Tensor:
        """The deterministic residual (..., k)."""

    @abstractmethod
    def silence(self) -> None:
        """Makes the residual exactly zero again, as it was at the start."""

    def silent(self) -> Self:
        """A network of the same observations and actions whose residual is exactly zero, as small as can be."""
        network = type(self)(**{**self.sizes(), **self.LEAST})
        network.silence()
        return network.eval()

    @abstractmethod
    def sizes(self) -> dict[str, Any]:
        """Arguments that make a network of the same layers, ready for JSON."""

    def save(self, path: str | Path, manifest: Mapping[str, Any]) -> None:
        """Writes weights and observation normaliser to a half-precision file.

        The normaliser's mean is stored as the sum of two half-precision numbers, since a component may vary by far
        less than its mean; the standard deviation instead of the variance, which could underflow. The network's class
        and sizes are added to the manifest.
        """
        tensors = {name: value for name, value in self.state_dict().items() if not name.startswith("normalizer.")}
        mean = self.normalizer.mean.float()
        tensors["normalizer.mean"] = mean.half().float()
        tensors["normalizer.mean_rest"] = mean - mean.half().float()
        tensors["normalizer.std"] = self.normalizer.std.float()
        network = {"class": self.NAME, **self.sizes(), "normalizer_count": float(self.normalizer.count)}
        save_weights(path, tensors, {**manifest, "network": network})

    @classmethod
    def load(cls, path: str | Path, kind: str, **expected: Any) -> tuple[Self, dict[str, Any]]:
        """Reads a network of this class and its manifest; arguments and errors are those of `load_weights`."""
        tensors, manifest = load_weights(path, kind, **expected)
        if (found := class_name(manifest)) != cls.NAME:
            raise ArtefactError(f"'{path}' holds a network of class {found!r}; expected {cls.NAME!r}")
        return cls.restored(tensors, manifest["network"]), manifest

    @classmethod
    @torch.inference_mode(False)
    def restored(cls, tensors: Mapping[str, Tensor], about: Mapping[str, Any]) -> Self:
        """A network of what `save` wrote, ready to act."""
        sizes = {name: value for name, value in about.items() if name not in ("class", "normalizer_count")}
        network, state = cls(**sizes), dict(tensors)
        state["normalizer.mean"] = state["normalizer.mean"].double() + state.pop("normalizer.mean_rest").double()
        state["normalizer.variance"] = state.pop("normalizer.std").double().square()
        state["normalizer.count"] = torch.tensor(about["normalizer_count"], dtype=torch.float64, device="cpu")
        network.load_state_dict(state)
        return network.eval()


def class_name(manifest: Mapping[str, Any]) -> str:
    """Which class a file's network is of; files from before there was a choice don't say so."""
    return str(manifest["network"].get("class", "actor_critic"))
