"""Evaluation, held-state collection and release tests on either engine: the same protocol, the same files."""

import json

import numpy as np
import pytest

from dexcompose_agents.attribution.release_test import ReleaseTestConfig, run_release_test
from dexcompose_agents.evaluation import evaluate
from dexcompose_agents.evaluation.manifest import EvaluationError
from dexcompose_agents.held_states.collection import HoldCriteria, collect
from dexcompose_envs.composition.task import CompositionTask
from dexcompose_envs.episodes import judge
from dexcompose_envs.ownership import FingerMask
from dexcompose_envs.skills import make_expert
from dexcompose_envs.skills.expert import Pace

PAIR = "GraspBall-PushButton"
WARP = {"backend": "warp", "device": "cpu"}


class OpenHand:
    """Lets go of the object in every other episode, and holds still in the others."""

    name = "open-hand"

    def __init__(self):
        self._columns = CompositionTask.of_name(PAIR).layout["context"]["previous_action"]
        self._opens = np.zeros(0, bool)

    def reset(self, obs, info, env_ids, seeds):
        assert isinstance(obs["context"], np.ndarray)
        if len(self._opens) != len(obs["context"]):
            self._opens = np.zeros(len(obs["context"]), bool)
        self._opens[env_ids] = seeds % 2 == 0

    def act(self, obs):
        action = obs["context"][:, self._columns].copy()
        action[self._opens, 6:] -= 0.2
        return np.clip(action, -1, 1)


def test_evaluation_finds_the_same_on_both_engines(held_library, tmp_path, monkeypatch):
    options = {"seeds": 1, "rollouts": 4, "env_kwargs": {"held_states": held_library("GraspBall")}}
    monkeypatch.setattr(judge, "task_steps", lambda chain: 20)
    native = evaluate(PAIR, OpenHand(), num_envs=3, out=tmp_path / "native", **options)
    warp = evaluate(PAIR, OpenHand(), num_envs=4, out=tmp_path / "warp", **WARP, **options)
    assert [record.outcome for record in warp.records] == [record.outcome for record in native.records]
    assert {record.outcome for record in warp.records} == {"b_fail", "init"}
    steps = [np.array([record.steps for record in run.records]) for run in (warp, native)]
    assert np.abs(steps[0] - steps[1]).max() <= 1
    run = next(iter(json.loads((tmp_path / "warp" / "manifest.json").read_text())["runs"].values()))
    assert run["config"]["env"]["backend"] == "warp"
    assert "device" not in run["config"]["env"]  # which GPU it was doesn't keep an evaluation from going on
    with pytest.raises(EvaluationError, match=r"env\.backend is 'warp'; expected None"):
        evaluate(PAIR, OpenHand(), out=tmp_path / "warp", **options)


def test_a_held_state_is_collected_on_warp(tmp_path, monkeypatch):
    monkeypatch.setattr(Pace, "steps", lambda self, nominal: round(nominal / 3))  # Warp takes its time
    library = collect(
        "GraspBall", make_expert("GraspBall"), 1, out=tmp_path / "ball.npz", policy_hash="scripted", num_envs=2,
        criteria=HoldCriteria(hold_steps=5, carry=ReleaseTestConfig(steps=10, clean_steps=10)), env_kwargs=WARP,
    )  # fmt: skip
    assert len(library) == 1
    assert library.manifest.validation["settings"]["backend"] == "warp"
    assert library.object_qpos[0, 2] > 0.1


def test_releases_are_tested_on_warp(held_library, tmp_path):
    config = ReleaseTestConfig(rollouts=1, steps=20)
    masks = [FingerMask.parse("TH+MF+RF"), FingerMask.parse("FF")]
    options = {"library": held_library("GraspBall"), "masks": masks, "num_envs": 2}
    native = run_release_test("GraspBall", config, **options)
    warp = run_release_test("GraspBall", config, out=tmp_path, env_kwargs=WARP, **options)
    assert warp[0].p_ret == native[0].p_ret == 1.0
    assert warp[1].p_ret == native[1].p_ret
    assert json.loads((tmp_path / "release_test.json").read_text())["backend"] == "warp"
    with pytest.raises(ValueError, match=r"holds a release test whose settings\.backend is 'warp'; expected 'mujoco'"):
        run_release_test("GraspBall", config, out=tmp_path, **options)
