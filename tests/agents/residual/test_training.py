"""Both trainings end to end on the real environments, tiny."""

from dataclasses import replace

import gymnasium as gym
import numpy as np
import pytest
import torch

from dexcompose_agents.residual.config import ResidualBConfig, StabiliserConfig, residual_b_preset, stabiliser_preset
from dexcompose_agents.residual.grip import PeakForce
from dexcompose_agents.residual.residual_b import ResidualBPolicy, bound_of, residual_b_features
from dexcompose_agents.residual.residual_b_task import ResidualBTask, composite_reward, wrist_astray
from dexcompose_agents.residual.stabiliser import FEATURE_SIZE, StabiliserPolicy
from dexcompose_agents.residual.stabiliser_task import StabiliserTask, retention_reward
from dexcompose_agents.residual.training import train_residual_b, train_stabiliser
from dexcompose_agents.rl.actor_critic import ActorCritic
from dexcompose_agents.rl.policy_evaluation import CONFIRMATION_SEED, EVALUATION_SEED
from dexcompose_agents.rl.rollout import RolloutEnv
from dexcompose_agents.runtime.interrupts import Paused
from dexcompose_envs.composition.interactor import Nominal
from dexcompose_envs.errors import FileError, UsageError
from dexcompose_envs.ownership import FingerMask

from ...host_reads import HostReads
from .fakes import LAYOUT, RepeatingPolicy, TensorEnv, every, network, observation

HELD = {"physics": {"mass": 0.5, "friction": 0.9}}
"""What no hand loses within a second."""
MASK = FingerMask.parse("TH+MF+RF+LF")
PAIR = "GraspBall-PushButton"


def test_rewards_by_hand():
    # Eq. 13: -0.01 - 0.001 * (0.1^2 + 0.2^2) = -0.01005, and 0.02 * 0.3 = 0.006 for a turn by 0.3 rad.
    residual, one = torch.tensor([[0.1, 0.2]]), torch.ones(1)
    for weight, expected in ((0.0, -0.01005), (0.02, -0.01605)):
        reward = retention_reward(0.01 * one, 0.3 * one, residual, StabiliserConfig(rotation_weight=weight))
        assert reward.item() == pytest.approx(expected)
    # Eq. 14: 5 * 0.2 + 5 * 1 - 1 * 0.01 - 0.001 * 0.05 = 5.98995, and 20 * 0.03 = 0.6 for a fingertip 3 cm aside,
    # 0.5 * 0.8 = 0.4 for a wrist that is sent astray.
    for approach, tracking, expected in ((0.0, 0.0, 5.98995), (20.0, 0.0, 5.38995), (20.0, 0.5, 4.98995)):
        config = ResidualBConfig(approach_scale=approach, tracking_scale=tracking)
        total = composite_reward(0.2 * one, one, 0.03 * one, 0.8 * one, 0.01 * one, residual, config)
        assert total.item() == pytest.approx(expected)


def test_a_wrist_is_astray_by_residual_and_tremble_together():
    bound = torch.tensor([0.03, 0.03, 0.0, 0.15, 0.15, 0.15, *22 * [0.2]])
    residual, shake = torch.full((2, 28), 0.1), torch.full((2, 6), 0.5)
    residual[0, :6] = torch.tensor([0.01, 0.0, 0.0, 0.0, 0.15, 0.0])
    shake[0] = torch.tensor([-0.01, 0.03, 0.02, 0.0, 0.15, 0.0])
    residual[1, :6] = -shake[1]
    # 1 for 30 mm where 30 mm are allowed, 4 for twice 0.15 rad; nothing where no residual may make up for it.
    assert wrist_astray(residual, shake, bound).tolist() == pytest.approx([5.0, 0.0])


def test_peak_force_is_that_of_an_episode():
    peak, columns = PeakForce(LAYOUT, 2, "cpu"), LAYOUT["context"]["finger_contact"]

    def seen(*forces):
        context = torch.zeros(2, LAYOUT["context"]["reference"].stop)
        context[:, columns] = 0.1 * torch.tensor(forces)  # observed in tens of newtons
        return peak.seen({"context": context}).tolist()

    assert seen([1, 2, 3, 0, 0], [4, 0, 0, 0, 7]) == pytest.approx([3, 7])
    assert seen([1, 5, 0, 0, 0], [1, 1, 1, 1, 1]) == pytest.approx([5, 7])
    peak.begin(torch.tensor([False, True]))
    assert seen([0, 0, 0, 0, 0], [0, 0, 2, 0, 0]) == pytest.approx([5, 2])


