"""Scripted parts in methods: by name, by class, beside weights, and told apart by what describes them."""

import json
from functools import partial

import gymnasium as gym
import numpy as np
import pytest
import torch

from dexcompose_agents import load_mask
from dexcompose_agents.evaluation.fingerprints import run_config
from dexcompose_agents.methods import CompositionSpec, make_method
from dexcompose_agents.methods.composed import ComposedMethod
from dexcompose_agents.scripted import ConstantSqueeze, Reflex, WristFeedback
from dexcompose_agents.scripted.squeeze import FIRM_ANGLE
from dexcompose_envs import env_id
from dexcompose_envs.artefacts import ArtefactError
from dexcompose_envs.composition.bounds import normalised
from dexcompose_envs.composition.task import CompositionTask
from dexcompose_envs.episodes.phases import HOLD_STEPS, INTERACT_FROM
from dexcompose_envs.errors import UsageError
from dexcompose_envs.hand import NUM_WRIST
from dexcompose_envs.wrappers import ActionOwnershipVector

EASY = {"mass": 0.5, "friction": 0.9}
PAIR = "GraspBall-PushButton"
LAYOUT = CompositionTask.of_name(PAIR).layout
NAMES = ("no-stabiliser", "constant-squeeze", "reflex", "oracle")


class StillPolicy:
    """A base policy that keeps everything in the middle of its range."""

    def act(self, task_obs):
        return torch.zeros(len(task_obs), 28)


def observation(num_envs):
    rng = np.random.default_rng(0)
    sizes = {key: max(columns.stop for columns in terms.values()) for key, terms in LAYOUT.items()}
    return {key: rng.uniform(-0.1, 0.1, (num_envs, size)).astype(np.float32) for key, size in sizes.items()}


def composed(**spec):
    return ComposedMethod("mine", CompositionSpec(mask="TH+MF+LF", **spec), PAIR, base_policy=StillPolicy())


def roll(method, obs, steps=INTERACT_FROM + 3):
    """Actions (steps, N, 28); the wrist trembles a little."""
    rng, actions = np.random.default_rng(1), []
    method.reset(obs, {}, np.arange(2), np.array([5, 6]))
    for _ in range(steps):
        tremor = torch.tensor(rng.normal(0.0, 0.005, (2, NUM_WRIST)), dtype=torch.float32)
        moved = obs["task_b"] + np.pad(tremor.numpy(), ((0, 0), (0, obs["task_b"].shape[1] - NUM_WRIST)))
        actions.append(np.asarray(method.act(obs | {"task_b": moved})))
    return np.stack(actions)


def test_scripted_methods_are_described_by_their_constants():
    made = [make_method(name, PAIR, base_policy=StillPolicy()) for name in NAMES]
    texts = {json.dumps(method.describe(), sort_keys=True) for method in made}
    assert len(texts) == len(NAMES)
    assert {method.mask for method in made} == {load_mask(PAIR)}
    oracle = make_method("oracle", PAIR, base_policy=StillPolicy()).describe()
    assert (oracle["stabiliser"]["angle"], oracle["residual"]["gain"]) == (FIRM_ANGLE, 1.0)
    constant = make_method("constant-squeeze", PAIR, base_policy=StillPolicy()).describe()
    assert constant["stabiliser"]["angle"] == 0.15 < FIRM_ANGLE
    angles = [composed(stabiliser=partial(ConstantSqueeze, angle=angle)).describe() for angle in (0.1, 0.12)]
    assert angles[0]["stabiliser"]["part"] == angles[1]["stabiliser"]["part"] and angles[0] != angles[1]


def test_an_evaluation_knows_the_source_of_scripted_parts():
    sources = {
        run_config(PAIR, composed(stabiliser=stabiliser, residual=residual), {}, {})["method"]["source"]
        for stabiliser, residual in [(None, None), ("constant-squeeze", None), (None, "wrist-feedback")]
    }
    assert len(sources) == 3


