"""The built-in methods against the composition's definition, with a base policy that needs no weights."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dexcompose_agents.artefacts.shipped import choose_mask, residual_path, stabiliser_path
from dexcompose_agents.artefacts.weights import load_weights
from dexcompose_agents.attribution.selectors import Selection
from dexcompose_agents.diffusion.config import preset
from dexcompose_agents.diffusion.dataset import Episode
from dexcompose_agents.diffusion.policy import DiffusionPolicy
from dexcompose_agents.diffusion.training import KIND, train
from dexcompose_agents.methods import CompositionMethod, CompositionSpec, make_method
from dexcompose_agents.methods.composed import ComposedMethod
from dexcompose_agents.residual.config import ResidualBConfig
from dexcompose_agents.residual.residual_b import ResidualBPolicy, bound_of, residual_b_size
from dexcompose_agents.residual.stabiliser import FEATURE_SIZE, StabiliserPolicy
from dexcompose_agents.rl.actor_critic import ActorCritic
from dexcompose_envs import FingerMask
from dexcompose_envs.artefacts import ArtefactError
from dexcompose_envs.composition.task import CompositionTask
from dexcompose_envs.episodes.phases import INTERACT_FROM
from dexcompose_envs.hand import NUM_WRIST, OPEN_FINGERS, finger_slice
from dexcompose_envs.scene import model_hash_of

PAIR = "GraspBall-PushButton"
LAYOUT = CompositionTask.of_name(PAIR).layout


class SeededPolicy:
    """A base policy whose action is constant per episode and drawn from the episode's seed."""

    def reset(self, num_envs: int) -> None:
        self.action = torch.zeros(num_envs, 28)

    def reset_envs(self, env_ids: Any) -> None:
        """Nothing to forget."""

    def hide_fingers(self, fingers: Any) -> None:
        self.hidden = tuple(fingers)

    def seed_envs(self, seeds: Any, env_ids: Any = None) -> None:
        for world in env_ids.nonzero().flatten().tolist():
            drawn = np.random.default_rng(int(seeds[world])).uniform(-1, 1, 28)
            self.action[world] = torch.tensor(drawn, dtype=torch.float32)

    def act(self, task_obs: Any, env_ids: Any = None) -> Any:
        assert len(task_obs) == len(env_ids)
        return self.action.clone()


def observation(num_envs: int, seed: int = 0) -> dict[str, Any]:
    """Random observations of the right sizes."""
    rng = np.random.default_rng(seed)
    sizes = {key: max(columns.stop for columns in terms.values()) for key, terms in LAYOUT.items()}
    return {key: rng.uniform(-0.5, 0.5, (num_envs, size)).astype(np.float32) for key, size in sizes.items()}


def reference(obs: dict[str, Any]) -> Any:
    """q_ref, normalised (N, 22)."""
    return obs["context"][:, LAYOUT["context"]["reference"]]


def roll(method: CompositionMethod, obs: dict[str, Any], seeds: list[int], steps: int) -> Any:
    """Actions (steps, N, 28) on observations that never change."""
    method.reset(obs, {}, np.arange(len(seeds)), np.array(seeds))
    return np.stack([method.act(obs) for _ in range(steps)])


def test_layout_is_that_of_the_environment() -> None:
    import gymnasium as gym

    from dexcompose_envs import env_id

    env: Any = gym.make(env_id(PAIR))
    assert env.unwrapped.layout == LAYOUT
    by_env, by_name = CompositionTask.of_env(env), CompositionTask.of_name(PAIR)
    assert (by_env.task_keys, by_env.is_composite) == (by_name.task_keys, by_name.is_composite) == (("task_b",), True)
    np.testing.assert_array_equal(by_env.starts, by_name.starts)
    np.testing.assert_array_equal(by_env.offsets, by_name.offsets)
    env.close()


