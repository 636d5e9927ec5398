"""The stages from demonstrations to residuals, each as one call; `train_all` chains them.

Every stage is a function of settings and files: what it reads and where it writes are arguments, with the shipped
files as defaults where a default makes sense. All of them resume after an interruption.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from dexcompose_agents.artefacts.pretrained_files import file_hash, pretrained_folder
from dexcompose_agents.runtime.compute import Piece, physics_options
from dexcompose_envs import PAIRS, RETENTION_SKILLS, FingerMask, __version__, parse_pair
from dexcompose_envs.files import check_writable_dir

if TYPE_CHECKING:
    from dexcompose_agents.attribution import Selection
    from dexcompose_agents.diffusion.config import TrainingConfig
    from dexcompose_agents.residual.config import ResidualBConfig, StabiliserConfig
    from dexcompose_envs.demonstrations import Recording

__all__ = [
    "collect_held_states",
    "record_demonstrations",
    "select_mask",
    "train",
    "train_policy",
    "train_residual",
    "train_stabiliser",
]

Trained = TypeVar("Trained", "StabiliserConfig", "ResidualBConfig")

Advance = Callable[[float, float], None]
"""``advance(done, total)``."""

DEMONSTRATIONS = Path("runs/demos")
"""Default folder of recorded demonstrations (Minari datasets)."""
HELD_STATES = 4096
"""States per held-state library (Eq. 4)."""
GPU_WORLDS = 1024
"""Worlds stepped at once where a GPU collects held states or tests releases."""
STAGES = ("policy", "held-states", "stabiliser", "residual")


def record_demonstrations(skill: str, episodes: int, seed: int, root: Path, advance: Advance) -> Recording:
    """Record successful demonstrations of the scripted expert of ``skill`` as a Minari dataset in the folder ``root``.

    Raises:
        FileExistsError: If the folder has such a dataset.
        RecordingError: If too few attempts succeed.
        OSError: If the folder cannot be written.
    """
    from dexcompose_envs.demonstrations import record
    from dexcompose_envs.skills import make_expert

    return record(skill, make_expert(skill), episodes=episodes, seed=seed, root=root, progress=advance)


def train(
    stage: str,
    name: str,
    preset: str,
    out: Path,
    advance: Advance,
    *,
    data: Path | None = None,
    masks: Sequence[str] = (),
    stabiliser: Path | None = None,
    device: str | None = None,
    piece: Piece | None = None,
) -> None:
    """Train one stage into the folder ``out``, or go on with what is there.

    Args:
        stage: One of `STAGES`.
        name: Skill, or pair for "residual".
        preset: "cpu", "fast", "paper" or "test".
        out: Folder for weights, checkpoint and logs.
        advance: Called with ``(done, total)``.
        data: Folder of the demonstrations (policy), or held-state library (stabiliser, residual).
        masks: Preserved fingers: any number for the stabiliser, one for the residual; by default the shipped masks.
        stabiliser: Weights of stabiliser A (residual); by default the shipped ones.
        device: Device to train on; by default the preset's.
        piece: Time of this call; by default without limit.

    Raises:
        KeyboardInterrupt: When the time is over, with everything saved.
        ValueError: If a name, preset or file is not what the stage needs.
        OSError: If the folder cannot be written.
    """
    from dexcompose_agents.artefacts.shipped import choose_mask, stabiliser_path

    check_writable_dir(out)
    library = {} if data is None else {"held_states": data}
    piece = piece or Piece()
    if stage == "policy":
        config = policy_config(preset, name, device)
        train_policy(name, config, data or DEMONSTRATIONS, out / f"{name}.safetensors", advance, piece)
    elif stage == "held-states":
        count = 64 if preset == "test" else HELD_STATES
        options = physics_options(preset, device)
        collect_held_states(name, _shipped_policy(name), count, out / f"{name}.npz", piece.watch(advance), **options)
    elif stage == "stabiliser":
        from dexcompose_agents.residual.config import stabiliser_preset

        preserved = tuple(str(FingerMask.parse(mask)) for mask in masks) or shipped_masks(name)
        settings = on_device(stabiliser_preset(preset, masks=preserved), device)
        train_stabiliser(name, settings, out, advance, piece, **library)
    elif stage == "residual":
        from dexcompose_agents.residual.config import residual_b_preset

        if len(masks) > 1:
            raise ValueError(f"got the masks {', '.join(masks)}; expected one, a residual belongs to one mask")
        mask = choose_mask(name, masks[0] if masks else None)[0]
        policy = _shipped_policy(parse_pair(name)[1])
        stabiliser = stabiliser or stabiliser_path(name)
        residual = on_device(residual_b_preset(preset), device)
        train_residual(name, residual, mask, policy, stabiliser, out, advance, piece, **library)
    else:
        raise ValueError(f"unknown stage '{stage}'; expected one of {', '.join(STAGES)}")


def _shipped_policy(skill: str) -> Path:
    return pretrained_folder() / f"{skill}.safetensors"


def on_device(config: Trained, device: str | None) -> Trained:
    """Settings of a residual's training on another device; None leaves them as they are."""
    return config if device is None else replace(config, ppo=replace(config.ppo, device=device))