def test_stabiliser_task_is_deterministic_and_moves_the_hand():
    config = stabiliser_preset("test")
    runs = []
    for _ in range(2):
        task = StabiliserTask("GraspBall", config)
        assert isinstance(task, RolloutEnv)
        first = task.reset(5)
        steps = [task.step(torch.zeros(2, 22)) for _ in range(25)]  # longer than an episode of 20
        task.close()
        runs.append(torch.stack([first, *(step.observation for step in steps)]))
    assert torch.equal(*runs)
    assert torch.isfinite(runs[0]).all()
    ended = torch.stack([step.terminated | step.truncated for step in steps])
    assert ended[:20].any(dim=0).all() and steps[19].truncated.any()
    for step, over in zip(steps, ended, strict=True):
        assert torch.equal((step.final_observation != step.observation).any(dim=1), over)


def test_episodes_of_a_world_depend_on_its_seed_alone():
    config = stabiliser_preset("test", masks=("TH+MF+RF+LF", "TH+MF"))

    def run(num_envs, seed):
        task = StabiliserTask("GraspBall", config, num_envs=num_envs)
        features = [task.reset(seed), *(task.step(torch.zeros(num_envs, 22)).observation for _ in range(45))]
        task.close()
        return torch.stack(features)

    three = run(3, 5)
    assert torch.equal(run(1, 7)[:, 0], three[:, 2])
    masks = {tuple(row) for row in three[:, :, -5:].flatten(0, 1).tolist()}
    assert len(masks) == 2, "nine episodes meet both masks"


@pytest.fixture
def tensor_backend(monkeypatch):
    """The backend "warp" is the NumPy one in the manner of a GPU's."""
    make_vec = gym.make_vec

    def make(*args, backend="mujoco", device=None, **options):
        env = make_vec(*args, **options)
        if backend == "mujoco":
            return env
        assert device == "cpu"
        return TensorEnv(env)

    monkeypatch.setattr(gym, "make_vec", make)


def _rolled(task, actions):
    """Everything that a task says in a rollout, and what would have been read back from a GPU."""
    first, steps = task.reset(3), []
    with HostReads() as reads:
        for action in actions:
            steps.append(task.step(action))
    task.close()
    metrics = [torch.stack([step.metrics[name].float() for step in steps]) for name in steps[0].metrics]
    return [first, *(torch.stack([step[i] for step in steps]) for i in range(6)), *metrics], reads


def test_stabiliser_task_on_a_device_equals_that_on_numpy(tensor_backend):
    actions = torch.randn(45, 2, 22)
    results = []
    for backend in ("mujoco", "warp"):
        config = stabiliser_preset("test", backend=backend)
        results.append(_rolled(StabiliserTask("GraspBall", config), actions))
    assert all(torch.equal(*pair) for pair in zip(results[0][0], results[1][0], strict=True))
    assert results[1][1] == [], "nothing is read back in a control step"


def test_residual_b_task_on_a_device_equals_that_on_numpy(tensor_backend):
    actions = torch.randn(70, 2, 6)
    results = []
    for backend in ("mujoco", "warp"):
        stabiliser = StabiliserPolicy(network(1, FEATURE_SIZE, 22, 0.05), bound=0.05, masks=[MASK], skill="GraspBall")
        config = residual_b_preset("test", backend=backend)
        task = ResidualBTask(PAIR, MASK, RepeatingPolicy(), stabiliser, config, max_episode_steps=60)
        results.append(_rolled(task, actions))
    assert all(torch.equal(*pair) for pair in zip(results[0][0], results[1][0], strict=True))
    assert results[1][1] == [], "nothing is read back in a control step"


