import numpy as np
import pytest
from gymnasium.error import ResetNeeded
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from dexcompose_envs.hand import NUM_ACTIONS
from dexcompose_envs.ownership import FingerMask
from dexcompose_envs.wrappers import ActionOwnership, ActionOwnershipVector, BoundedResidual, BoundedResidualVector

fixtures_are_factories = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
anything = st.floats(-1e6, 1e6, width=32)
actions_28 = arrays(np.float32, NUM_ACTIONS, elements=anything)
bounds = st.one_of(st.floats(0, 2, width=32), arrays(np.float32, NUM_ACTIONS, elements=st.floats(0, 2, width=32)))


@fixtures_are_factories
@given(base=actions_28, residual=actions_28, bound=bounds)
def test_the_residual_stays_in_its_bound_whatever_base_and_network_say(fake_env, base, residual, bound):
    env = BoundedResidual(fake_env(), lambda obs: base, bound)
    env.reset()
    env.step(residual)
    executed = env.unwrapped.worlds.executed[0][0]
    assert (np.abs(executed) <= 1).all()
    nominal = np.clip(base, -1, 1)
    assert (np.abs(executed.astype(np.float64) - nominal) <= np.asarray(bound, np.float64) + 1e-6).all()


@fixtures_are_factories
@given(base=actions_28, bound=bounds)
def test_a_zero_residual_executes_exactly_the_nominal_action(fake_env, fake_venv, base, bound):
    env = BoundedResidual(fake_env(), lambda obs: base, bound)
    env.reset()
    env.step(np.zeros(NUM_ACTIONS))
    np.testing.assert_array_equal(env.unwrapped.worlds.executed[0][0], np.clip(base, -1, 1))
    venv = BoundedResidualVector(fake_venv(2), lambda obs: np.stack([base, -base]), bound)
    venv.reset()
    venv.step(np.zeros((2, NUM_ACTIONS)))
    np.testing.assert_array_equal(venv.unwrapped.worlds.executed[0], np.clip([base, -base], -1, 1))


@fixtures_are_factories
@given(
    fingers=st.sets(st.sampled_from(("FF", "MF", "RF", "LF", "TH")), min_size=1),
    base=arrays(np.float32, NUM_ACTIONS, elements=st.floats(-1, 1, width=32)),
    scale=st.floats(-1, 1, width=32),
)
def test_around_ownership_it_is_the_composition_of_eq_12(fake_env, fingers, base, scale):
    mask = FingerMask(tuple(fingers))
    bound = np.linspace(0, 0.3, NUM_ACTIONS, dtype=np.float32)
    env = BoundedResidual(ActionOwnership(fake_env(), mask), lambda obs: base, bound)
    obs, _ = env.reset(seed=0)
    assert env.action_space.shape == (mask.action_mask_b().sum(),)
    env.step(np.full(env.action_space.shape, scale, np.float32))
    held = np.concatenate([np.zeros(6, np.float32), obs["context"][2:]])
    nominal = np.clip(base + bound * np.float32(scale), -1, 1)
    expected = np.where(mask.action_mask_a(), held, nominal)
    np.testing.assert_array_equal(env.unwrapped.worlds.executed[0][0], expected)


def test_numbers_by_hand(fake_venv):
    venv = BoundedResidualVector(fake_venv(2), lambda obs: np.full(NUM_ACTIONS, 0.5), 0.25)
    venv.reset()
    residual = np.zeros((2, NUM_ACTIONS))
    residual[0, 3], residual[1, 4], residual[1, 5] = 1.0, -0.5, 40.0
    venv.step(residual)
    executed = venv.unwrapped.worlds.executed[0]
    assert executed[0, 3] == 0.75  # 0.5 + 0.25 * 1
    assert executed[1, 4] == 0.375  # 0.5 - 0.25 * 0.5
    assert executed[1, 5] == 0.75  # 40 is clipped to 1
    assert np.count_nonzero(executed == 0.5) == 2 * NUM_ACTIONS - 3


@pytest.mark.parametrize("mode", AutoresetMode)
def test_the_base_policy_acts_once_per_step_and_is_told_of_resets(fake_venv, counting_policy, mode):
    policy = counting_policy()
    venv = BoundedResidualVector(ActionOwnershipVector(fake_venv(2, [2, 3], mode), "TH+RF+LF"), policy, 0.1)
    venv.reset(seed=[11, 4])
    assert policy.seeds == [11, 4]
    for _ in range(6):
        *_, done, _ = venv.step(np.zeros((2, 14)))
        if mode is AutoresetMode.DISABLED and done.any():
            venv.reset(options={"reset_mask": done})
    assert policy.calls == 6
    with_reset_step = [[0, 0], [1, 1], [2, 2], [0, 3], [1, 0], [2, 1]]
    at_once = [[0, 0], [1, 1], [0, 2], [1, 0], [0, 1], [1, 2]]
    counters = np.array(with_reset_step if mode is AutoresetMode.NEXT_STEP else at_once)
    executed = np.array([actions[:, 0] for actions in venv.unwrapped.worlds.executed])
    np.testing.assert_allclose(executed, counters / 100, rtol=1e-6)


