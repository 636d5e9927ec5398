"""The whole chain: demonstrations, base policies, held states, release tests, masks, stabilisers, residuals.

The output folder is laid out like the package's own folders: `pretrained/` holds weights, `masks/` and `release_test/`,
`held_states/` the libraries, and besides there are `demos/` and `logs/`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from dexcompose_agents.runtime.compute import GPU_PRESETS, Piece, physics_options
from dexcompose_agents.stages import pipeline
from dexcompose_agents.stages.chain import Stage, run_stages
from dexcompose_agents.stages.pipeline import Advance
from dexcompose_envs import PAIRS, RETENTION_SKILLS, SKILLS, FingerMask, parse_pair

__all__ = ["Budget", "budget", "train_all"]

DEFAULT_SELECTOR = "utility"
SELECTORS = (DEFAULT_SELECTOR, "heuristic")
"""Selectors that masks are made with. Stabilisers and residuals are trained with the default's."""


@dataclass(frozen=True)
class Budget:
    """How much of everything a chain makes."""

    preset: str
    """Preset of the learners: "cpu", "paper" or "test"."""
    demonstrations: int = 50
    """Demonstrations per skill."""
    demonstration_seed: int = 0
    """Episode seed of the first demonstration."""
    held_states: int = pipeline.HELD_STATES
    """Held states per retention skill."""
    release_rollouts: int = 100
    """Rollouts per mask of the release test."""
    release_steps: int = 100
    """Control steps of a rollout of the release test."""
    scripted_held_states: bool = False
    """Whether the scripted expert makes the held states in place of the base policy, which learned nothing: tests."""
    residual_episode_steps: int | None = None
    """Length of an episode in the training of residual B; None: that of the pair."""
    device: str | None = None
    """Device of everything that a GPU can do; None: the preset's."""


def budget(preset: str, device: str | None = None) -> Budget:
    """The budget of a preset.

    Args:
        preset: "cpu" (about two hours on two cores), "fast" (minutes on a GPU), "paper" (on a GPU, too), or "test" (a
            minute; proves only that it runs).
        device: Device to train on; None: the preset's.

    Raises:
        ValueError: If the preset is unknown.
    """
    if preset in ("cpu", *GPU_PRESETS):
        return Budget(preset, device=device)
    if preset == "test":
        return Budget(
            preset, demonstrations=2, held_states=8, release_rollouts=1, release_steps=20, scripted_held_states=True,
            residual_episode_steps=60, device=device,
        )  # fmt: skip
    raise ValueError(f"unknown preset '{preset}'; expected one of cpu, {', '.join(GPU_PRESETS)}, test")


def train_all(
    out: Path,
    amount: Budget,
    only: Sequence[str] = (),
    say: Callable[[str], None] = print,
    piece: Piece | None = None,
) -> None:
    """Run the chain, or go on with it; a stage whose inputs and settings are unchanged is skipped.

    Args:
        out: Folder for everything.
        amount: See `budget`.
        only: Skills and pairs to make; a skill alone stops short of masks and residuals. By default everything.
        say: Takes one line per stage.
        piece: Time of this call; by default without limit.

    Raises:
        StageError: If the folder holds something else, or a file in it is damaged.
        ValueError: If a name is unknown.
        KeyboardInterrupt: When the time is over, with everything saved.
    """
    skills, pairs = _chosen(only)
    run_stages(_Chain(out, amount, piece or Piece()).stages(skills, pairs), out, amount.preset, say)


def _chosen(only: Sequence[str]) -> tuple[list[str], list[str]]:
    """Skills and pairs to make, in their fixed order."""
    every = ["-".join(pair) for pair in PAIRS]
    unknown = [name for name in only if name not in SKILLS and name not in every]
    if unknown:
        raise ValueError(f"unknown skill or pair '{unknown[0]}'; expected one of {', '.join([*SKILLS, *every])}")
    pairs = [pair for pair in every if not only or pair in only]
    needed = {skill for pair in pairs for skill in parse_pair(pair)} | set(only)
    return [skill for skill in SKILLS if not only or skill in needed], pairs