def test_residual_b_task_runs_on_warp():
    pytest.importorskip("mujoco_warp")
    actions, results = torch.zeros(4, 2, 6), []
    for backend in ("mujoco", "warp"):
        stabiliser = StabiliserPolicy(network(1, FEATURE_SIZE, 22, 0.05), bound=0.05, masks=[MASK], skill="GraspBall")
        config = residual_b_preset("test", backend=backend)
        task = ResidualBTask(PAIR, MASK, RepeatingPolicy(), stabiliser, config, max_episode_steps=60)
        results.append(_rolled(task, actions)[0])
    for native, warp in zip(*results, strict=True):
        torch.testing.assert_close(warp.float(), native.float(), rtol=1e-2, atol=2e-2)


def test_training_pauses_and_goes_on(tmp_path, tensor_backend):
    config = stabiliser_preset("test", backend="warp")
    with pytest.raises(Paused, match="0 of 2 iterations"):
        train_stabiliser("GraspBall", config, tmp_path, max_minutes=1e-9)
    assert not (tmp_path / "stabiliser.safetensors").exists()
    train_stabiliser("GraspBall", config, tmp_path)
    _, manifest = ActorCritic.load(tmp_path / "stabiliser.safetensors", "stabiliser")
    assert (manifest["iterations"], manifest["backend"], manifest["device"]) == (2, "warp", "cpu")


def test_train_stabiliser_writes_a_policy(tmp_path):
    config = stabiliser_preset("test")
    trained = train_stabiliser("GraspBall", config, tmp_path)
    loaded = StabiliserPolicy.load(tmp_path / "stabiliser.safetensors")
    assert (loaded.skill, loaded.bound, [str(m) for m in loaded.masks]) == ("GraspBall", 0.15, ["TH+MF+RF+LF"])
    assert trained.masks == loaded.masks
    header = (tmp_path / "evaluations.csv").read_text().splitlines()[0]
    assert "base_held" in header and "composed_held" in header
    again = train_stabiliser("GraspBall", config, tmp_path)  # resumes at the end: nothing left to do
    assert again.bound == trained.bound
    with pytest.raises(ValueError, match="kind is 'stabiliser'; expected 'residual_b'"):
        ResidualBPolicy.load(tmp_path / "stabiliser.safetensors")


def test_a_folder_belongs_to_one_stabiliser(tmp_path):
    config = stabiliser_preset("test")
    train_stabiliser("GraspBall", config, tmp_path)
    before = (tmp_path / "stabiliser.safetensors").read_bytes()
    ppo = replace(config.ppo, learning_rate=1e-3)
    others = [
        ("PickStick", config, "skill is 'GraspBall'; expected 'PickStick'"),
        ("GraspBall", replace(config, masks=("TH+FF",)), r"config\.masks is \['TH\+MF\+RF\+LF'\]; expected"),
        ("GraspBall", replace(config, alpha=0.1), r"config\.alpha is 0\.001; expected 0\.1"),
        ("GraspBall", replace(config, rotation_weight=0.0), r"config\.rotation_weight is 0\.02; expected 0\.0"),
        ("GraspBall", replace(config, ppo=ppo), r"ppo\.learning_rate is 0\.0003; expected"),
    ]
    for skill, settings, message in others:
        with pytest.raises(FileError, match=message):
            train_stabiliser(skill, settings, tmp_path)
    with pytest.raises(FileError, match=r"options\.held_split is None; expected 'test'"):
        train_stabiliser("GraspBall", config, tmp_path, held_split="test")
    assert (tmp_path / "stabiliser.safetensors").read_bytes() == before
    train_stabiliser("GraspBall", replace(config, num_threads=1), tmp_path)


