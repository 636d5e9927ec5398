import gymnasium as gym
import numpy as np
import pytest
from gymnasium.error import ResetNeeded
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dexcompose_envs.hand import FINGERS, NUM_ACTIONS, NUM_WRIST, OPEN_FINGERS, normalize
from dexcompose_envs.ownership import FingerMask
from dexcompose_envs.wrappers import ActionOwnership, ActionOwnershipVector, BoundedResidual, BoundedResidualVector

masks = st.sets(st.sampled_from(FINGERS), min_size=1).map(lambda fingers: FingerMask(tuple(fingers)))
open_normalised = normalize(np.concatenate([np.zeros(NUM_WRIST), OPEN_FINGERS]))[NUM_WRIST:].astype(np.float32)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(mask=masks, seed=st.integers(0, 2**31))
def test_agent_and_reference_partition_the_executed_action(fake_env, mask, seed):
    env = ActionOwnership(fake_env(), mask)
    obs, _ = env.reset(seed=seed)
    env.action_space.seed(seed)
    action = env.action_space.sample()
    env.step(action)
    executed = env.unwrapped.worlds.executed[0][0]
    assert action.shape == (NUM_ACTIONS - mask.joint_mask().sum(),)
    np.testing.assert_array_equal(executed[mask.action_mask_b()], action)
    np.testing.assert_array_equal(executed[NUM_WRIST:][mask.joint_mask()], obs["context"][2:][mask.joint_mask()])


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(mask=masks, num_envs=st.integers(1, 4))
def test_world_of_the_vector_twin_equals_the_single_wrapper(fake_env, fake_venv, mask, num_envs):
    venv = ActionOwnershipVector(fake_venv(num_envs, lengths=2), mask)
    envs = [ActionOwnership(fake_env(2), mask) for _ in range(num_envs)]
    venv.reset(seed=7)
    for i, env in enumerate(envs):
        env.reset(seed=7 + i)
    venv.action_space.seed(0)
    for _ in range(5):  # passes two autoresets
        actions = venv.action_space.sample()
        venv.step(actions)
        for env, action in zip(envs, actions, strict=True):
            if env.step(action)[3]:
                env.reset()
    for i, env in enumerate(envs):
        expected = [executed[0] for executed in env.unwrapped.worlds.executed]
        np.testing.assert_array_equal([executed[i] for executed in venv.unwrapped.worlds.executed], expected)


def test_preserved_joints_follow_constant_angles(fake_env):
    env = ActionOwnership(fake_env(scratch=True), "ff", reference=OPEN_FINGERS)
    env.reset()
    env.step(np.zeros(24))
    executed = env.unwrapped.worlds.executed[0][0]
    np.testing.assert_array_equal(executed[6:10], open_normalised[:4])
    np.testing.assert_array_equal(np.delete(executed, range(6, 10)), 0.0)


def test_preserved_joints_follow_a_function_of_the_observation(fake_venv):
    def reference(obs):  # rad, beyond the range for world 2
        return OPEN_FINGERS + np.array([0.0, 0.0, 100.0])[:, None] * np.ones_like(obs["context"][:, 2:])

    venv = ActionOwnershipVector(fake_venv(3), FingerMask.all_fingers(), reference)
    venv.reset()
    venv.step(np.zeros((3, 6), np.float32))
    executed = venv.unwrapped.worlds.executed[0][:, NUM_WRIST:]
    np.testing.assert_array_equal(executed, [open_normalised, open_normalised, np.ones(22)])


@pytest.mark.parametrize("mode", AutoresetMode)
def test_the_reference_is_told_which_worlds_start_again(fake_venv, counting_policy, mode):
    class Reference(counting_policy):
        def __call__(self, obs):
            return np.minimum(self.act(obs["task_b"])[:, :22], OPEN_FINGERS + 1)

    reference = Reference()
    venv = ActionOwnershipVector(fake_venv(2, [2, 3], mode), "TH", reference)
    venv.reset(seed=5)
    assert reference.seeds == [5, 6]
    counters = []
    for _ in range(6):
        counters.append(reference.counter.tolist())
        *_, done, _ = venv.step(np.zeros((2, 23)))
        if mode is AutoresetMode.DISABLED and done.any():
            venv.reset(options={"reset_mask": done})
    with_reset_step = [[0, 0], [1, 1], [2, 2], [0, 3], [1, 0], [2, 1]]
    at_once = [[0, 0], [1, 1], [0, 2], [1, 0], [0, 1], [1, 2]]
    assert counters == (with_reset_step if mode is AutoresetMode.NEXT_STEP else at_once)


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_wrapped_env_passes_the_gymnasium_checker(fake_env):
    env = ActionOwnership(fake_env(), "TH+FF")
    check_env(env, skip_render_check=True)
    assert env.action_space == gym.spaces.Box(-1, 1, (19,), np.float32)
    assert env.action_indices.tolist() == [*range(6), *range(10, 23)]


