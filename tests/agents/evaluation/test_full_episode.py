"""Episodes from scratch: A's policy grasps, the hand eases its grip, the method composes; each part is in its place."""

import numpy as np
import pytest

from dexcompose_agents import cli
from dexcompose_agents.diffusion.agent import PolicyAgent
from dexcompose_agents.evaluation.full_episode import FullEpisode, steadied
from dexcompose_agents.evaluation.manifest import EvaluationError
from dexcompose_agents.evaluation.protocol import evaluate, make_worlds
from dexcompose_agents.methods import make_method
from dexcompose_envs import hand
from dexcompose_envs.rollouts import Episode, run_episodes

PAIR = "GraspBall-PushButton"
STEADY = {"start": "scratch", "base_shake": 0.0, "num_threads": 1}


class Seen(FullEpisode):
    """Notes who acts in every step of world 0."""

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.acting, self.references = [], []

    def act(self, obs):
        actions = super().act(obs)
        self.acting.append("method" if self._composing[0] else "grip" if self._still[0] else "grasp")
        self.references.append(obs["context"][0, self._terms["reference"]].copy())
        self.grip = self._grip.command[0].copy()
        return actions


def test_who_acts_when():
    venv = make_worlds(PAIR, 1, **STEADY)
    full = Seen(make_method("zero-shot", PAIR), PolicyAgent.load("GraspBall"), venv.unwrapped)
    (rollout,) = run_episodes(venv, full, [Episode(2**30)], full)
    venv.close()
    assert rollout.info["success"]
    order = [who for who, before in zip(full.acting, [None, *full.acting], strict=False) if who != before]
    assert order == ["grasp", "grip", "method"]
    assert full.acting.count("grip") > 25 and full.acting.count("method") > 50
    begun = full.acting.index("method")
    assert not np.any(full.references[begun - 1])
    # What the preserved fingers follow is the eased grip.
    np.testing.assert_allclose(full.references[begun], full.grip[hand.NUM_WRIST :], atol=1e-6)


def test_the_wrist_is_kept_steady_until_the_method_acts():
    venv = make_worlds(PAIR, 2, start="scratch", num_threads=1)
    obs, _ = venv.reset(seed=[3, 4])
    told = obs["context"][:, venv.unwrapped.layout["context"]["previous_action"]].copy()
    places = {True: [], False: []}
    for steady, where in places.items():
        obs, _ = venv.reset(seed=[3, 4])
        for step in range(40):
            action = steadied(told, obs) if steady else told
            np.testing.assert_array_equal(action[:, hand.NUM_WRIST :], told[:, hand.NUM_WRIST :])
            obs, *_ = venv.step(action)
            if step >= 10:
                where.append(obs["task_a"][:, :3].copy())
    venv.close()
    shaken, kept = (np.std(where, axis=0).max(axis=1) for where in (places[False], places[True]))
    assert (kept < 0.5 * shaken).all()


def test_an_evaluation_from_scratch_is_its_own(tmp_path):
    one = evaluate(PAIR, "no-stabiliser", seeds=1, rollouts=2, num_envs=2, out=tmp_path, env_kwargs=STEADY)
    again = evaluate(PAIR, "no-stabiliser", seeds=1, rollouts=2, num_envs=1, env_kwargs=STEADY)
    assert one.records == again.records  # whatever the number of worlds
    assert all(record.steps > 100 for record in one.records)
    with pytest.raises(EvaluationError, match="start"):
        evaluate(PAIR, "no-stabiliser", seeds=1, rollouts=2, out=tmp_path, env_kwargs={"num_threads": 1})


def test_the_command_plays_it(tmp_path, capsys):
    command = ["eval", PAIR, "--method", "frozen", "--seeds", "1", "--rollouts", "1", "--start", "scratch"]
    assert cli.main([*command, "--out", str(tmp_path)]) == 0
    assert len((tmp_path / "episodes.csv").read_text().splitlines()) == 2