def test_a_folder_belongs_to_one_residual_b(tmp_path):
    config, options = residual_b_preset("test"), {"max_episode_steps": 55}

    def stabiliser(seed, skill="GraspBall"):
        return StabiliserPolicy(network(seed, FEATURE_SIZE, 22, 0.05), bound=0.05, masks=[MASK], skill=skill)

    class OtherPolicy(RepeatingPolicy):
        weights_hash = "0123"

    train_residual_b(PAIR, MASK, RepeatingPolicy(), stabiliser(1), config, tmp_path, **options)
    others = [
        (FingerMask.parse("TH+FF"), RepeatingPolicy(), stabiliser(1), config, r"mask is 'TH\+MF\+RF\+LF'; expected"),
        (MASK, OtherPolicy(), stabiliser(1), config, "base_policy is 'RepeatingPolicy'; expected '0123'"),
        (MASK, RepeatingPolicy(), stabiliser(2), config, r"stabiliser\.weights is"),
        (MASK, RepeatingPolicy(), None, config, r"stabiliser is \{.*\}; expected None"),
        (MASK, RepeatingPolicy(), stabiliser(1), replace(config, bound_fingers=0.1), "bound is"),
        (MASK, RepeatingPolicy(), stabiliser(1), replace(config, dimensions=("fingers",)), "dimensions is"),
        (MASK, RepeatingPolicy(), stabiliser(1), replace(config, wrist_error=False), r"config\.wrist_error is True"),
        (MASK, RepeatingPolicy(), stabiliser(1), replace(config, approach_scale=0.0), r"config\.approach_scale is 20"),
    ]
    for mask, policy, helper, settings, message in others:
        with pytest.raises(FileError, match=message):
            train_residual_b(PAIR, mask, policy, helper, settings, tmp_path, **options)
    with pytest.raises(UsageError, match="the stabiliser is PickStick's; expected that of GraspBall"):
        train_residual_b(PAIR, MASK, RepeatingPolicy(), stabiliser(1, "PickStick"), config, tmp_path, **options)


def test_residual_b_is_told_its_last_residual(monkeypatch):
    beta, tanh = bound_of(ResidualBConfig(), "PushButton"), 0.4621172  # of 0.5
    assert beta.tolist() == pytest.approx([0.03] * 3 + [0.15] * 3 + [0.2] * 22)
    last = torch.where(torch.tensor(MASK.action_mask_b()), beta * tanh, 0.0)
    # In training: 50 steps of hold and transition, in which the residual is none, then the interaction.
    half = torch.full((2, 28), 0.5)
    for dimensions, count in ((("wrist", "fingers"), 10), (None, 6)):
        task = ResidualBTask(
            PAIR, MASK, RepeatingPolicy(), None, residual_b_preset("test", dimensions=dimensions), **HELD
        )
        assert task.action_size == count, "the wrist, and the index finger if it may"
        task.reset(3)
        seen = [task.step(half[:, :count]).observation[:, -28:] for _ in range(51)]
        task.close()
        assert (seen[49] == 0.0).all()
        torch.testing.assert_close(seen[50][:, :6], last[:6].expand(2, 6))
        torch.testing.assert_close(seen[50][:, 6:], (last[6:] * (count > 6)).expand(2, 22))
    # In deployment.
    obs = observation(np.random.default_rng(0), 2)
    nominal = Nominal(torch.zeros(2, 28), every(2))
    size = residual_b_features(obs, nominal, MASK, torch.zeros(2, 28)).shape[1]
    policy = ResidualBPolicy(network(0, size, 28, 0.3), bound=beta, mask=MASK, pair=PAIR)
    seen.clear()
    monkeypatch.setattr(policy._policy.network, "mean", lambda features: seen.append(features[:, -28:]) or half)
    policy.reset(every(2))
    policy.act(obs, nominal)
    policy.act(obs, nominal)
    policy.reset(torch.tensor([True, False]))
    policy.act(obs, nominal)
    zero = torch.zeros(28)
    expected = [torch.stack(rows) for rows in ((zero, zero), (last, last), (zero, last))]
    torch.testing.assert_close(torch.stack(seen).float(), torch.stack(expected))


def test_a_composite_that_breaks_down_is_left_out_and_one_that_drops_pays(monkeypatch):
    task = ResidualBTask(PAIR, MASK, RepeatingPolicy(), None, residual_b_preset("test", tracking_scale=0.5))
    task.reset(3)
    moves, shake = task.worlds.step, torch.zeros(2, 6)
    shake[:, 1] = task.bound[1]
    monkeypatch.setattr(task.worlds, "wrist_shake", lambda: shake)

    def first_diverges(action):
        moved, first = moves(action), torch.tensor([True, False])
        facts = {**moved.facts, "unstable": first.numpy(), "task_a_held": np.array([False, False])}
        facts |= {"reward_terms/retention": np.array([0.0, -0.01]), "reward_terms/progress": np.array([0.0, 0.2])}
        facts["approach"] = np.array([0.06, 0.05])  # means nothing before pi_B acts
        return moved._replace(truncated=first, terminated=~first, facts=facts)

    monkeypatch.setattr(task.worlds, "step", first_diverges)
    step = task.step(torch.zeros(2, 6))
    assert step.left_out.tolist() == [True, False]
    # The second has come on by 0.2, is 1 cm off and lost: 5 * 0.2 - 0.01 - 100 = -99.01.
    assert step.reward.tolist() == pytest.approx([0.0, -99.01])
    task._nominal = replace(task._nominal, interacting=every(2))
    step = task.step(torch.zeros(2, 6))
    task.close()
    # Now 5 cm aside as well, and sent astray by as much as the residual could make up for: -99.01 - 20 * 0.05 - 0.5.
    assert step.reward[1].item() == pytest.approx(-100.51)