def policy_config(preset: str, skill: str, device: str | None = None) -> TrainingConfig:
    """Settings of a base policy under a preset of the pipeline ("cpu", "fast", "paper" or "test").

    Args:
        preset: The preset.
        skill: The skill.
        device: Device to train on; by default the preset's.

    Raises:
        ValueError: If preset or skill is unknown.
    """
    from dexcompose_agents.diffusion import config

    chosen = config.preset("tiny" if preset == "test" else preset, skill)
    return chosen if device is None else replace(chosen, device=device)


def train_policy(
    skill: str, config: TrainingConfig, demonstrations: Path, out: Path, advance: Advance, piece: Piece | None = None
) -> None:
    """Train the base policy of a skill by behaviour cloning; resumes from ``<out>.checkpoint``.

    Args:
        skill: E.g. "PushButton".
        config: Settings.
        demonstrations: Folder with the recorded dataset of the skill.
        out: Weight file to write.
        advance: Called with ``(steps done, steps)``.
        piece: Time of this call.

    Raises:
        FileNotFoundError: If the folder has no dataset of the skill.
        DatasetError: If its episodes cannot be used.
        ValueError: If it was recorded in another version or physics model of the environment.
    """
    from dexcompose_agents.diffusion import training
    from dexcompose_agents.diffusion.dataset import load_minari
    from dexcompose_envs.demonstrations import dataset_id_of, minari_root

    about = _recorded_facts(skill, demonstrations)
    with minari_root(demonstrations):
        episodes = load_minari(dataset_id_of(skill), "task_a" if skill in RETENTION_SKILLS else "task_b")
    training.train(
        episodes,
        config,
        out,
        provenance={"skill": skill, "dataset_id": dataset_id_of(skill), **about},
        progress=lambda state: advance(state.fraction * state.steps, state.steps),
        max_minutes=None if piece is None else piece.remaining,
    )


def _recorded_facts(skill: str, demonstrations: Path) -> dict[str, Any]:
    """Environment version, model hash and expert seeds of a recorded dataset, which must fit the environment."""
    from dexcompose_envs.demonstrations import dataset_id_of, load_demonstrations
    from dexcompose_envs.demonstrations.datasets import METADATA_KEY

    dataset_id = dataset_id_of(skill)
    try:
        about: dict[str, Any] = load_demonstrations(dataset_id, demonstrations).storage.metadata[METADATA_KEY]
    except (KeyError, ValueError, TypeError, AttributeError) as error:
        raise ValueError(f"dataset '{dataset_id}' in '{demonstrations}' is damaged or not ours: {error!r}") from None
    for key, here in (("env_version", __version__), ("model_hash", model_hash(skill))):
        if about.get(key) != here:
            raise ValueError(f"dataset '{dataset_id}' was recorded with {key} {about.get(key)!r}; expected {here!r}")
    return {key: about[key] for key in ("env_version", "model_hash", "policy", "episode_seeds")}


@cache
def model_hash(name: str) -> str:
    """Hash of the physics model of a skill or a pair."""
    from dexcompose_envs.scene import build_scene

    if "-" in name:
        return str(build_scene(*parse_pair(name)).model_hash)
    skills = (name, None) if name in RETENTION_SKILLS else (None, name)
    return str(build_scene(*skills).model_hash)


def collect_held_states(
    skill: str,
    weights: Path,
    count: int,
    out: Path,
    advance: Advance,
    *,
    backend: str = "mujoco",
    device: str | None = None,
) -> None:
    """Roll the base policy of a retention skill out and keep the states that hold the object (Eq. 4).

    Args:
        skill: Retention skill.
        weights: Weight file of its base policy.
        count: States wanted.
        out: Library to write (``.npz``).
        advance: Called with ``(states, count)``.
        backend: Physics, "mujoco" or "warp".
        device: Where "warp" and the policy run.

    Raises:
        WeightsError: If the weights are missing or corrupt.
        CollectionError: If too few rollouts end in a held state.
    """
    from dexcompose_agents.diffusion.agent import PolicyAgent
    from dexcompose_agents.held_states.collection import collect

    agent = PolicyAgent.load(skill, path=weights, device=device or "cpu")
    on_gpu = {"num_envs": GPU_WORLDS, "env_kwargs": {"backend": backend, "device": device}}
    options: dict[str, Any] = on_gpu if backend == "warp" else {}
    collect(skill, agent, count, out=out, policy_hash=file_hash(weights), progress=advance, **options)