class _Chain:
    """The stages of one output folder. A stage that depends on the content of a mask is made once the mask is there."""

    def __init__(self, out: Path, amount: Budget, piece: Piece) -> None:
        self.out, self.amount, self.piece = out, amount, piece
        self.physics = physics_options(amount.preset, amount.device)
        # Which device it was doesn't count when a stage is to be skipped; the engine does.
        self.engine = {"backend": self.physics["backend"]} if self.physics else {}

    def stages(self, skills: Sequence[str], pairs: Sequence[str]) -> Iterator[Stage]:
        """All stages in order."""
        retention = [skill for skill in skills if skill in RETENTION_SKILLS]
        yield from map(self.demonstrations, skills)
        yield from map(self.policy, skills)
        yield from map(self.held_states, retention)
        yield from map(self.release_test, retention)
        for pair in pairs:
            yield from (self.mask(pair, selector) for selector in SELECTORS)
        for skill in retention:
            own = [pair for pair in pairs if parse_pair(pair)[0] == skill]
            if own:
                yield self.stabiliser(skill, own)
        yield from map(self.residual, pairs)

    def demonstrations(self, skill: str) -> Stage:
        amount = self.amount
        config = {"episodes": amount.demonstrations, "seed": amount.demonstration_seed}

        def make(work: Path, advance: Advance) -> None:
            from dexcompose_envs.demonstrations import dataset_id_of

            if not (work / skill / dataset_id_of(skill)).exists():
                pipeline.record_demonstrations(skill, **config, root=work / skill, advance=advance)

        return self._stage(f"demonstrations {skill}", skill, make, {skill: _demos(skill)}, config=config)

    def policy(self, skill: str) -> Stage:
        config = pipeline.policy_config(self.amount.preset, skill, self.amount.device)
        name = f"{skill}.safetensors"

        def make(work: Path, advance: Advance) -> None:
            pipeline.train_policy(skill, config, self.out / _demos(skill), work / name, advance, self.piece)

        settings = _without_device(config.to_dict())
        return self._stage(f"policy {skill}", skill, make, {name: _weights(skill)}, (_demos(skill),), settings)

    def held_states(self, skill: str) -> Stage:
        amount, weights = self.amount, _weights(skill)
        config = {"count": amount.held_states, "scripted": amount.scripted_held_states, **self.engine}

        def make(work: Path, advance: Advance) -> None:
            path = work / f"{skill}.npz"
            if amount.scripted_held_states:
                from dexcompose_agents.held_states.collection import collect
                from dexcompose_envs.skills import make_expert

                expert, count = make_expert(skill), amount.held_states
                collect(skill, expert, count, out=path, policy_hash="scripted", num_envs=count, progress=advance)
            else:
                watched = self.piece.watch(advance)
                pipeline.collect_held_states(
                    skill, self.out / weights, amount.held_states, path, watched, **self.physics
                )

        outputs = {f"{skill}.npz": _library(skill)}
        return self._stage(f"held states {skill}", skill, make, outputs, (weights,), config)

    def release_test(self, skill: str) -> Stage:
        from dexcompose_agents.attribution import ReleaseTestConfig

        config = ReleaseTestConfig(rollouts=self.amount.release_rollouts, steps=self.amount.release_steps)

        def make(work: Path, advance: Advance) -> None:
            from dexcompose_agents.attribution import run_release_test
            from dexcompose_envs.held_states import HeldStateLibrary

            library = HeldStateLibrary.load(self.out / _library(skill))
            run_release_test(
                skill, config, library=library, out=work, progress=self.piece.watch(advance),
                num_envs=pipeline.GPU_WORLDS if self.physics else 64, env_kwargs=self.physics,
            )  # fmt: skip

        folder = Path("pretrained") / "release_test"
        outputs = {f"release_test.{kind}": folder / f"{skill}.{kind}" for kind in ("csv", "png", "json")}
        settings = asdict(config) | self.engine
        return self._stage(f"release test {skill}", skill, make, outputs, (_library(skill),), settings)

    def mask(self, pair: str, selector: str) -> Stage:
        skill_a, skill_b = parse_pair(pair)
        table = Path("pretrained") / "release_test" / f"{skill_a}.csv"

        def make(work: Path, advance: Advance) -> None:
            pipeline.select_mask(
                pair, selector, work / "mask.json", table=self.out / table, demonstrations=self.out / _demos(skill_b)
            )

        from dexcompose_agents.attribution import make_selector

        config = {"selector": selector, "settings": vars(make_selector(selector))}
        inputs = (table, _demos(skill_b))
        return self._stage(f"mask {pair} {selector}", pair, make, {"mask.json": _mask(pair, selector)}, inputs, config)

    def stabiliser(self, skill: str, pairs: Sequence[str]) -> Stage:
        from dexcompose_agents.residual.config import stabiliser_preset

        masks = tuple(dict.fromkeys(str(self._selected(pair)) for pair in pairs))
        config = pipeline.on_device(stabiliser_preset(self.amount.preset, masks=masks), self.amount.device)

        def make(work: Path, advance: Advance) -> None:
            library = self.out / _library(skill)
            pipeline.train_stabiliser(skill, config, work, advance, self.piece, held_states=library)

        outputs = {"stabiliser.safetensors": _weights(f"stabiliser-{skill}"), **_logs(f"stabiliser-{skill}")}
        settings = _without_device(asdict(config))
        return self._stage(f"stabiliser {skill}", skill, make, outputs, (_library(skill),), settings)

    def residual(self, pair: str) -> Stage:
        from dexcompose_agents.residual.config import residual_b_preset

        skill_a, skill_b = parse_pair(pair)
        mask = self._selected(pair)
        config = pipeline.on_device(residual_b_preset(self.amount.preset), self.amount.device)
        policy, stabiliser = _weights(skill_b), _weights(f"stabiliser-{skill_a}")
        steps = self.amount.residual_episode_steps

        def make(work: Path, advance: Advance) -> None:
            options = {} if steps is None else {"max_episode_steps": steps}
            pipeline.train_residual(
                pair, config, mask, self.out / policy, self.out / stabiliser, work, advance, self.piece,
                held_states=self.out / _library(skill_a), **options,
            )  # fmt: skip

        outputs = {"residual_b.safetensors": _weights(f"residual-{pair}"), **_logs(f"residual-{pair}")}
        inputs = (policy, stabiliser, _library(skill_a))
        settings = {"mask": str(mask), "episode_steps": steps, **_without_device(asdict(config))}
        return self._stage(f"residual {pair}", pair, make, outputs, inputs, settings)

    def _stage(
        self,
        name: str,
        scene: str,
        make: Callable[[Path, Advance], None],
        outputs: dict[str, Path],
        inputs: tuple[Path, ...] = (),
        config: dict[str, Any] | None = None,
    ) -> Stage:
        return Stage(name, make, outputs, inputs, {"model_hash": pipeline.model_hash(scene), **(config or {})})

    def _selected(self, pair: str) -> FingerMask:
        """The mask that the default selector chose for a pair."""
        from dexcompose_agents.attribution import Selection

        return Selection.load(self.out / _mask(pair, DEFAULT_SELECTOR)).mask


def _without_device(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings that decide a result: which device computed it is none of them."""
    kept = {name: value for name, value in settings.items() if name != "device"}
    return {name: _without_device(value) if isinstance(value, Mapping) else value for name, value in kept.items()}


def _demos(skill: str) -> Path:
    return Path("demos") / skill


def _weights(name: str) -> Path:
    return Path("pretrained") / f"{name}.safetensors"


def _library(skill: str) -> Path:
    return Path("held_states") / f"{skill}.npz"


def _mask(pair: str, selector: str) -> Path:
    ending = "" if selector == DEFAULT_SELECTOR else f"-{selector}"
    return Path("pretrained") / "masks" / f"{pair}{ending}.json"


def _logs(name: str) -> dict[str, Path]:
    """Where the training logs of a residual go."""
    return {f"{log}.csv": Path("logs") / name / f"{log}.csv" for log in ("metrics", "evaluations")}
