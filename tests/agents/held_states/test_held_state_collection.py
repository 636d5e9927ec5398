"""Collecting held states from worlds whose course is known."""

import subprocess
import sys
from contextlib import suppress
from subprocess import PIPE

import numpy as np
import pytest
import torch

from dexcompose_agents.attribution.release_test import ReleaseTestConfig
from dexcompose_agents.held_states import collection as held_state_collection
from dexcompose_agents.held_states.collection import HoldCriteria, collect
from dexcompose_envs import hand
from dexcompose_envs.errors import UsageError
from dexcompose_envs.held_states import HeldStateLibrary
from dexcompose_envs.pieces import UnfinishedError
from dexcompose_envs.skills.retention.pick_stick import PickStick

TERMS = {
    "joint_velocity": slice(0, 28),
    "object_position": slice(28, 31),
    "object_linear_velocity": slice(31, 34),
    "object_rotation": slice(34, 40),
}
CARRY = ReleaseTestConfig(steps=5, clean_steps=1)
CRITERIA = HoldCriteria(reach_steps=12, settle_steps=3, soften_steps=2, hold_steps=6, carry=CARRY)
QUIET_FROM, CARRIED_FROM = 5, 11
"""Control steps after success at which the quiet hold begins, and at which it ends and the hand is moved."""
COURSES = ("good", "good", "drops", "slips", "never", "falls", "restless", "diverges", "good", "turns")
"""What becomes of an episode, by its seed modulo 10; a good one reaches success after 3 + seed % 5 steps."""


class FakeWorlds:
    """Episodes that go as `COURSES` says; the policy's action is remembered so that it can be found in the states."""

    def __init__(self, env_id, num_envs, **kwargs):
        self.num_envs, self.kwargs = num_envs, kwargs
        self.layout, self.retention, self.actions = {"context": TERMS}, "PickStick", []
        self.model_hash = "model"
        self.seed, self.elapsed = np.zeros(num_envs, int), np.zeros(num_envs, int)
        self.ended, self.closed = np.zeros(num_envs, bool), False
        self.last = np.zeros((num_envs, 28))

    @property
    def unwrapped(self):
        return self

    def reset(self, seed, options):
        mask = options.get("reset_mask", np.ones(self.num_envs, bool))
        self.seed[mask], self.elapsed[mask], self.ended[mask] = np.array(seed)[mask], 0, False
        return self.observe(), {}

    def courses(self):
        return np.array([COURSES[seed % 10] for seed in self.seed])

    def since(self):
        """Control steps since success."""
        return np.where(self.courses() == "never", -1, self.elapsed - (3 + self.seed % 5))

    def observe(self):
        course, since = self.courses(), self.since()
        context = np.zeros((self.num_envs, 40), np.float32)
        context[:, 28] = 0.5 + 0.1 * ((course == "slips") & (since >= QUIET_FROM + 2))  # 10 x m: 1 cm
        context[:, 28] += 0.6 * ((course == "falls") & (since >= CARRIED_FROM + 2))  # 6 cm
        angle = 0.2 * ((course == "turns") & (since >= QUIET_FROM + 2))  # about x, so that the z axis turns
        context[:, 34], context[:, 38], context[:, 39] = 1.0, np.cos(angle), np.sin(angle)
        context[:, 31] = 0.03 * (course == "restless")
        task = np.zeros((self.num_envs, 34), np.float32)
        task[:, :6] = 0.25
        return {"task_a": task, "context": context}

    def step(self, action):
        assert not self.ended.any()
        self.last, self.elapsed = action.copy(), self.elapsed + 1
        self.actions.append(self.last)
        course, since = self.courses(), self.since()
        unstable = (course == "diverges") & (self.elapsed == 2)
        info = {
            "success": since >= 0,
            "task_a_held": (since >= 0) & ~((course == "drops") & (since >= 4)) & (since <= CARRIED_FROM),
            "unstable": unstable,
        }
        self.ended = unstable
        return self.observe(), None, unstable, np.zeros(self.num_envs, bool), info

    def held_columns(self):
        columns = {name: np.zeros((self.num_envs, width)) for name, width in [("hand_qvel", 28), ("object_qvel", 6)]}
        columns["hand_qpos"] = np.repeat(self.seed[:, None] % 100, 28, axis=1) / 100
        columns["object_qpos"] = np.tile([0.0, 0.0, 0.2, 1.0, 0.0, 0.0, 0.0], (self.num_envs, 1))
        columns["control"] = hand.denormalize(self.last)
        columns["contact"] = np.ones((self.num_envs, 5))
        columns["physics"] = np.tile([1.5, 0.6], (self.num_envs, 1))
        return columns

    def close(self):
        self.closed = True


