"""A stand-in for the environments: their spaces, layout, info and autoreset, with a counter instead of physics."""

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

from dexcompose_envs.hand import NUM_ACTIONS, NUM_FINGER_JOINTS

OBSERVATION_SPACE = gym.spaces.Dict(
    {
        "task_b": gym.spaces.Box(-np.inf, np.inf, (35,), np.float32),
        "context": gym.spaces.Box(-np.inf, np.inf, (2 + NUM_FINGER_JOINTS,), np.float32),
    }
)
LAYOUT = {
    "task_b": {"joint_position": slice(0, 28), "button": slice(28, 35)},
    "context": {"clock": slice(0, 2), "reference": slice(2, 24)},
}
ACTION_SPACE = gym.spaces.Box(-1.0, 1.0, (NUM_ACTIONS,), np.float32)
INTERACTION_ALONE = (None, ("task_b",), np.zeros((1, NUM_ACTIONS)), np.zeros((1, NUM_ACTIONS)))


class FakeWorlds:
    """N worlds: an episode of world i lasts `lengths[i]` steps and its reference is drawn from its own generator."""

    def __init__(self, num_envs, lengths, scratch):
        self.lengths = np.broadcast_to(lengths, (num_envs,))
        self.scratch = scratch
        self.generators = [np.random.default_rng(i) for i in range(num_envs)]
        self.clock = np.zeros(num_envs, dtype=int)
        self.episode = np.zeros(num_envs, dtype=int)
        self.reference = np.zeros((num_envs, NUM_FINGER_JOINTS), dtype=np.float32)
        self.executed = []

    def reset(self, mask, seeds=None):
        for i in np.flatnonzero(mask):
            if seeds is not None:
                self.generators[i] = np.random.default_rng(seeds[i])
                self.episode[i] = 0
            self.clock[i] = 0
            self.episode[i] += 1
            drawn = self.generators[i].uniform(-1, 1, NUM_FINGER_JOINTS).astype(np.float32)
            self.reference[i] = 0 if self.scratch else drawn

    def step(self, actions, mask):
        assert ACTION_SPACE.dtype == actions.dtype
        self.executed.append(actions.copy())
        self.clock += mask
        return self.clock >= self.lengths

    def observation(self):
        time = np.stack([self.clock, self.episode], -1)
        task = np.repeat(time[:, :1], 35, axis=1) / 100
        context = np.concatenate([time, self.reference], -1)
        return {"task_b": task.astype(np.float32), "context": context.astype(np.float32)}


class FakeHandEnv(gym.Env):
    metadata = {"render_modes": []}  # noqa: RUF012
    observation_space, action_space, layout = OBSERVATION_SPACE, ACTION_SPACE, LAYOUT
    retention, task_keys, interaction_starts, interaction_offsets = INTERACTION_ALONE

    def __init__(self, length=5, scratch=False):
        self.worlds = FakeWorlds(1, length, scratch)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.worlds.reset([True], None if seed is None else [seed])
        return {key: value[0] for key, value in self.worlds.observation().items()}, {}

    def step(self, action):
        done = self.worlds.step(action[None], np.array([True]))
        obs = {key: value[0] for key, value in self.worlds.observation().items()}
        return obs, 1.0, False, bool(done[0]), {"is_success": bool(done[0])}