def test_frozen_holds_every_finger_at_the_reference() -> None:
    obs = observation(3)
    actions = roll(make_method("frozen", PAIR, base_policy=SeededPolicy()), obs, [5, 6, 7], INTERACT_FROM + 5)
    np.testing.assert_allclose(actions[:, :, 6:], np.broadcast_to(reference(obs), actions[:, :, 6:].shape))
    wrist = np.stack([np.random.default_rng(seed).uniform(-1, 1, 28)[:6] for seed in (5, 6, 7)])
    np.testing.assert_allclose(actions[-1, :, :6], wrist, rtol=1e-6)


def test_frozen_is_the_composition_with_all_fingers_preserved() -> None:
    method = make_method("frozen", PAIR, base_policy=SeededPolicy())
    assert method.mask == FingerMask.all_fingers()  # type: ignore[attr-defined]
    assert method.selector == "none"  # type: ignore[attr-defined]


def test_released_fingers_and_wrist_belong_to_b() -> None:
    mask = FingerMask.parse("TH+MF+RF")
    obs = observation(2)
    method = make_method("no-stabiliser", PAIR, mask=mask, base_policy=SeededPolicy())
    actions = roll(method, obs, [1, 2], INTERACT_FROM + 3)
    nominal = np.stack([np.random.default_rng(seed).uniform(-1, 1, 28) for seed in (1, 2)])
    owned = mask.action_mask_b()
    np.testing.assert_allclose(actions[-1][:, owned], nominal[:, owned], rtol=1e-6)
    np.testing.assert_allclose(actions[-1][:, 6:][:, mask.joint_mask()], reference(obs)[:, mask.joint_mask()])
    assert method.describe()["mask"] == "TH+MF+RF"


def test_what_determines_the_actions_is_described() -> None:
    def described(**changes: Any) -> Any:
        spec = CompositionSpec(mask="TH+MF", stabiliser=None, **changes)
        return ComposedMethod("mine", spec, PAIR, base_policy=SeededPolicy()).describe()

    changes: list[dict[str, Any]] = [
        {}, {"residual_writes": "all"}, {"hide_preserved": False}, {"hold_steps": 3}, {"transition_steps": 5},
        {"reference": OPEN_FINGERS}, {"reference": 0.5 * OPEN_FINGERS}, {"reference": reference},
    ]  # fmt: skip
    texts = {json.dumps(described(**change), sort_keys=True) for change in changes}
    assert len(texts) == len(changes)
    assert described()["reference"] == "hold"


class CountingPolicy(SeededPolicy):
    """Counts how often each world has acted; says nothing for the others."""

    def act(self, task_obs: Any, env_ids: Any = None) -> Any:
        self.acted = getattr(self, "acted", 0) + env_ids.int()
        return torch.where(env_ids[:, None], self.action, torch.nan)


def test_nobody_asks_pi_b_for_worlds_that_are_idle() -> None:
    obs, policy = observation(3), CountingPolicy()
    method: Any = make_method("frozen", PAIR, base_policy=policy)
    expected = roll(make_method("frozen", PAIR, base_policy=SeededPolicy()), obs, [5, 6, 7], INTERACT_FROM + 4)
    actions = roll(method, obs, [5, 6, 7], INTERACT_FROM + 2)
    method.idle(np.array([1]))
    actions = np.concatenate([actions, [method.act(obs) for _ in range(2)]])
    np.testing.assert_array_equal(actions[:, [0, 2]], expected[:, [0, 2]])
    assert policy.acted.tolist() == [4, 2, 4]
    method.reset(obs, {}, np.array([1]), np.array([6]))
    again = np.stack([method.act(obs) for _ in range(INTERACT_FROM + 1)])
    np.testing.assert_array_equal(again[:, 1], expected[: INTERACT_FROM + 1, 1])
    assert policy.acted.tolist() == [4 + INTERACT_FROM + 1, 3, 4 + INTERACT_FROM + 1]


def seeing(method: CompositionMethod, fingers: str) -> bool:
    """Whether pi_B's first action depends on the joint positions of some fingers."""
    obs = observation(1)
    moved = {key: value.copy() for key, value in obs.items()}
    for finger in FingerMask.parse(fingers).preserved:
        moved["task_b"][:, finger_slice(finger)] *= -1
    first, second = (roll(method, seen, [3], INTERACT_FROM + 1)[-1, :, :NUM_WRIST] for seen in (obs, moved))
    return not np.array_equal(first, second)


