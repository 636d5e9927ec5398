"""The vector wrappers around torch environments do what they do around NumPy ones, on the device."""

import numpy as np
import pytest
import torch
from gymnasium.vector import AutoresetMode
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from dexcompose_envs.hand import FINGERS, NUM_ACTIONS, OPEN_FINGERS
from dexcompose_envs.ownership import FingerMask
from dexcompose_envs.wrappers import ActionOwnershipVector, BoundedResidualVector, ToNumpy
from dexcompose_envs.wrappers.common import array_device

masks = st.sets(st.sampled_from(FINGERS), min_size=1).map(lambda fingers: FingerMask(tuple(fingers)))
drifting = OPEN_FINGERS + np.linspace(-0.5, 0.5, 66).reshape(3, 22)  # rad, partly out of range
references = st.sampled_from(["hold", OPEN_FINGERS, lambda obs: OPEN_FINGERS, lambda obs: drifting])
as_numpy, as_torch = np.asarray, torch.from_numpy


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    mask=masks,
    reference=references,
    base=arrays(np.float32, (3, NUM_ACTIONS), elements=st.floats(-2, 2, width=32)),
    bound=st.one_of(st.floats(0, 2, width=32), arrays(np.float32, NUM_ACTIONS, elements=st.floats(0, 2, width=32))),
    kinds=st.tuples(*[st.sampled_from([as_numpy, as_torch])] * 2),
    seed=st.integers(0, 2**31),
)
def test_torch_executes_the_bits_of_numpy(fake_venv, fake_torch_venv, mask, reference, base, bound, kinds, seed):
    as_residual, as_base = kinds
    residuals = np.random.default_rng(seed).normal(size=(4, 3, int(mask.action_mask_b().sum()))).astype(np.float32)
    executed = []
    for make, residual_kind, base_kind in [(fake_venv, as_numpy, as_numpy), (fake_torch_venv, as_residual, as_base)]:
        owned = ActionOwnershipVector(make(3, [2, 3, 4]), mask, reference)
        venv = BoundedResidualVector(owned, lambda obs, kind=base_kind: kind(base), bound)
        venv.reset(seed=seed)
        for residual in residuals:
            venv.step(residual_kind(residual))
        executed.append(np.stack(venv.unwrapped.worlds.executed))
    np.testing.assert_array_equal(executed[0], executed[1], strict=True)
    assert all(isinstance(actions, torch.Tensor) for actions in venv.unwrapped.seen_actions)


@pytest.mark.parametrize("reference", ["hold", OPEN_FINGERS, lambda obs: torch.zeros(2, 22, device="meta")])
def test_nothing_is_read_back_from_the_device(fake_torch_venv, reference):
    class Policy:
        worlds = None

        def reset_envs(self, worlds):
            self.worlds = worlds

        def act(self, task_obs):
            return torch.zeros(2, NUM_ACTIONS, device=task_obs.device)

    policy = Policy()
    venv = ActionOwnershipVector(fake_torch_venv(2, device="meta"), "TH+RF", reference)
    venv = BoundedResidualVector(venv, policy, 0.1)
    venv.reset(seed=0)
    for action in (torch.zeros(2, 19, device="meta"), np.zeros((2, 19))):
        venv.step(action)
        executed = venv.unwrapped.seen_actions[-1]
        assert (executed.device.type, executed.dtype, executed.shape) == ("meta", torch.float32, (2, NUM_ACTIONS))
    assert (policy.worlds.device.type, policy.worlds.dtype) == ("meta", torch.bool)


def test_constants_are_moved_once(fake_torch_venv):
    venv = ActionOwnershipVector(fake_torch_venv(2), "TH", OPEN_FINGERS)
    venv.reset()
    venv.step(torch.zeros(2, 23))
    constant = venv._preserver._constant
    moved = constant.like(torch.zeros(1))
    venv.step(torch.zeros(2, 23))
    assert constant.like(torch.zeros(1)) is moved


@pytest.mark.parametrize("mode", AutoresetMode)
@pytest.mark.parametrize("torch_mask", [False, True])
def test_policies_are_told_by_masks_which_worlds_start_again(fake_torch_venv, counting_policy, mode, torch_mask):
    policy = counting_policy()
    venv = BoundedResidualVector(ActionOwnershipVector(fake_torch_venv(2, [2, 3], mode), "TH+RF+LF"), policy, 0.1)
    venv.reset(seed=[11, 4])
    assert policy.seeds == [11, 4]
    counters = []
    for _ in range(6):
        *_, done, _ = venv.step(torch.zeros(2, 14))
        counters.append((policy.counter - 1).tolist())  # it counts after it acted
        if mode is AutoresetMode.DISABLED and done.any():
            venv.reset(options={"reset_mask": done if torch_mask else done.numpy()})
    assert policy.kind is torch.Tensor
    with_reset_step = [[0, 0], [1, 1], [2, 2], [0, 3], [1, 0], [2, 1]]
    at_once = [[0, 0], [1, 1], [0, 2], [1, 0], [0, 1], [1, 2]]
    assert counters == (with_reset_step if mode is AutoresetMode.NEXT_STEP else at_once)


@pytest.mark.parametrize("torch_mask", [False, True])
def test_a_reset_from_outside_takes_the_place_of_the_automatic_one(fake_torch_venv, counting_policy, torch_mask):
    policy = counting_policy()
    venv = BoundedResidualVector(fake_torch_venv(2, [1, 9], AutoresetMode.NEXT_STEP), policy, 0.1)
    venv.reset()
    *_, done, _ = venv.step(torch.zeros(2, NUM_ACTIONS))
    venv.reset(options={"reset_mask": done if torch_mask else done.numpy()})
    venv.step(torch.zeros(2, NUM_ACTIONS))
    assert policy.counter.tolist() == [1, 2]  # world 0 began again before the step, not once more after it


def test_bad_numbers_on_the_cpu_are_refused_in_the_same_words(fake_torch_venv):
    venv = ActionOwnershipVector(fake_torch_venv(2), "TH+FF")
    venv.reset()
    with pytest.raises(ValueError, match=r"action has shape \(2, 28\); expected \(2, 19\)"):
        venv.step(torch.zeros(2, 28))
    actions = torch.zeros(2, 19, dtype=torch.float64)
    actions[1, 3] = torch.inf
    with pytest.raises(ValueError, match=r"action is inf at index \(1, 3\); expected finite"):
        venv.step(actions)
    scratch = ActionOwnershipVector(fake_torch_venv(2, scratch=True), "TH")
    scratch.reset()
    with pytest.raises(ValueError, match="expected a start from a held state"):
        scratch.step(torch.zeros(2, 23))


def test_numpy_environments_take_torch_actions(fake_venv):
    venv = BoundedResidualVector(ActionOwnershipVector(fake_venv(2), "TH"), lambda obs: torch.zeros(28), 0.5)
    venv.reset()
    venv.step(torch.ones(2, 23, requires_grad=True))
    assert (venv.unwrapped.worlds.executed[0][:, :23] == 0.5).all()


def test_the_kind_of_arrays_is_known_through_wrappers(fake_venv, fake_torch_venv):
    assert array_device(ActionOwnershipVector(fake_venv(), "TH")) is None
    assert array_device(ActionOwnershipVector(fake_torch_venv(), "TH")) == torch.device("cpu")
    assert array_device(ActionOwnershipVector(ToNumpy(fake_torch_venv()), "TH")) is None