class FakeAgent:
    """Its action is the number of its steps in the episode, over 100; interrupts after `stop_after` calls."""

    name = "fake"

    def __init__(self, stop_after=10**9):
        self.left = stop_after
        self.active = None

    def reset(self, obs, info, env_ids, seeds):
        if self.active is None:
            self.active, self.steps = np.zeros(len(obs["task_a"]), bool), np.zeros(len(obs["task_a"]), int)
        self.steps[env_ids], self.active[env_ids] = 0, True

    def act(self, obs):
        self.left -= 1
        if self.left < 0:
            raise KeyboardInterrupt
        self.steps += 1
        return np.where(self.active, self.steps / 100, np.nan)[:, None] * np.ones((1, 28), np.float32)

    def idle(self, env_ids):
        self.active[env_ids] = False


def run(out, count=9, num_envs=4, agent=None, **kwargs):
    kwargs = {"criteria": CRITERIA, "seed": 0, "make_env": FakeWorlds, "policy_hash": "policy"} | kwargs
    return collect("PickStick", agent or FakeAgent(), count, out=out, num_envs=num_envs, **kwargs)


def test_only_quiet_holds_are_kept(tmp_path):
    library = run(tmp_path / "states.npz")
    # Of 10 seeds 0, 1 and 8 are good, so nine states take episodes 0..28 (two rounds of 10 and 0..8 of the third).
    np.testing.assert_allclose(library.hand_qpos[:, 0] * 100, [0, 1, 8, 10, 11, 18, 20, 21, 28], atol=1e-3)
    manifest = library.manifest
    assert (manifest.skill, manifest.model_hash) == ("PickStick", "model")
    assert manifest.seeds == (0, 29) and manifest.validation["episodes"] == 29
    expected = {"accepted": 9, "lost": 3, "moved": 5, "not_reached": 3, "not_quiet": 3, "unstable": 3, "dropped": 3}
    assert manifest.validation["outcomes"] == expected
    assert manifest.validation["acceptance_rate"] == pytest.approx(9 / 29, abs=1e-6)
    assert [path.name for path in tmp_path.iterdir()] == ["states.npz"]


def test_the_command_of_the_hold_by_hand(tmp_path, monkeypatch):
    monkeypatch.setattr(PickStick, "HOLD_SQUEEZE", 0.4)
    made = []
    library = run(
        tmp_path / "states.npz",
        count=1,
        num_envs=1,
        make_env=lambda *a, **k: made.append(FakeWorlds(*a, **k)) or made[0],
    )
    # Seed 0 succeeds after 3 actions, so the fingers hold the third, 0.03, while the grasp settles; the joints are at
    # 0, so the squeeze goes down to 0.4 x 0.03 = 0.012 in two steps. The wrist stays where it is, at 0.25.
    fingers = [action[0, 6] for action in made[0].actions]
    assert fingers == pytest.approx([0.01, 0.02, 0.03] + [0.03] * 3 + [0.021, 0.012] + [0.012] * 11, abs=1e-6)
    command = hand.denormalize(np.concatenate([np.full(6, 0.25), np.full(22, 0.012)]))
    np.testing.assert_allclose(library.control[0], command, atol=1e-6)
    np.testing.assert_allclose(library.reference[0], command[6:], atol=1e-6)
    np.testing.assert_allclose(library.hold_target[0], [0.05, 0, 0], atol=1e-6)
    # The wrist moves only once the hold is over: 3 + 5 + 6 actions.
    wrist = np.array([action[0, :6] for action in made[0].actions])
    np.testing.assert_allclose(wrist[3:14], 0.25, atol=1e-6)
    assert (wrist[16:] != 0.25).all()


def test_result_does_not_depend_on_num_envs(tmp_path):
    files = [tmp_path / f"{num_envs}.npz" for num_envs in (1, 3, 16)]
    for path, num_envs in zip(files, (1, 3, 16), strict=True):
        run(path, num_envs=num_envs)
    assert len({path.read_bytes() for path in files}) == 1


@pytest.mark.parametrize("stop_after", [1, 20, 40, 50])
def test_an_interrupted_collection_goes_on_where_it_was(tmp_path, monkeypatch, stop_after):
    monkeypatch.setattr(held_state_collection, "SHARD_EPISODES", 3)
    whole, resumed = tmp_path / "whole.npz", tmp_path / "resumed.npz"
    run(whole)
    with pytest.raises(KeyboardInterrupt):
        run(resumed, agent=FakeAgent(stop_after))
    assert not resumed.exists()
    run(resumed)
    assert resumed.read_bytes() == whole.read_bytes()