@pytest.mark.parametrize(
    ("dropout", "mask", "seen", "unseen"),
    [
        (0.5, "TH+MF+RF", "FF+LF", "TH+MF+RF"),
        (0.5, "TH+MF+RF+LF+FF", None, "TH+MF+RF+LF+FF"),
        (0.0, "TH+MF", "TH", None),
    ],
)
def test_preserved_fingers_are_hidden_from_a_policy_trained_without_them(
    tmp_path: Path, dropout: float, mask: str, seen: str | None, unseen: str | None
) -> None:
    size = observation(1)["task_b"].shape[1]
    rng = np.random.default_rng(0)
    demos = [Episode(obs=rng.uniform(-1, 1, (9, size)), action=rng.uniform(-1, 1, (9, 28))) for _ in range(3)]
    config = replace(preset("test", "PushButton"), steps=5, finger_dropout=dropout)
    train(demos, config, tmp_path / "PushButton.safetensors")
    policy = DiffusionPolicy(*load_weights(tmp_path / "PushButton.safetensors", KIND))

    method = ComposedMethod("plain", CompositionSpec(mask=mask, stabiliser=None), PAIR, base_policy=policy)
    assert seen is None or seeing(method, seen)
    assert unseen is None or not seeing(method, unseen)


def test_every_method_says_which_fingers_are_preserved() -> None:
    policy = SeededPolicy()
    make_method("frozen", PAIR, base_policy=policy)
    assert policy.hidden == FingerMask.all_fingers().preserved


def test_actions_do_not_depend_on_neighbours() -> None:
    obs = observation(4)
    together = roll(make_method("frozen", PAIR, base_policy=SeededPolicy()), obs, [1, 2, 3, 4], INTERACT_FROM + 5)
    for world in range(4):
        alone = {key: value[world : world + 1] for key, value in obs.items()}
        single = roll(make_method("frozen", PAIR, base_policy=SeededPolicy()), alone, [1 + world], INTERACT_FROM + 5)
        np.testing.assert_array_equal(single[:, 0], together[:, world])


def random_weights(mask: FingerMask, folder: Path) -> dict[str, Path]:
    """Files of a stabiliser and a residual B with random weights."""
    torch.manual_seed(0)
    sizes = {key: value.shape[1] for key, value in observation(1).items()}
    networks = [ActorCritic(FEATURE_SIZE, 22), ActorCritic(residual_b_size(sizes["task_b"], sizes["context"]), 28)]
    for network in networks:
        torch.nn.init.normal_(network.mean_layer.weight, std=0.3)
    paths = {role: folder / f"{role}.safetensors" for role in ("stabiliser", "residual")}
    stabiliser = StabiliserPolicy(networks[0], bound=0.1, masks=[mask], skill="GraspBall")
    stabiliser.save(paths["stabiliser"], networks[0], model_hash=model_hash_of("GraspBall"))
    residual = ResidualBPolicy(networks[1], bound=bound_of(ResidualBConfig(), "PushButton"), mask=mask, pair=PAIR)
    residual.save(paths["residual"], networks[1], model_hash=model_hash_of(PAIR))
    return paths


