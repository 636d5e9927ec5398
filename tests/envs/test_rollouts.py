"""The queue of episodes: each once, in order, whatever the number of worlds; and what is refused."""

from itertools import count
from types import SimpleNamespace

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode
from hypothesis import given, settings
from hypothesis import strategies as st

from dexcompose_envs.rollouts import AgentError, Episode, Watcher, run_episodes
from dexcompose_envs.skills import make_expert

PREVIOUS = slice(1, 29)


class Worlds:
    """An episode lasts 1 + seed % 7 steps and ends with `goal` = option + noise of its seed; misuse is refused."""

    def __init__(self, num_envs):
        self.num_envs, self.unwrapped = num_envs, self
        self.layout = {"context": {"previous_action": PREVIOUS}}
        self.seeds, self.goals, self.age, self.ended = [np.zeros(num_envs, t) for t in (int, float, int, bool)]
        self.actions, self.started = [], []

    def reset(self, *, seed=None, options=None):
        mask = options.get("reset_mask")
        if mask is None:
            mask = np.ones(self.num_envs, bool)
        if "state" in options:
            self.ended = self.ended & ~mask
            return self.observe(), {}
        assert options["start"] == "held" and len(seed) == len(options["goal"]) == self.num_envs
        for world in np.flatnonzero(mask):
            self.started.append(seed[world])
            self.seeds[world], self.goals[world] = seed[world], options["goal"][world]
        self.age, self.ended = np.where(mask, 0, self.age), self.ended & ~mask
        return self.observe(), {"start": self.seeds.copy()}

    def get_state(self):
        return self.age[:, None].astype(float)

    def step(self, actions):
        assert not self.ended.any(), "an ended world was stepped"
        assert actions.shape == (self.num_envs, 28) and actions.dtype == np.float32 and np.abs(actions).max() <= 1
        self.actions.append(actions)
        self.age = self.age + 1
        self.ended = self.age >= 1 + self.seeds % 7
        self.goals = self.goals + actions[:, 0]
        info = {"goal": self.goals.copy(), "unstable": self.ended & (self.seeds % 5 == 0)}
        ends = self.ended & (self.seeds % 2 == 0), self.ended & (self.seeds % 2 == 1)
        return self.observe(), np.zeros(self.num_envs), *ends, info

    def observe(self):
        # The number of a world and its neighbours are in what is seen of it only where a test looks for them.
        context = np.full((self.num_envs, 29), 0.25, np.float32)
        context[:, 0] = self.age + 100 * self.seeds
        return {"context": context}


class Noise:
    """Actions from the episode's seed and its observations; remembers what it was told."""

    name = "noise"

    def __init__(self):
        self.rngs, self.begun, self.idled = {}, [], []

    def reset(self, obs, info, env_ids, seeds):
        for world, seed in zip(env_ids.tolist(), seeds.tolist(), strict=True):
            self.rngs[world] = np.random.default_rng(seed)
            self.begun.append((world, seed))

    def act(self, obs):
        draws = [self.rngs[world].uniform(-2, 2, 28) for world in range(len(obs["context"]))]
        return np.array(draws) + 1e-4 * obs["context"][:, :1]

    def idle(self, env_ids):
        self.idled += env_ids.tolist()


class Keeper(Watcher):
    """Keeps an episode's actions and observations, and ends it after three steps at the latest."""

    def __init__(self):
        self.tracks = {}

    def begin(self, worlds, moment):
        for world in worlds.tolist():
            assert moment.steps[world] == 0 and moment.info["start"][world] == moment.episodes[world].seed
            self.tracks[world] = [moment.obs["context"][world, 0]]

    def step(self, moment):
        for world, episode in enumerate(moment.episodes):
            if episode is not None:
                self.tracks[world] += [moment.actions[world, 0], moment.obs["context"][world, 0]]
        return moment.ended | (moment.steps >= 3)

    def result(self, world, moment):
        return self.tracks.pop(world)


def plan(seeds):
    return [Episode(seed, {"goal": 10.0 * seed}, tag=str(seed)) for seed in seeds]


def run(num_envs, episodes, **kwargs):
    return run_episodes(Worlds(num_envs), Noise(), episodes, options={"start": "held"}, **kwargs)


def told(rollouts):
    return [(r.episode, r.steps, dict(r.info), r.terminated, r.truncated, r.result) for r in rollouts]


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 9), st.lists(st.integers(0, 99), max_size=20), st.booleans())
def test_every_episode_once_in_order_whatever_the_number_of_worlds(num_envs, seeds, watched):
    rollouts = told(run(num_envs, plan(seeds), watcher=Keeper() if watched else None))
    assert [episode.tag for episode, *_ in rollouts] == [str(seed) for seed in seeds]
    assert rollouts == told(run(1, plan(seeds), watcher=Keeper() if watched else None))
    lengths = [min(1 + seed % 7, 3) if watched else 1 + seed % 7 for seed in seeds]
    assert [steps for _, steps, *_ in rollouts] == lengths


