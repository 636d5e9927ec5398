"""A toy skill: a point on a line walks to its goal. Observation (position, goal, 0), action (velocity)."""

import numpy as np
from torch.utils._python_dispatch import TorchDispatchMode

from dexcompose_agents.diffusion.config import NetworkConfig, TrainingConfig

STEP = 0.1
NETWORK = NetworkConfig(
    widths=(32, 32),
    step_embedding_size=16,
    observation_embedding_size=32,
    observation_horizon=2,
    action_horizon=8,
    fold=2,
    execute_steps=4,
    inference_steps=5,
    diffusion_steps=50,
)
TRAINING = TrainingConfig(network=NETWORK, steps=700, batch_size=128, learning_rate=4e-3, warmup_steps=20)
QUICK = TrainingConfig(network=NETWORK, steps=12, batch_size=16, warmup_steps=2, obs_noise=0.01)


def expert(position, goal):
    return np.clip(5.0 * (goal - position), -1.0, 1.0)


def observe(position, goal):
    return np.stack([position, goal, np.zeros_like(goal)], axis=-1).astype(np.float32)


def episodes(count=40, length=30, seed=0):
    rng = np.random.default_rng(seed)
    made = []
    for _ in range(count):
        position, goal = rng.uniform(-1, 1, 2)
        observations, actions = [], []
        for _ in range(length):
            observations.append(observe(position, goal))
            actions.append([expert(position, goal)])
            position = position + STEP * actions[-1][0]
        made.append({"obs": np.array(observations), "action": np.array(actions, np.float32)})
    return made


def rollout(policy, seeds, length=30):
    """Runs one world per seed; start and goal come from the seed. Returns actions (length, n) and final errors (n,)."""
    start, goal = np.array([np.random.default_rng(seed).uniform(-0.9, 0.9, 2) for seed in seeds]).T
    policy.reset(len(seeds))
    policy.seed_envs(seeds)
    position, actions = start, []
    for _ in range(length):
        actions.append(policy.act(observe(position, goal))[:, 0])
        position = position + STEP * actions[-1]
    return np.array(actions), np.abs(position - goal)


class Operations(TorchDispatchMode):
    """Writes down which operations of torch ran."""

    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        self.names.append(operation.overloadpacket.__name__)
        return operation(*args, **(kwargs or {}))
