"""Observations, networks and base policies without physics, and an environment that speaks tensors as on a GPU."""

import numpy as np
import torch
from torch import Tensor

from dexcompose_agents.rl.actor_critic import ActorCritic

from ...host_reads import HostReads


def _layout():
    terms = {
        "joint_velocity": 28, "torque": 22, "previous_action": 28, "phase": 3, "object_position": 3,
        "object_rotation": 6, "object_linear_velocity": 3, "object_angular_velocity": 3, "palm_offset": 3,
        "finger_contact": 5, "fingertip_distance": 5, "reference": 22,
    }  # fmt: skip
    ends = np.cumsum(list(terms.values()))
    context = {name: slice(int(end - size), int(end)) for (name, size), end in zip(terms.items(), ends, strict=True)}
    return {"task_a": {"all": slice(0, 34)}, "task_b": {"all": slice(0, 35)}, "context": context}


LAYOUT = _layout()


def observation(rng, worlds, scale=1.0):
    """Random observations; q_ref and previous action anywhere in their range."""
    sizes = {"task_a": 34, "task_b": 35, "context": LAYOUT["context"]["reference"].stop}
    obs = {key: rng.uniform(-scale, scale, (worlds, size)) for key, size in sizes.items()}
    obs["context"][:, LAYOUT["context"]["reference"]] = rng.uniform(-1, 1, (worlds, 22))
    obs["context"][:, LAYOUT["context"]["previous_action"]] = rng.uniform(-1, 1, (worlds, 28))
    return {key: torch.tensor(value, dtype=torch.float32) for key, value in obs.items()}


def uniform(rng, *shape, scale=1.0):
    """Random numbers as a float32 tensor."""
    return torch.tensor(rng.uniform(-scale, scale, shape), dtype=torch.float32)


def every(worlds):
    """The mask that names all worlds."""
    return torch.ones(worlds, dtype=torch.bool)


def network(seed, observation_size, action_size, scale):
    """A network with random weights of the given size, as far from zero as wanted."""
    torch.manual_seed(seed)
    made = ActorCritic(observation_size, action_size, hidden=(16,))
    for parameter in made.parameters():
        torch.nn.init.normal_(parameter, std=scale)
    return made


class RepeatingPolicy:
    """Deterministic stand-in for pi_B: repeats the joint positions shifted by the seed; worlds are named by masks."""

    def reset(self, num_envs):
        self.seeds = torch.zeros(num_envs, dtype=torch.long)
        self.acted = torch.zeros(num_envs, dtype=torch.long)

    def seed_envs(self, seeds, env_ids=None):
        self.seeds = torch.where(env_ids, seeds, self.seeds)

    def reset_envs(self, env_ids):
        """Nothing to forget."""

    def hide_fingers(self, fingers):
        self.hidden = tuple(fingers)

    def act(self, task_obs, env_ids=None):
        assert len(task_obs) == len(env_ids)
        self.acted = self.acted + env_ids
        action = (task_obs[:, :28] + 0.01 * self.seeds[:, None]).clamp(-1, 1)
        return torch.where(env_ids[:, None], action, torch.nan)  # whatever stands still means nothing


class TensorEnv:
    """A NumPy vector environment in the manner of a GPU's: tensors in and out, final observations at every step."""

    def __init__(self, env):
        self.env, self.device = env, torch.device("cpu")

    def __getattr__(self, name):
        return getattr(self.env.unwrapped, name)

    @property
    def unwrapped(self):
        return self

    def reset(self, seed):
        with HostReads.allowed():
            return self._tensors(self.env.reset(seed=seed))

    def step(self, action):
        assert isinstance(action, Tensor)
        with HostReads.allowed():
            obs, reward, terminated, truncated, info = self.env.step(action.numpy())
            ended = terminated | truncated
            present = {key: value for key, value in info.items() if "final" not in key}
            info = {"final_obs": obs, "final_info": present, "_final_obs": ended, "_final_info": ended, **info}
            return self._tensors((obs, reward.astype(np.float32), terminated, truncated, info))

    def close(self):
        self.env.close()

    def _tensors(self, value):
        if isinstance(value, dict):
            return {key: self._tensors(item) for key, item in value.items()}
        return tuple(map(self._tensors, value)) if isinstance(value, tuple) else torch.from_numpy(value.copy())