def test_who_moves_what():
    obs = observation(2)
    plain = roll(composed(stabiliser=None), obs)
    squeezed = roll(composed(stabiliser="constant-squeeze"), obs)
    fed_back = roll(composed(stabiliser=None, residual="wrist-feedback"), obs)
    preserved = composed(stabiliser=None).mask.action_mask_a()
    assert (squeezed != plain).any(axis=(0, 1))[preserved].any() and (squeezed == plain)[..., ~preserved].all()
    assert (fed_back == plain)[:INTERACT_FROM].all() and (fed_back == plain)[..., NUM_WRIST:].all()
    assert (fed_back != plain)[INTERACT_FROM:, :, :NUM_WRIST].all()
    both = roll(composed(stabiliser="constant-squeeze", residual="wrist-feedback"), obs)
    np.testing.assert_array_equal(both[..., NUM_WRIST:], squeezed[..., NUM_WRIST:])
    np.testing.assert_array_equal(both[..., :NUM_WRIST], fed_back[..., :NUM_WRIST])


@pytest.mark.parametrize("name", NAMES[1:])
def test_tensors_in_tensors_out_and_the_same_numbers(name):
    arrays = observation(2)
    tensors = {key: torch.from_numpy(value) for key, value in arrays.items()}
    actions = []
    for obs, kind in ((arrays, np.ndarray), (tensors, torch.Tensor)):
        method = make_method(name, PAIR, base_policy=StillPolicy())
        method.reset(obs, {}, np.arange(2), np.array([5, 6]))
        rolled = [method.act(obs) for _ in range(INTERACT_FROM + 2)]
        assert all(isinstance(action, kind) for action in rolled)
        actions.append(np.stack([np.asarray(action) for action in rolled]))
    np.testing.assert_array_equal(*actions)


def test_classes_and_makers_are_parts_too():
    by_name = composed(stabiliser="reflex", residual="wrist-feedback")
    by_maker = composed(stabiliser=Reflex, residual=WristFeedback.of_pair)
    assert by_name.describe() == by_maker.describe()
    assert by_maker.parts[0] is not composed(stabiliser=Reflex).parts[0]


def test_a_scripted_part_can_take_the_place_of_shipped_weights():
    method = make_method("zero-shot", PAIR, stabiliser="reflex", base_policy=StillPolicy())
    assert isinstance(method.parts[0], Reflex)


def test_a_word_that_names_no_part_is_refused_with_those_that_do():
    for role, known in (("stabiliser", "constant-squeeze, firm-squeeze, reflex"), ("residual", "wrist-feedback")):
        with pytest.raises(UsageError, match=f"{role} is 'reflexes'; expected 'shipped', one of {known}, or a file"):
            composed(**{role: "reflexes"})
    with pytest.raises(ArtefactError, match=r"reflexes\.safetensors"):
        composed(stabiliser="reflexes.safetensors")


def test_wrappers_take_a_scripted_stabiliser_as_reference():
    squeeze, mask = ConstantSqueeze(), load_mask(PAIR)
    venv = ActionOwnershipVector(gym.make_vec(env_id(PAIR), num_envs=2, physics=EASY), mask, reference=squeeze)
    obs, _ = venv.reset(seed=3)
    alone = ConstantSqueeze()
    alone.reset(obs, venv.unwrapped.layout, np.ones(2, bool), mask)
    terms = venv.unwrapped.layout["context"]
    stay = obs["context"][:, terms["previous_action"]][:, mask.action_mask_b()]
    for _ in range(HOLD_STEPS):
        expected = alone.act(obs, np.zeros((2, 28), np.float32))
        obs, *_ = venv.step(stay)
    commanded, reference = (obs["context"][:, terms[name]] for name in ("previous_action", "reference"))
    whole = reference + normalised(np.pad(expected, ((0, 0), (NUM_WRIST, 0))))[:, NUM_WRIST:]
    joints = mask.joint_mask()
    np.testing.assert_allclose(commanded[:, NUM_WRIST:][:, joints], np.clip(whole, -1, 1)[:, joints], atol=1e-6)
    assert np.abs(expected).max() > 0.1
    venv.close()