def test_train_residual_b_learns_from_interaction_only(tmp_path):
    config = residual_b_preset("test")
    stabiliser = train_stabiliser("GraspBall", stabiliser_preset("test"), tmp_path / "a")
    options = {"max_episode_steps": 60}
    policy = RepeatingPolicy()
    task = ResidualBTask(PAIR, MASK, policy, stabiliser, config, **options)
    assert policy.hidden == MASK.preserved
    task.reset(3)
    steps = [task.step(torch.zeros(2, 6)) for _ in range(60)]
    task.close()
    valid = torch.stack([step.valid for step in steps])
    alive = ~torch.stack([step.terminated for step in steps]).any(0)
    assert alive.any(), "the held object survives a slow transition"
    assert not valid[:50, alive].any()
    assert valid[50:, alive].all()
    assert steps[59].truncated[alive].all()

    trained = train_residual_b(PAIR, MASK, RepeatingPolicy(), stabiliser, config, tmp_path / "b", **options)
    assert trained.mask == MASK
    assert trained.dimensions == ("WX", "WY", "WZ", "WRZ", "WRY", "WRX")
    assert "composed_success" in (tmp_path / "b" / "evaluations.csv").read_text()
    assert "episode_peak_force" in (tmp_path / "b" / "metrics.csv").read_text()
    _, manifest = ActorCritic.load(tmp_path / "b" / "residual_b.safetensors", "residual_b")
    assert manifest["evaluation"]["base_peak_force"] > 0.0
    assert manifest["wrist_error"] is True


@pytest.mark.parametrize(("success", "kept"), [((0.5, 0.5), False), ((0.5, 0.25), False), ((0.5, 0.75), True)])
def test_a_residual_ships_only_if_it_succeeds_more_often_than_none(tmp_path, monkeypatch, success, kept):
    """Whatever its return, which is better here in every case, and on episodes that did not choose it."""
    ranked, afresh = iter((0.5, 0.9)), iter(success)
    seeds = []

    def evaluate(env, policy, rounds, seed=EVALUATION_SEED):
        seeds.append((seed, rounds))
        found = ranked if seed == EVALUATION_SEED else afresh
        return {"return": float(policy is not None), "success": next(found)}

    monkeypatch.setattr("dexcompose_agents.rl.trainer.evaluate", evaluate)
    config = residual_b_preset("test")
    config = replace(config, ppo=replace(config.ppo, horizon=60, total_steps=120))
    train_residual_b(PAIR, MASK, RepeatingPolicy(), None, config, tmp_path, max_episode_steps=60)
    network, manifest = ActorCritic.load(tmp_path / "residual_b.safetensors", "residual_b")
    assert manifest["kept"] is kept
    assert seeds == 2 * [(EVALUATION_SEED, 1)] + 2 * [(CONFIRMATION_SEED, 2)]
    assert manifest["evaluation"]["composed_success"] == 0.9
    found = {"base_success": success[0], "composed_success": success[1], "episodes": 4.0}
    assert manifest["confirmation"].items() >= found.items()
    assert bool(network.mean_layer.weight.any()) is kept


def test_residual_b_may_write_everything_and_says_so(tmp_path):
    config = residual_b_preset("test", residual_writes="all")
    mask, options = FingerMask.parse("TH+MF"), {"max_episode_steps": 60}
    task = ResidualBTask(PAIR, mask, RepeatingPolicy(), None, config, **options, **HELD)
    assert task.action_size == 28
    task.reset(3)
    half = torch.full((2, 28), 0.5)
    seen = [task.step(half).observation[:, -28:] for _ in range(51)]
    task.close()
    torch.testing.assert_close(seen[50], (task.bound * 0.4621172).expand(2, 28))
    trained = train_residual_b(PAIR, mask, RepeatingPolicy(), None, config, tmp_path, **options)
    assert (trained.writes_all, len(trained.dimensions)) == (True, 28)
    with pytest.raises(FileError, match="writes_all is True; expected False"):
        ResidualBPolicy.load(tmp_path / "residual_b.safetensors", writes_all=False)