def shipped_masks(skill: str) -> tuple[str, ...]:
    """The shipped masks of all pairs of a retention skill, each once.

    Raises:
        ShippedFileError: If a pair has none.
    """
    from dexcompose_agents.artefacts.shipped import choose_mask

    pairs = ["-".join(pair) for pair in PAIRS if pair[0] == skill]
    return tuple(dict.fromkeys(str(choose_mask(pair)[0]) for pair in pairs))


def train_stabiliser(
    skill: str,
    config: StabiliserConfig,
    out: Path,
    advance: Advance,
    piece: Piece | None = None,
    **env_options: Any,
) -> None:
    """Train stabiliser A (Eqs. 7 to 9) into ``out/stabiliser.safetensors``; see ``residual.training``."""
    from dexcompose_agents.residual import training

    total = config.ppo.iterations
    training.train_stabiliser(
        skill,
        config,
        out,
        progress=lambda row: advance(row["iteration"], total),
        max_minutes=None if piece is None else piece.remaining,
        **env_options,
    )


def train_residual(
    pair: str,
    config: ResidualBConfig,
    mask: FingerMask,
    policy: Path,
    stabiliser: Path,
    out: Path,
    advance: Advance,
    piece: Piece | None = None,
    **env_options: Any,
) -> None:
    """Train residual B (Eqs. 10 to 12) into ``out/residual_b.safetensors``; see ``residual.training``.

    Args:
        pair: "GraspBall-PushButton".
        config: Settings.
        mask: Preserved fingers.
        policy: Weights of pi_B.
        stabiliser: Weights of stabiliser A.
        out: Folder.
        advance: Called with ``(iterations done, iterations)``.
        piece: Time of this call.
        **env_options: Options of the environment, such as ``held_states``.
    """
    from dexcompose_agents.diffusion.policy import load_policy
    from dexcompose_agents.residual import training
    from dexcompose_agents.residual.stabiliser import StabiliserPolicy

    total = config.ppo.iterations
    training.train_residual_b(
        pair,
        mask,
        load_policy(parse_pair(pair)[1], path=policy, device=config.ppo.device),
        StabiliserPolicy.load(stabiliser, config.ppo.device),
        config,
        out,
        progress=lambda row: advance(row["iteration"], total),
        max_minutes=None if piece is None else piece.remaining,
        **env_options,
    )


def select_mask(pair: str, selector: str, out: Path, *, table: Path, demonstrations: Path) -> Selection:
    """Choose the mask of a pair, write the choice as JSON, and return it.

    Args:
        pair: "GraspBall-PushButton".
        selector: "utility" or "heuristic".
        out: JSON file.
        table: CSV table of A's release test.
        demonstrations: Folder with the recorded demonstrations of B.

    Raises:
        ValueError: If table or dataset are not what they should be, or no mask qualifies.
        OSError: If table or demonstrations cannot be read or the file not written.
    """
    from dexcompose_agents.attribution import PairContext, make_candidates, make_selector, measure_usage, read_csv

    skill_a, skill_b = parse_pair(pair)
    check_writable_dir(out.parent)
    if not table.is_file():
        raise FileNotFoundError(f"no release-test table '{table}'; make it with: dexcompose release-test {skill_a}")
    results = read_csv(table)
    usage = measure_usage(_recorded_signals(skill_b, demonstrations))
    selection = make_selector(selector).select(make_candidates(results, usage), PairContext(skill_a, skill_b))
    selection.save(out)
    return selection


def _recorded_signals(skill: str, root: Path) -> list[Any]:
    import gymnasium as gym

    from dexcompose_agents.attribution import EpisodeSignals
    from dexcompose_envs import env_id
    from dexcompose_envs.demonstrations import dataset_id_of, load_demonstrations

    dataset = load_demonstrations(dataset_id_of(skill), root)
    env = gym.make(env_id(skill))
    layout: Any = getattr(env.unwrapped, "layout")  # noqa: B009  (not in the base class's type)
    env.close()
    signals = []
    for episode in dataset.iterate_episodes():
        progress = (episode.infos or {}).get("reward_terms/progress")
        steps = len(episode.actions)
        progress = None if progress is None else progress[-steps:]  # the first row is the info of the reset
        signals.append(EpisodeSignals.from_observations(episode.observations, layout, progress=progress))
    return signals