def test_tensors_in_tensors_out_and_the_same_numbers(tmp_path: Path) -> None:
    mask = FingerMask.parse("TH+MF+RF")
    weights = random_weights(mask, tmp_path)
    arrays = observation(3)
    tensors = {key: torch.from_numpy(value) for key, value in arrays.items()}
    actions = []
    for obs, kind in ((arrays, np.ndarray), (tensors, torch.Tensor)):
        method = make_method("dexcompose", PAIR, mask=str(mask), base_policy=SeededPolicy(), device="cpu", **weights)
        method.reset(obs, {}, np.arange(3), np.array([5, 6, 7]))
        rolled = [method.act(obs) for _ in range(INTERACT_FROM + 3)]
        method.reset(obs, {}, np.array([1]), np.array([8]))  # one world starts anew
        rolled += [method.act(obs) for _ in range(INTERACT_FROM + 3)]
        assert all(isinstance(action, kind) for action in rolled)
        actions.append(np.stack([np.asarray(action) for action in rolled]))
    np.testing.assert_array_equal(*actions)
    plain = roll(make_method("frozen", PAIR, base_policy=SeededPolicy()), arrays, [5, 6, 7], INTERACT_FROM + 3)
    assert not np.array_equal(plain[-1], actions[0][INTERACT_FROM + 2]), "the residuals act"


def test_device_is_an_option_that_does_not_determine_the_actions() -> None:
    method: Any = make_method("frozen", PAIR, base_policy=SeededPolicy(), device="cpu")
    assert method.device == torch.device("cpu")
    assert method.describe() == make_method("frozen", PAIR, base_policy=SeededPolicy()).describe()  # type: ignore[attr-defined]
    for device in ("cuda:99", "abacus"):
        with pytest.raises(ValueError, match=f"device is '{device}'"):
            make_method("frozen", PAIR, device=device)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder in place of the shipped files."""
    (tmp_path / "masks").mkdir()
    monkeypatch.setenv("DEXCOMPOSE_PRETRAINED", str(tmp_path))
    return tmp_path


def write_mask(path: Path, mask: str, selector: str) -> None:
    Selection(FingerMask.parse(mask), selector, PAIR, "because", {}).save(path)


def test_masks_are_chosen_by_file_by_name_and_by_selector(folder: Path) -> None:
    write_mask(folder / "masks" / f"{PAIR}.json", "TH+MF+RF", "utility")
    write_mask(folder / "masks" / f"{PAIR}-heuristic.json", "TH+FF", "heuristic")
    write_mask(folder / "mine.json", "TH+LF", "oracle")
    assert choose_mask(PAIR) == (FingerMask.parse("TH+MF+RF"), "utility")
    assert choose_mask(PAIR, selector="heuristic") == (FingerMask.parse("TH+FF"), "heuristic")
    assert choose_mask(PAIR, str(folder / "mine.json")) == (FingerMask.parse("TH+LF"), "oracle")
    assert choose_mask(PAIR, "lf+th") == (FingerMask.parse("TH+LF"), "given")


def test_missing_and_spoilt_masks(folder: Path) -> None:
    with pytest.raises(ArtefactError, match=f"select-mask {PAIR}"):
        choose_mask(PAIR)
    with pytest.raises(ArtefactError, match="selector 'heuristic'"):
        choose_mask(PAIR, selector="heuristic")
    with pytest.raises(ValueError, match="unknown finger"):
        choose_mask(PAIR, "TH+XX")
    (folder / "masks" / f"{PAIR}.json").write_text("[1, 2]")
    with pytest.raises(ArtefactError, match="truncated, damaged or foreign"):
        choose_mask(PAIR)


def test_the_mask_of_another_pair_is_refused(folder: Path) -> None:
    write_mask(folder / "mine.json", "TH+LF", "oracle")
    with pytest.raises(ArtefactError, match=rf"mine\.json.*pair is '{PAIR}'; expected 'PickStick-PushButton'"):
        choose_mask("PickStick-PushButton", folder / "mine.json")


def test_stabiliser_of_the_pair_comes_before_that_of_the_skill(folder: Path) -> None:
    with pytest.raises(ArtefactError, match="no stabiliser"):
        stabiliser_path(PAIR)
    (folder / "stabiliser-GraspBall.safetensors").touch()
    assert stabiliser_path(PAIR).name == "stabiliser-GraspBall.safetensors"
    (folder / f"stabiliser-{PAIR}.safetensors").touch()
    assert stabiliser_path(PAIR).name == f"stabiliser-{PAIR}.safetensors"
    with pytest.raises(ArtefactError, match="no residual"):
        residual_path(PAIR)