def test_settings_name_what_is_wrong():
    with pytest.raises(ValueError, match="unknown preset 'gpu'; expected one of cpu, fast, paper, test"):
        stabiliser_preset("gpu")
    with pytest.raises(ValueError, match="bound is -1"):
        StabiliserConfig(bound=-1)
    with pytest.raises(ValueError, match="masks is"):
        StabiliserConfig(masks=())
    with pytest.raises(ValueError, match="rotation_weight is -1"):
        StabiliserConfig(rotation_weight=-1)
    with pytest.raises(ValueError, match="approach_scale is -1"):
        ResidualBConfig(approach_scale=-1)
    with pytest.raises(ValueError, match="unknown dimension 'thumb'; expected one of wrist, fingers"):
        ResidualBConfig(dimensions=("thumb",))
    with pytest.raises(ValueError, match="dimensions is"):
        ResidualBConfig(dimensions=())
    with pytest.raises(ValueError, match="unknown residual_writes 'some'"):
        ResidualBConfig(residual_writes="some")
    paper = stabiliser_preset("paper").ppo
    assert (paper.num_envs, paper.horizon, paper.iterations) == (1024, 24, 1000)
    assert residual_b_preset("paper").ppo.iterations == 1000
    for name, backend, device in (("cpu", "mujoco", "cpu"), ("fast", "warp", "cuda"), ("paper", "warp", "cuda")):
        for config in (stabiliser_preset(name), residual_b_preset(name)):
            assert (config.backend, config.env_device, config.ppo.device) == (backend, device, device)
    assert stabiliser_preset("cpu", ppo=paper).env_device == "cpu", "the network alone may be on a GPU"
    with pytest.raises(ValueError, match="unknown backend 'isaac'; expected one of mujoco, warp"):
        stabiliser_preset("cpu", backend="isaac")
    assert replace(paper, total_steps=1).iterations == 1


def test_checkpoints_are_compared_on_enough_episodes():
    for name in ("cpu", "fast", "paper"):
        for config in (stabiliser_preset(name), residual_b_preset(name)):
            assert config.ppo.num_envs * config.ppo.evaluation_rounds >= config.ranking_episodes >= 128
    few = replace(residual_b_preset("cpu").ppo, num_envs=30, evaluation_rounds=4)
    message = r"evaluation_rounds is 4; expected at least 5 for 128 episodes \(ranking_episodes\) in 30 worlds"
    with pytest.raises(ValueError, match=message):
        residual_b_preset("cpu", ppo=few)
    assert residual_b_preset("cpu", ppo=few, ranking_episodes=120).ppo == few
    with pytest.raises(ValueError, match="ranking_episodes is 0"):
        residual_b_preset("cpu", ranking_episodes=0)


def test_presets_hold_what_was_found_and_what_was_published():
    for name in ("cpu", "fast"):
        assert stabiliser_preset(name).ppo.target_kl == residual_b_preset(name).ppo.target_kl == 0.03
        ppo = residual_b_preset(name).ppo
        assert (ppo.gamma, ppo.gae_lambda, ppo.learning_rate, ppo.initial_log_std) == (0.97, 0.9, 3e-4, -1.5)
        assert ppo.anneal
    paper = residual_b_preset("paper")
    assert (paper.approach_scale, paper.moves("PushButton")) == (0.0, ("wrist", "fingers"))
    assert (paper.tracking_scale, paper.shortcut, paper.ppo.anneal) == (0.0, False, False)
    assert (paper.ppo.gamma, paper.ppo.gae_lambda, paper.ppo.learning_rate) == (0.99, 0.95, 3e-4)
    assert stabiliser_preset("paper").rotation_weight == 0.0
    assert residual_b_preset("cpu").moves("PushButton") == ("wrist",)
    assert residual_b_preset("cpu").moves("PushButton") == residual_b_preset("test").moves("PushButton")
