import numpy as np
import pytest
import torch
from gymnasium.vector import AutoresetMode
from hypothesis import given, settings
from hypothesis import strategies as st

from dexcompose_envs.wrappers import ActionOwnershipVector, BoundedResidualVector, ToNumpy
from dexcompose_envs.wrappers.to_numpy import _fetch

shapes = st.lists(st.integers(0, 3), max_size=3)
dtypes = st.sampled_from([torch.float32, torch.float64, torch.bool, torch.uint8, torch.int64])
tensors = st.builds(lambda shape, dtype, seed: _random(shape, dtype, seed), shapes, dtypes, st.integers(0, 99))
nested = st.recursive(
    tensors | st.none(),
    lambda inner: st.dictionaries(st.text("ab"), inner, max_size=3) | st.tuples(inner, inner),
    max_leaves=8,
)


def _random(shape, dtype, seed):
    values = torch.rand(shape, generator=torch.Generator().manual_seed(seed)) * 9
    return values.to(dtype).mT if len(shape) == 2 else values.to(dtype)  # transposed: not contiguous


def leaves(values):
    if isinstance(values, dict | tuple):
        return [leaf for value in (values.values() if isinstance(values, dict) else values) for leaf in leaves(value)]
    return [values]


@settings(deadline=None)
@given(values=nested)
def test_every_tensor_becomes_its_own_equal_array(values):
    arrays = _fetch(values)
    tensors = leaves(values)
    fetched = leaves(arrays)
    assert len(tensors) == len(fetched)
    for tensor, array in zip(tensors, fetched, strict=True):
        if tensor is None:
            assert array is None
            continue
        np.testing.assert_array_equal(array, tensor.numpy(), strict=True)
        assert array.flags.writeable
        assert array.flags.aligned
        tensor.bitwise_not_() if tensor.dtype is torch.bool else tensor.add_(1)
        array[...] = 7  # not seen by the arrays that follow
    for tensor, array in zip(tensors, fetched, strict=True):
        if array is not None:
            np.testing.assert_array_equal(array, np.full(array.shape, 7).astype(array.dtype), strict=True)
            assert not np.shares_memory(array, tensor.numpy())


def test_it_gives_what_the_numpy_environment_gives(fake_venv, fake_torch_venv):
    venvs = [fake_venv(3, [2, 3, 4]), ToNumpy(fake_torch_venv(3, [2, 3, 4]))]
    actions = np.random.default_rng(0).uniform(-1, 1, (3, 28)).astype(np.float32)
    expected, given_ = (venv.reset(seed=3) for venv in venvs)
    np.testing.assert_equal(given_, expected)
    for _ in range(5):
        expected, given_ = (venv.step(actions) for venv in venvs)
        assert given_[1].dtype == np.float32
        np.testing.assert_equal(given_[:4], expected[:4])
        ended = expected[3]
        assert given_[4]["_final_obs"].tolist() == ended.tolist()
        if ended.any():
            np.testing.assert_equal(given_[4], expected[4])


def test_arrays_outlive_the_tensors_they_came_from(fake_torch_venv):
    inner = fake_torch_venv(2, 1)
    venv = ToNumpy(inner)
    results = (venv.reset(seed=0), venv.step(np.zeros((2, 28), np.float32)), venv.get_state())
    before = [np.copy(array) for array in leaves(results)]
    for tensor in inner.returned:
        tensor.zero_()
    for array, copy in zip(leaves(results), before, strict=True):
        np.testing.assert_array_equal(array, copy)
    assert results[1][4]["final_info"]["is_success"].tolist() == [True, False]


def test_options_pass_unchanged(fake_torch_venv):
    inner = fake_torch_venv(2)
    mask = np.array([True, False])
    ToNumpy(inner).reset(seed=1, options={"reset_mask": mask, "start": "scratch", "held_index": mask})
    assert inner.seen_options == {"start": "scratch", "held_index": mask}
    assert inner.seen_options["held_index"] is mask


def test_state_goes_in_and_out_as_numpy(fake_torch_venv):
    inner = fake_torch_venv(2)
    venv = ToNumpy(ActionOwnershipVector(inner, "TH"))
    venv.reset(seed=0)
    state = venv.get_state()
    np.testing.assert_array_equal(state, np.zeros((2, 1)), strict=True)
    venv.set_state(state + 3, np.array([False, True]))
    assert inner.worlds.clock.tolist() == [0, 3]
    venv.set_state(state)
    assert inner.worlds.clock.tolist() == [0, 0]


def test_it_is_transparent_and_stands_inside_or_outside_other_wrappers(fake_torch_venv, counting_policy):
    inner = fake_torch_venv(2, autoreset_mode=AutoresetMode.NEXT_STEP)
    venv = BoundedResidualVector(ToNumpy(ActionOwnershipVector(inner, "TH")), counting_policy(), 0.1)
    assert venv.unwrapped is inner
    assert venv.metadata is inner.metadata
    assert venv.single_action_space.shape == (23,)
    venv.reset(seed=0)
    obs, *_ = venv.step(np.zeros((2, 23), np.float32))
    assert isinstance(obs["context"], np.ndarray)


def test_numpy_environments_are_refused(fake_venv, fake_torch_venv):
    with pytest.raises(ValueError, match="gives NumPy arrays already; ToNumpy expected torch tensors"):
        ToNumpy(fake_venv())
    with pytest.raises(ValueError, match="gives NumPy arrays already"):
        ToNumpy(ToNumpy(fake_torch_venv()))
