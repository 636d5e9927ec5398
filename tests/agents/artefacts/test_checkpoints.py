"""Checkpoints: any state of training comes back as it was, to the run that it belongs to and no other."""

import pickle

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dexcompose_agents.artefacts.checkpoints import load_state, save_state
from dexcompose_envs.artefacts import ArtefactError

IDENTITY = {"skill": "GraspBall", "masks": ("TH+MF", "TH"), "ppo": {"learning_rate": 1e-3, "hidden": (8, 8)}}

tensors = st.builds(
    lambda shape, dtype, seed: (torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * 9).to(dtype),
    st.lists(st.integers(0, 3), max_size=3).map(tuple),
    st.sampled_from([torch.float32, torch.float64, torch.float16, torch.int64, torch.uint8, torch.bool]),
    st.integers(0, 9),
)
leaves = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | tensors
keys = st.text() | st.integers()
states = st.recursive(
    leaves,
    lambda inner: st.lists(inner) | st.lists(inner).map(tuple) | st.dictionaries(keys, inner, max_size=4),
    max_leaves=12,
)


def same(a, b):
    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict):
        return isinstance(b, dict) and list(a) == list(b) and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return type(a) is type(b) and len(a) == len(b) and all(map(same, a, b))
    return type(a) is type(b) and a == b


@given(st.dictionaries(keys, states, max_size=4))
def test_any_state_comes_back_as_it_was(tmp_path_factory, state):
    path = tmp_path_factory.mktemp("state") / "run.v1.checkpoint"
    save_state(path, state, IDENTITY)
    assert same(load_state(path, IDENTITY), state)


def test_a_model_and_its_optimiser_go_on_as_if_never_stopped(tmp_path):
    def make():
        torch.manual_seed(0)
        network = torch.nn.Linear(3, 2)
        return network, torch.optim.AdamW(network.parameters(), lr=0.1, fused=True)

    def advance(network, optimiser):
        optimiser.zero_grad()
        network(torch.ones(4, 3)).square().sum().backward()
        optimiser.step()

    network, optimiser = make()
    advance(network, optimiser)
    save_state(tmp_path / "s", {"network": network.state_dict(), "optimiser": optimiser.state_dict()}, IDENTITY)
    advance(network, optimiser)
    again, its_optimiser = make()
    state = load_state(tmp_path / "s", IDENTITY)
    again.load_state_dict(state["network"])
    its_optimiser.load_state_dict(state["optimiser"])
    advance(again, its_optimiser)
    assert torch.equal(again.weight, network.weight)


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({**IDENTITY, "masks": ["TH+LF", "TH"]}, r"identity\.masks is \['TH\+MF', 'TH'\]; expected \['TH\+LF', 'TH'\]"),
        ({**IDENTITY, "skill": "PickStick"}, r"identity\.skill is 'GraspBall'; expected 'PickStick'"),
        ({**IDENTITY, "ppo": {"learning_rate": 2e-3, "hidden": [8, 8]}}, r"identity\.ppo\.learning_rate is 0\.001"),
        ({**IDENTITY, "extra": 1}, r"identity\.extra is None; expected 1"),
        ({}, r"identity\.skill is 'GraspBall'; expected None"),
    ],
)
def test_the_state_of_another_run_is_refused_with_the_first_difference(tmp_path, other, message):
    save_state(tmp_path / "run.checkpoint", {"iteration": 3}, IDENTITY)
    with pytest.raises(ArtefactError, match=message) as error:
        load_state(tmp_path / "run.checkpoint", other)
    assert "run.checkpoint" in str(error.value) and "remove it to start afresh" in str(error.value)


def test_pickle_is_neither_written_nor_read(tmp_path):
    with pytest.raises(TypeError, match="state/policy is a Linear"):
        save_state(tmp_path / "s", {"policy": torch.nn.Linear(1, 1)}, {})
    (tmp_path / "s").write_bytes(pickle.dumps({"iteration": 1}))
    with pytest.raises(ArtefactError, match="foreign"):
        load_state(tmp_path / "s", {})
    torch.save({"iteration": 1}, tmp_path / "s")
    with pytest.raises(ArtefactError, match="foreign"):
        load_state(tmp_path / "s", {})