def test_constructor_arguments_are_recorded(fake_env):
    env = ActionOwnership(fake_env(), FingerMask.parse("th+ff"))
    assert env._saved_kwargs == {"mask": "TH+FF", "reference": "hold"}
    again = ActionOwnership(fake_env(), **env._saved_kwargs)
    assert again.mask == env.mask


@pytest.mark.parametrize(
    ("mask", "reference", "message"),
    [
        ("TH+XX", "hold", "unknown finger 'XX'"),
        ("TH", "grip", "reference is 'grip'"),
        ("TH", ["a"] * 22, r"reference \(rad\) is \['a', .*\]; expected numbers of shape \(22,\)"),
        ("TH", np.zeros(28), r"reference \(rad\) has shape \(28,\); expected \(22,\)"),
        ("TH", np.full(22, np.nan), r"reference \(rad\) is nan at index \(0,\)"),
        ("TH", np.full(22, 0.7), "reference of FFJ3 is 0.7 rad; expected -0.349 to 0.349"),
    ],
)
def test_bad_arguments_are_refused(fake_env, fake_venv, mask, reference, message):
    with pytest.raises(ValueError, match=message):
        ActionOwnership(fake_env(), mask, reference)
    with pytest.raises(ValueError, match=message):
        ActionOwnershipVector(fake_venv(), mask, reference)


@pytest.mark.parametrize(
    ("action", "message"),
    [
        (np.zeros(28), r"action has shape \(28,\); expected \(19,\)"),
        (np.zeros((1, 19)), r"action has shape \(1, 19\); expected \(19,\)"),
        (np.where(np.arange(19) == 3, np.inf, 0), r"action is inf at index \(3,\); expected finite"),
        (np.full(19, np.nan), "action is nan"),
    ],
)
def test_bad_actions_are_refused(fake_env, action, message):
    env = ActionOwnership(fake_env(), "TH+FF")
    env.reset()
    with pytest.raises(ValueError, match=message):
        env.step(action)
    assert not env.unwrapped.worlds.executed


def test_a_start_from_scratch_has_no_hold_to_follow(fake_env):
    env = ActionOwnership(fake_env(scratch=True), "TH")
    env.reset()
    with pytest.raises(ValueError, match="expected a start from a held state"):
        env.step(np.zeros(23))


def test_a_scene_without_a_held_object_has_no_reference(fake_env):
    env = fake_env()
    env.layout = {"task_b": env.layout["task_b"], "context": {"clock": slice(0, 24)}}
    with pytest.raises(ValueError, match="observes no reference"):
        ActionOwnership(env, "TH")


def test_a_reference_of_the_wrong_shape_is_refused(fake_venv):
    venv = ActionOwnershipVector(fake_venv(3), "TH", lambda obs: np.zeros((2, 22)))
    venv.reset()
    with pytest.raises(
        ValueError, match=r"reference function's result \(rad\) has shape \(2, 22\); expected \(3, 22\)"
    ):
        venv.step(np.zeros((3, 23)))


def test_wrong_order_of_wrappers_is_refused(fake_env, fake_venv):
    with pytest.raises(ValueError, match="put BoundedResidual around ActionOwnership"):
        ActionOwnership(BoundedResidual(fake_env(), lambda obs: np.zeros(28), 0.1), "TH")
    with pytest.raises(ValueError, match="put BoundedResidual around ActionOwnership"):
        ActionOwnershipVector(BoundedResidualVector(fake_venv(), lambda obs: np.zeros(28), 0.1), "TH")
    with pytest.raises(ValueError, match="expected all 28 joint targets"):
        ActionOwnership(ActionOwnership(fake_env(), "TH"), "TH")


def test_step_before_reset_is_refused(fake_env):
    with pytest.raises(ResetNeeded, match="step was called before reset"):
        ActionOwnership(fake_env(), "TH").step(np.zeros(23))
