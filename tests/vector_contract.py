"""What every engine keeps of the vector environments' contract, in one place; see `check_vector_env`."""

import numpy as np

from dexcompose_envs import OUTCOMES
from dexcompose_envs.arrays import to_numpy
from dexcompose_envs.hand import NUM_ACTIONS
from dexcompose_envs.skills import make_skill

INFO = {
    "success", "is_success", "task_a_held", "outcome", "elapsed_steps", "unstable", "object_turn", "approach",
    "reward_terms/retention", "reward_terms/progress", "reward_terms/success", "reward_terms/lost",
}  # fmt: skip


def stay(venv, obs):
    """Actions (N, 28) that repeat the last ones."""
    return to_numpy(obs["context"])[:, venv.layout["context"]["previous_action"]]


def check_vector_env(venv, name, seed=3, steps=50):
    """Resets, steps and resets a vector environment again, and looks at all that comes back.

    Args:
        venv: Of SAME_STEP autoreset, unwrapped.
        name: Its skills, such as "GraspBall-PushButton".
        seed: Of world 0.
        steps: Control steps between the resets.
    """
    n = venv.num_envs
    assert venv.observation_space.spaces.keys() == venv.layout.keys()
    assert set(venv.layout) == {"context"} | {make_skill(skill).observation_key for skill in name.split("-")}
    assert venv.action_space.shape == (n, NUM_ACTIONS)
    first, info = venv.reset(seed=seed)
    check_observation(venv, first)
    check_info(info, n)
    assert (to_numpy(info["elapsed_steps"]) == 0).all() and not to_numpy(info["success"]).any()

    rng, obs = np.random.default_rng(seed), first
    before = venv.get_state()
    for _ in range(steps):
        action = np.clip(stay(venv, obs) + 0.01 * rng.normal(size=(n, NUM_ACTIONS)), -1, 1).astype(np.float32)
        obs, reward, terminated, truncated, info = venv.step(action)
        assert reward.shape == terminated.shape == truncated.shape == (n,)
        assert np.isfinite(to_numpy(reward)).all()
        final = info.get("final_info", info)
        terms = sum(to_numpy(value) for key, value in final.items() if key.startswith("reward_terms/"))
        np.testing.assert_allclose(to_numpy(reward), terms, atol=1e-5)
        check_observation(venv, obs)
        check_info(info, n)
        assert not to_numpy(final["unstable"]).any()
    assert not all(np.array_equal(to_numpy(obs[key]), to_numpy(first[key])) for key in obs)

    again, info = venv.reset(seed=seed)
    for key in first:
        np.testing.assert_array_equal(to_numpy(again[key]), to_numpy(first[key]), err_msg=key)
    check_info(info, n)
    np.testing.assert_array_equal(to_numpy(venv.get_state()), to_numpy(before))


def check_observation(venv, obs):
    """Shapes, type and finiteness of an observation."""
    assert obs.keys() == venv.observation_space.spaces.keys()
    for key, space in venv.observation_space.spaces.items():
        value = to_numpy(obs[key])
        assert value.shape == space.shape and value.dtype == np.float32
        assert np.isfinite(value).all(), key


def check_info(info, n):
    """Names and shapes of an info."""
    assert set(info) >= INFO
    assert all(to_numpy(info[name]).shape == (n,) for name in INFO)
    outcome = to_numpy(info["outcome"])
    assert ((outcome >= 0) & (outcome < len(OUTCOMES))).all()