def test_a_single_env_uses_a_batched_policy(fake_env, counting_policy):
    policy = counting_policy()
    env = BoundedResidual(fake_env(2), policy, 0.1)
    for episode in range(2):
        env.reset(seed=episode)
        assert policy.seeds == [episode]
        for _ in range(2):
            env.step(np.zeros(NUM_ACTIONS))
    executed = [actions[0, 0] for actions in env.unwrapped.worlds.executed]
    np.testing.assert_allclose(executed, [0, 0.01, 0, 0.01], rtol=1e-6)


def test_base_policy_may_return_only_the_owned_dimensions(fake_venv):
    venv = BoundedResidualVector(ActionOwnershipVector(fake_venv(2), "TH"), lambda obs: np.full((2, 23), 0.25), 0.1)
    venv.reset()
    venv.step(np.zeros((2, 23)))
    assert (venv.unwrapped.worlds.executed[0][:, :23] == 0.25).all()


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_wrapped_env_passes_the_gymnasium_checker(fake_env):
    check_env(BoundedResidual(fake_env(), lambda obs: np.zeros(NUM_ACTIONS), 0.1), skip_render_check=True)


def test_constructor_arguments_are_recorded_without_copying_the_policy(fake_env, counting_policy):
    policy = counting_policy()
    env = BoundedResidual(fake_env(), policy, 0.1)
    assert env._saved_kwargs["base_policy"] is policy
    assert env._saved_kwargs["bound"] == 0.1


@pytest.mark.parametrize(
    ("bound", "message"),
    [
        (-0.1, "bound is -0.1"),
        (np.nan, "bound is nan"),
        (np.inf, "bound is inf"),
        (np.ones(22), r"bound has shape \(22,\); expected one number or 28"),
    ],
)
def test_bad_bounds_are_refused(fake_env, fake_venv, bound, message):
    with pytest.raises(ValueError, match=message):
        BoundedResidual(fake_env(), lambda obs: np.zeros(NUM_ACTIONS), bound)
    with pytest.raises(ValueError, match=message):
        BoundedResidualVector(fake_venv(), lambda obs: np.zeros(NUM_ACTIONS), bound)


@pytest.mark.parametrize(
    ("base", "message"),
    [
        (np.zeros(22), r"base policy's action has shape \(22,\); expected \(28,\)"),
        (np.zeros((2, 28)), r"base policy's action has shape \(2, 28\); expected \(1, 28\)"),
        (np.full(28, np.nan), r"base policy's action is nan at index \(0,\)"),
        (np.float32(0), r"base policy's action has shape \(\); expected \(1, 28\)"),
    ],
)
def test_bad_base_actions_are_refused(fake_env, base, message):
    env = BoundedResidual(fake_env(), lambda obs: base, 0.1)
    env.reset()
    with pytest.raises(ValueError, match=message):
        env.step(np.zeros(NUM_ACTIONS))


def test_bad_residuals_are_refused(fake_venv):
    venv = BoundedResidualVector(fake_venv(2), lambda obs: np.zeros(NUM_ACTIONS), 0.1)
    venv.reset()
    with pytest.raises(ValueError, match=r"residual action has shape \(28,\); expected \(2, 28\)"):
        venv.step(np.zeros(NUM_ACTIONS))
    with pytest.raises(ValueError, match=r"residual action is nan at index \(0, 0\)"):
        venv.step(np.full((2, NUM_ACTIONS), np.nan))


def test_bad_policies_and_stacks_are_refused(fake_env):
    with pytest.raises(ValueError, match="base_policy is None; expected a callable"):
        BoundedResidual(fake_env(), None, 0.1)
    inner = BoundedResidual(fake_env(), lambda obs: np.zeros(NUM_ACTIONS), 0.1)
    with pytest.raises(ValueError, match="expected one BoundedResidual only"):
        BoundedResidual(inner, lambda obs: np.zeros(NUM_ACTIONS), 0.1)


def test_step_before_reset_is_refused(fake_env):
    with pytest.raises(ResetNeeded, match="step was called before reset"):
        BoundedResidual(fake_env(), lambda obs: np.zeros(NUM_ACTIONS), 0.1).step(np.zeros(NUM_ACTIONS))