def test_finished_episodes_are_not_run_again(tmp_path):
    progress = []
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "states.npz", num_envs=1, agent=FakeAgent(60))
    run(tmp_path / "states.npz", num_envs=1, progress=lambda done, total: progress.append((done, total)))
    assert progress[0][0] > 1 and progress[-1] == (9, 9)
    assert run(tmp_path / "states.npz", agent=FakeAgent(0)).manifest.seeds == (0, 29)  # complete: nothing is run


@pytest.mark.parametrize("stop_after", [10, 10**9])
def test_an_agent_grasps_on_one_thread_and_the_caller_keeps_its_own(tmp_path, torch_threads, stop_after):
    class Watched(FakeAgent):
        def act(self, obs):
            threads.append(torch.get_num_threads())
            return super().act(obs)

    threads = []
    torch_threads(2)
    with suppress(KeyboardInterrupt):
        run(tmp_path / "states.npz", agent=Watched(stop_after))
    assert set(threads) == {1}
    assert torch.get_num_threads() == 2


def test_shards_of_another_run_are_refused(tmp_path):
    out = tmp_path / "states.npz"
    with pytest.raises(KeyboardInterrupt):
        run(out, num_envs=1, agent=FakeAgent(60))
    with pytest.raises(UnfinishedError, match=r"settings\.policy_hash is 'policy'; expected 'other'"):
        run(out, policy_hash="other")
    shard = next((tmp_path / "states.npz.shards").glob("*.npz"))
    shard.write_bytes(shard.read_bytes()[:100])
    with pytest.raises(UnfinishedError, match=r"states\.npz\.shards/\d+\.npz' is truncated, damaged"):
        run(out)


def test_two_collections_of_one_library_are_refused(tmp_path):
    code = f"""if True:
        import sys
        from dexcompose_envs import files
        with files.lock_folder({str(tmp_path / "states.npz.shards")!r}):
            print("locked", flush=True)
            sys.stdin.read()"""
    with subprocess.Popen([sys.executable, "-c", code], stdin=PIPE, stdout=PIPE, text=True) as other:
        assert other.stdout.readline() == "locked\n"
        with pytest.raises(UsageError, match=r"another process is writing to .*states\.npz\.shards"):
            run(tmp_path / "states.npz", agent=FakeAgent(0))
        other.stdin.close()
    run(tmp_path / "states.npz")


def test_a_finished_library_of_another_run_is_refused(tmp_path):
    out = tmp_path / "states.npz"
    run(out)
    with pytest.raises(UnfinishedError, match=r"settings\.seed is 0; expected 1"):
        run(out, seed=1)
    with pytest.raises(UnfinishedError, match="has 9 held states, this run wants 10"):
        run(out, count=10)
    assert len(HeldStateLibrary.load(out)) == 9


def test_a_policy_that_hardly_ever_succeeds_is_given_up(tmp_path):
    with pytest.raises(UnfinishedError, match=r"only 2 of 8 episodes .* expected 9: 2 accepted, 1 not_reached, 1 unst"):
        run(tmp_path / "states.npz", max_attempts=8, num_envs=1)
    assert not (tmp_path / "states.npz").exists()


def test_a_world_that_is_through_waits_for_the_others(tmp_path):
    with pytest.raises(UnfinishedError, match=r"only 2 of 3 episodes .* 2 accepted"):
        run(tmp_path / "states.npz", seed=18, max_attempts=3, num_envs=3)  # the last is through three steps earlier


def test_an_output_that_cannot_be_written_is_refused_first(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="can't write to output folder"):
        run(tmp_path / "file" / "states.npz", agent=FakeAgent(0))


def test_the_real_environment_fits(tmp_path):
    class Idle(FakeAgent):
        def act(self, obs):
            return obs["task_a"][:, :28]  # stay where you are

    criteria = HoldCriteria(reach_steps=5, hold_steps=5)
    with pytest.raises(UnfinishedError, match=r"only 0 of 3 episodes .* 3 not_reached"):
        collect(
            "GraspBall", Idle(), 1, out=tmp_path / "states.npz", policy_hash="idle", num_envs=2, criteria=criteria,
            max_attempts=3, env_kwargs={"num_threads": 1},
        )  # fmt: skip
