"""Acting with a trained diffusion policy: observation history, action chunks, staggered replanning over worlds."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from dexcompose_agents.artefacts.shipped import policy_path
from dexcompose_agents.artefacts.weights import load_weights, weights_hash
from dexcompose_agents.diffusion.config import NetworkConfig, Precision
from dexcompose_agents.diffusion.dataset import OBSERVATION_CLIP, Normalizer, finger_inputs
from dexcompose_agents.diffusion.sampler import ChunkSampler, SchedulerName
from dexcompose_agents.diffusion.training import KIND
from dexcompose_agents.diffusion.unet import FilmUnet
from dexcompose_agents.diffusion.worlds import Selection, observations_of, seeds_of
from dexcompose_agents.runtime.devices import find_device, plain_torch
from dexcompose_agents.runtime.threads import one_thread
from dexcompose_envs.artefacts import ArtefactError
from dexcompose_envs.checks import whole_number
from dexcompose_envs.hand import FINGERS
from dexcompose_envs.scene import model_hash_of


@runtime_checkable
class BasePolicy(Protocol):
    """A policy of one skill that acts in N worlds at once and keeps its own state for each.

    Arguments are NumPy arrays (or lists), or torch tensors on any device. Worlds are named by their numbers, (n,), and
    what belongs to them then has n rows; or by a boolean mask, (N,), and what belongs to them has all N rows, of which
    those outside the mask mean nothing. None names all.
    """

    def reset(self, num_envs: int) -> None:
        """Starts afresh with `num_envs` worlds, seeded 0, 1, 2, ..."""

    def reset_envs(self, env_ids: ArrayLike | Tensor) -> None:
        """Starts a new episode in some worlds; their noise goes on where it was."""

    def seed_envs(self, seeds: ArrayLike | Tensor, env_ids: ArrayLike | Tensor | None = None) -> None:
        """Seeds the noise of some worlds and starts a new episode there."""

    def act(self, task_obs: Any, env_ids: ArrayLike | Tensor | None = None) -> Any:
        """Normalised actions (n, 28) for the task observations (n, d) of some worlds, of the kind that came."""

    def hide_fingers(self, fingers: Iterable[str]) -> None:
        """Says which fingers another skill owns. A policy that was trained to do without them stops reading them."""


class DiffusionPolicy:
    """A trained diffusion policy, batched over worlds, on any torch device.

    Every world keeps its last observations and the chunk of actions that it is executing; when `execute_steps` of a
    chunk are used up, it plans a new one. `act` runs the network for just those worlds that must plan. The first chunk
    of an episode is cut short, depending on the world's seed, so that plans spread over control steps
    (`NetworkConfig.stagger_groups`).

    What a world does depends on its own observations and its own seed alone, never on its neighbours or their number:
    on the CPU to the last bit where the maths library is kind, to 1e-5 in any case (see `ChunkSampler`).

    `BasePolicy` says what arguments are. Name worlds by a mask, or not at all, and nothing is read back from a GPU but
    one number per control step: how many worlds must plan. Values in CUDA tensors (NaN, negative seeds) are not
    checked, which would be one more; numbers of worlds always are.

    Args:
        tensors: Weights by name.
        manifest: Manifest of the weights.
        scheduler: `ddim` or `ddpm`.
        num_inference_steps: Denoising steps; None takes the network's default (ddim) or all (ddpm).
        device: Torch device on which the policy computes and keeps its state.
        precision: Arithmetic of the network; `bfloat16` is for GPUs.

    Raises:
        ArtefactError: If tensors and manifest are not those of a diffusion policy.
        ValueError: If scheduler, number of steps, device or precision are not possible.
    """

    @plain_torch()
    def __init__(
        self,
        tensors: Mapping[str, Tensor],
        manifest: Mapping[str, Any],
        *,
        scheduler: SchedulerName = "ddim",
        num_inference_steps: int | None = None,
        device: str | torch.device = "cpu",
        precision: Precision = "float32",
    ) -> None:
        self.device = find_device(device)
        try:
            settings = manifest["config"]["network"]
            settings = {"linear_guess": False, **settings}  # weights may be older than that setting
            self.config = NetworkConfig(**{item.name: settings[item.name] for item in fields(NetworkConfig)})
            self._observed = Normalizer.from_dict(manifest["observation_normalizer"]).to(self.device)
            self._acted = Normalizer.from_dict(manifest["action_normalizer"]).to(self.device)
            self._finger_dropout = float(manifest["config"]["finger_dropout"])
            self.observation_size, self.action_size = len(self._observed.center), len(self._acted.center)
            network = FilmUnet(self.action_size, self.observation_size * self.config.observation_horizon, self.config)
            network.load_state_dict(dict(tensors))
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            reason = " ".join(str(error).split())[:200]
            raise ArtefactError(f"weights and manifest of the policy don't fit together ({reason})") from error
        self.manifest, self.weights_hash = dict(manifest), weights_hash(tensors)
        with torch.autocast(self.device.type, enabled=False):
            self._sampler = ChunkSampler(
                network.to(self.device), self.config, self.action_size, scheduler=scheduler,
                inference_steps=num_inference_steps, precision=precision,
            )  # fmt: skip
        self.hide_fingers(())
        self.reset(1)

    def hide_fingers(self, fingers: Iterable[str]) -> None:
        """Hides the joints of some `hand.FINGERS`, those that another skill owns, until it is called again.

        Only a policy trained with `finger_dropout` has learned to act without them; any other goes on reading them.
        """
        if self._finger_dropout == 0.0:
            fingers = ()
        elif self._finger_dropout == 1.0:
            fingers = FINGERS
        hidden = np.zeros(self.observation_size, bool)
        hidden[finger_inputs(tuple(fingers), self.observation_size)] = True
        self._hidden = torch.from_numpy(hidden).to(self.device)

    # The state outlives the call: plain tensors, also for a caller in inference mode.
    @plain_torch()
    def reset(self, num_envs: int) -> None:
        """Starts afresh with `num_envs` worlds, seeded 0, 1, 2, ... until `seed_envs` says otherwise."""
        config, num_envs = self.config, whole_number("num_envs", num_envs)
        self._history = torch.zeros(num_envs, config.observation_horizon, self.observation_size, device=self.device)
        self._chunk = torch.zeros(num_envs, config.execute_steps, self.action_size, device=self.device)
        self._fresh = torch.ones(num_envs, dtype=torch.bool, device=self.device)
        self._seeds = torch.arange(num_envs, device=self.device)
        self._position = torch.zeros_like(self._seeds)  # of the next action in the chunk
        self._end = torch.zeros_like(self._seeds)  # where the world plans again
        self._planned = torch.zeros_like(self._seeds)  # chunks since it was seeded

    @torch.inference_mode(False)
    def seed_envs(self, seeds: ArrayLike | Tensor, env_ids: ArrayLike | Tensor | None = None) -> None:
        """Seeds the noise of some worlds, one number from 0 to 2**63 - 1 each, and starts a new episode there."""
        worlds = self._worlds(env_ids)
        values = worlds.spread(seeds_of(seeds, worlds).to(self.device))
        self._seeds = torch.where(worlds.mask, values, self._seeds)
        self._planned = self._planned.masked_fill(worlds.mask, 0)
        self._fresh = self._fresh | worlds.mask

    @torch.inference_mode(False)
    def reset_envs(self, env_ids: ArrayLike | Tensor) -> None:
        """Starts a new episode in some worlds: history and chunk are forgotten, the noise goes on where it was."""
        self._fresh = self._fresh | self._worlds(env_ids).mask

    @torch.inference_mode(False)
    @torch.no_grad()
    def act(self, task_obs: Any, env_ids: ArrayLike | Tensor | None = None) -> Any:
        """Actions for one control step: normalised position targets (n, 28), float32, as the demonstrations had.

        Args:
            task_obs: Task observations of the worlds, (n, d). Actions are torch tensors on its device if it is one.
            env_ids: The worlds that act, each at most once; the others stand still.

        Raises:
            ValueError: If the shape is wrong or a number is not finite (not checked in CUDA tensors).
        """
        with one_thread(self.device), torch.autocast(self.device.type, enabled=False):
            worlds = self._worlds(env_ids)
            given = observations_of(task_obs, worlds, self.observation_size)
            actions = worlds.gather(self._step(worlds.spread(self._prepared(given.to(self.device))), worlds.mask))
        return actions.to(given.device) if isinstance(task_obs, Tensor) else actions.cpu().numpy()

    def _step(self, observations: Tensor, acting: Tensor) -> Tensor:
        """Actions of all worlds (N, 28) for prepared observations (N, d); only those that act go on."""
        now = observations[:, None]
        history = torch.where(self._fresh[:, None, None], now, torch.cat([self._history[:, 1:], now], dim=1))
        self._history = torch.where(acting[:, None, None], history, self._history)
        planning = acting & (self._fresh | (self._position >= self._end))
        ids = planning.nonzero().squeeze(1)  # the one number that is read back: how many there are
        if len(ids):
            self._plan(ids)
        self._fresh = self._fresh & ~acting
        place = self._position.clamp(max=self.config.execute_steps - 1)  # where a world stands still, it may be beyond
        actions = self._chunk.take_along_dim(place[:, None, None], dim=1).squeeze(1)
        self._position = self._position + acting
        return actions

    def _plan(self, ids: Tensor) -> None:
        """New chunks for some worlds."""
        seeds, execute_steps, groups = self._seeds[ids], self.config.execute_steps, self.config.stagger_groups
        chunks = self._acted.denormalize(self._sampler(self._history[ids].flatten(1), seeds, self._planned[ids]))
        # The chunk's first action belongs to the oldest observation; the current one is `observation_horizon - 1` on.
        now = self.config.observation_horizon - 1
        self._chunk[ids] = chunks[:, now : now + execute_steps]
        self._planned[ids] += 1
        self._position[ids] = 0
        first = execute_steps - (seeds % groups) * execute_steps // groups
        self._end[ids] = torch.where(self._fresh[ids], first, execute_steps)

    def _prepared(self, observations: Tensor) -> Tensor:
        """Normalised and clipped observations with the hidden inputs at 0."""
        normalized = self._observed.normalize(observations).clamp(-OBSERVATION_CLIP, OBSERVATION_CLIP)
        return normalized.masked_fill(self._hidden, 0.0)

    def _worlds(self, env_ids: ArrayLike | Tensor | None) -> Selection:
        return Selection.of(env_ids, len(self._fresh), self.device)


def load_policy(skill: str, *, path: str | Path | None = None, **options: Any) -> DiffusionPolicy:
    """Loads the base policy of a skill, as shipped or from a file.

    Args:
        skill: Name of the skill, e.g. "PushButton".
        path: Weight file; None takes the one in `shipped.pretrained_folder()`, as a rule the one that ships.
        **options: `scheduler`, `num_inference_steps`, `device` and `precision` of `DiffusionPolicy`.

    Raises:
        ValueError: If skill or options are not possible.
        ArtefactError: If there are no weights, or they are damaged, or of another skill or physics model.
    """
    model_hash = model_hash_of(skill)
    file = policy_path(skill) if path is None else path
    return DiffusionPolicy(*load_weights(file, KIND, skill=skill, model_hash=model_hash), **options)