def test_out_of_order_hands_on_the_same_as_episodes_end():
    seeds = [6, 1, 2, 13, 0, 5]  # 7, 2, 3, 7, 1 and 6 steps
    early = told(run(2, plan(seeds), in_order=False))
    assert [episode.seed for episode, *_ in early] == [1, 2, 6, 0, 13, 5]
    assert sorted(early, key=lambda row: seeds.index(row[0].seed)) == told(run(2, plan(seeds)))


def test_an_endless_plan_is_left_when_there_is_enough():
    worlds, agent = Worlds(4), Noise()
    endless = (Episode(seed, {"goal": 0.0}) for seed in count())
    rollouts = run_episodes(worlds, agent, endless, options={"start": "held"})
    assert [next(rollouts).episode.seed for _ in range(10)] == list(range(10))
    rollouts.close()
    # Four worlds, so at most three episodes beyond the tenth had begun; none was begun twice.
    assert worlds.started == sorted(set(worlds.started)) and len(worlds.started) <= 13


def test_worlds_without_an_episode_keep_still_and_the_agent_knows():
    worlds, agent = Worlds(3), Noise()
    list(run_episodes(worlds, agent, plan([6, 1]), options={"start": "held"}))
    assert agent.idled == [2, 1, 0]
    assert agent.begun == [(0, 6), (1, 1), (2, 6)]  # the first reset names all worlds
    for actions in worlds.actions:
        np.testing.assert_array_equal(actions[2], 0.25)  # the command it woke up with
    assert (worlds.actions[2][1] == 0.25).all()  # the second world is through after two steps


def test_a_watcher_may_let_an_episode_go_on_beyond_its_end():
    class Patient(Watcher):
        def step(self, moment):
            return moment.steps >= 10

    rollouts = list(run(2, plan([3, 6, 1]), watcher=Patient()))
    assert [rollout.steps for rollout in rollouts] == [10, 10, 10]


@pytest.mark.parametrize(
    ("actions", "message"),
    [
        (lambda n: np.full((n, 28), np.nan), "'noise' returned a NaN or infinite action in the episode with seed 40"),
        (lambda n: np.full((n, 28), np.inf), "NaN or infinite"),
        (lambda n: np.zeros((n, 27)), r"'noise' returned actions of shape \(2, 27\); expected \(2, 28\)"),
        (lambda n: np.zeros(28), r"shape \(28,\)"),
    ],
)
def test_wrong_actions_are_refused(actions, message):
    agent = Noise()
    agent.act = lambda obs: actions(len(obs["context"]))
    with pytest.raises(AgentError, match=message):
        list(run_episodes(Worlds(2), agent, plan([40, 41]), options={"start": "held"}))


def test_nan_in_a_world_without_an_episode_is_nobodys_fault():
    agent = Noise()
    agent.act = lambda obs: np.where(np.arange(2)[:, None] == 0, 0.0, np.nan) * np.ones((2, 28))
    assert len(list(run_episodes(Worlds(2), agent, plan([3]), options={"start": "held"}))) == 1


def test_autoreset_is_refused():
    venv = SimpleNamespace(num_envs=1, metadata={"autoreset_mode": AutoresetMode.SAME_STEP})
    with pytest.raises(ValueError, match=r"autoreset mode .*; expected DISABLED"):
        run_episodes(venv, Noise(), [Episode(0)])


def test_an_empty_plan_makes_no_reset():
    assert list(run_episodes(SimpleNamespace(num_envs=2), Noise(), [])) == []


@pytest.mark.parametrize("num_envs", [3, 8])
def test_real_worlds_do_not_depend_on_their_number(num_envs):
    """Lengths and every info value of the button's expert, bit by bit; 7 episodes in 1, 3 and 8 worlds."""

    def outcomes(n):
        venv = gym.make_vec("DexCompose/PushButton-v0", num_envs=n, autoreset_mode=AutoresetMode.DISABLED)
        try:
            return told(run_episodes(venv, make_expert("PushButton"), [Episode(seed) for seed in range(7)]))
        finally:
            venv.close()

    one, many = outcomes(1), outcomes(num_envs)
    assert one == many and all(info["success"] for _, _, info, *_ in one)


def test_a_world_that_lost_its_object_can_go_on():
    """The real environment steps on from the state of a loss, which the release test relies on."""

    class Open:
        name = "open"

        def reset(self, obs, info, env_ids, seeds):
            pass

        def act(self, obs):
            return np.tile(np.append(np.zeros(6), -np.ones(22)), (2, 1))

    class Patient(Watcher):
        lost = np.zeros(2, int)

        def step(self, moment):
            self.lost = self.lost + moment.terminated
            return moment.steps >= 60

    watcher = Patient()
    venv = gym.make_vec(
        "DexCompose/GraspBall-v0", num_envs=2, autoreset_mode="Disabled", start="held", max_episode_steps=61
    )
    rollouts = list(run_episodes(venv, Open(), [Episode(0), Episode(1), Episode(2)], watcher))
    venv.close()
    assert [rollout.steps for rollout in rollouts] == [60, 60, 60]
    assert (watcher.lost > 1).all() and not any(rollout.info["task_a_held"] for rollout in rollouts)