class FakeHandVectorEnv(VectorEnv):
    single_observation_space, single_action_space, layout = OBSERVATION_SPACE, ACTION_SPACE, LAYOUT
    retention, task_keys, interaction_starts, interaction_offsets = INTERACTION_ALONE

    def __init__(self, num_envs=3, lengths=5, autoreset_mode=AutoresetMode.SAME_STEP, scratch=False, final_obs="dict"):
        self.num_envs = num_envs
        self.metadata = {"autoreset_mode": autoreset_mode}
        self.observation_space = batch_space(OBSERVATION_SPACE, num_envs)
        self.action_space = batch_space(ACTION_SPACE, num_envs)
        self.worlds = FakeWorlds(num_envs, lengths, scratch)
        self.finished = np.zeros(num_envs, dtype=bool)
        self.final_obs = final_obs

    def reset(self, *, seed=None, options=None):
        options = dict(options or {})
        mask = options.pop("reset_mask", np.ones(self.num_envs, dtype=bool))
        if "state" in options:
            self.worlds.clock[mask] = np.asarray(options["state"])[mask, 0]
            return self.worlds.observation(), {}
        seeds = [seed + i for i in range(self.num_envs)] if isinstance(seed, int) else seed
        self.worlds.reset(mask, seeds)
        self.finished[mask] = False
        self.seen_seed, self.seen_options = seed, options
        return self.worlds.observation(), {}

    def step(self, actions):
        mode = self.metadata["autoreset_mode"]
        resetting = self.finished if mode is AutoresetMode.NEXT_STEP else np.zeros(self.num_envs, dtype=bool)
        done = self.worlds.step(actions, ~resetting) & ~resetting
        reward = np.where(resetting, 0.0, 1.0 + np.arange(self.num_envs))
        info = {"is_success": done & (np.arange(self.num_envs) % 2 == 0)}
        if mode is AutoresetMode.SAME_STEP and done.any():
            final = self.worlds.observation()
            if self.final_obs == "objects":  # as gymnasium's SyncVectorEnv does it
                worlds = [{k: v[i] for k, v in final.items()} if done[i] else None for i in range(self.num_envs)]
                final = np.array(worlds, dtype=object)
            info = {"final_obs": final, "_final_obs": done, "final_info": info, "_final_info": done}
            self.worlds.reset(done)
        self.worlds.reset(resetting)
        self.finished = done.copy()
        return self.worlds.observation(), reward, np.zeros(self.num_envs, dtype=bool), done, info


class FakeTorchVectorEnv(FakeHandVectorEnv):
    """The same worlds as the warp backend gives them: tensors, and `final_*` at every step.

    On the device "meta" tensors have no values, so that whatever reads one back fails, as it would stall a GPU.
    """

    def __init__(self, *args, device="cpu", **kwargs):
        super().__init__(*args, **kwargs)
        self.device = torch.device(device)
        self.returned, self.seen_actions = [], []

    def reset(self, *, seed=None, options=None):
        options = dict(options or {})
        if "reset_mask" in options:
            options["reset_mask"] = np.asarray(options["reset_mask"])
        return self._tensors(super().reset(seed=seed, options=options))

    def step(self, actions):
        self.seen_actions.append(actions)
        on_meta = self.device.type == "meta"
        actions = np.zeros(self.action_space.shape, np.float32) if on_meta else np.asarray(actions)
        obs, reward, terminated, truncated, info = super().step(actions)
        if self.metadata["autoreset_mode"] is AutoresetMode.SAME_STEP and "final_obs" not in info:
            info |= {"final_obs": obs, "_final_obs": truncated, "final_info": dict(info), "_final_info": truncated}
        return self._tensors((obs, reward.astype(np.float32), terminated, truncated, info))

    def get_state(self):
        return self._tensors(self.worlds.clock.astype(np.float64)[:, None])

    def set_state(self, state, mask=None):
        chosen = slice(None) if mask is None else mask
        self.worlds.clock[chosen] = np.asarray(state)[chosen, 0]

    def _tensors(self, values):
        if isinstance(values, dict):
            return {key: self._tensors(value) for key, value in values.items()}
        if isinstance(values, tuple):
            return tuple(self._tensors(value) for value in values)
        self.returned.append(torch.tensor(values, device=self.device))
        return self.returned[-1]


class CountingPolicy:
    """A base policy with a counter per world, so that missed and doubled resets and calls show in its actions."""

    def __init__(self):
        self.calls = 0
        self.counter = np.zeros(0, dtype=int)
        self.seeds = None

    def reset(self, num_envs):
        self.counter = np.zeros(num_envs, dtype=int)

    def reset_envs(self, env_ids):
        self.counter[env_ids] = 0

    def seed_envs(self, seeds):
        self.seeds = np.asarray(seeds).tolist()

    def act(self, task_obs):
        assert task_obs.shape == (len(self.counter), 35)
        self.calls += 1
        self.kind = type(task_obs)
        actions = np.repeat(self.counter[:, None] / 100, NUM_ACTIONS, axis=1).astype(np.float32)
        self.counter += 1
        return actions


@pytest.fixture
def fake_env():
    return FakeHandEnv


@pytest.fixture
def fake_venv():
    return FakeHandVectorEnv


@pytest.fixture
def fake_torch_venv():
    return FakeTorchVectorEnv


@pytest.fixture
def counting_policy():
    return CountingPolicy
