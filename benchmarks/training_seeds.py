"""How much success owes to the training seed: stabiliser A and residual B trained anew with each, and evaluated.

    python benchmarks/training_seeds.py --training-seeds 1 2 --out runs/training_seeds
    python benchmarks/training_seeds.py --training-seeds 1 --pairs GraspBall-PushButton --seeds 2
    python benchmarks/training_seeds.py --retrained runs/all

Base policies, held states and masks are those that ship, or those of the folders of `dexcompose train all` in
`--retrained`, which are evaluated as they are: there everything was made anew. The evaluation is `dexcompose eval`'s,
on its own seeds and episodes, of `zero-shot` and `dexcompose`, so the rows of one training seed are like those of the
headline table, which stand beside them here as "shipped". Run it again after an interruption, it goes on. Writes
`results.json`; everything of one training lies in PAIR/seed-N.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import tyro

from dexcompose_agents.artefacts.shipped import choose_mask, residual_path, stabiliser_path, trained_in
from dexcompose_agents.diffusion.policy import load_policy
from dexcompose_agents.evaluation.protocol import evaluate
from dexcompose_agents.evaluation.statistics import mean_and_sd
from dexcompose_agents.residual.config import residual_b_preset, stabiliser_preset
from dexcompose_agents.residual.stabiliser import StabiliserPolicy
from dexcompose_agents.residual.training import train_residual_b, train_stabiliser
from dexcompose_envs import PAIRS, FingerMask, parse_pair
from dexcompose_envs.files import atomic_write

METHODS = ("zero-shot", "dexcompose")


@dataclass
class Config:
    """What to train and measure."""

    training_seeds: tuple[int, ...] = (1, 2)
    """Seeds of the trainings; what ships has seed 0."""
    pairs: tuple[str, ...] = tuple("-".join(pair) for pair in PAIRS)
    """Pairs."""
    seeds: int = 8
    """Evaluation seeds."""
    rollouts: int = 32
    """Rollouts per evaluation seed."""
    preset: str = "cpu"
    """Preset of the trainings."""
    retrained: tuple[Path, ...] = ()
    """Folders of `dexcompose train all` to evaluate as well, each by its name."""
    out: Path = Path("runs/training_seeds")
    """Folder."""


def seeded(config: Any, seed: int) -> Any:
    """Settings of a training with another seed."""
    return replace(config, ppo=replace(config.ppo, seed=seed))


def train(pair: str, mask: FingerMask, seed: int, preset: str, folder: Path) -> dict[str, Path]:
    """Both trainings, or what is left of them; the files of weights by the part that they play."""
    a, b = parse_pair(pair)
    parts = {"stabiliser": folder / "a" / "stabiliser.safetensors", "residual": folder / "b" / "residual_b.safetensors"}
    if not parts["stabiliser"].exists():
        train_stabiliser(a, seeded(stabiliser_preset(preset, masks=(str(mask),)), seed), folder / "a")
    if not parts["residual"].exists():
        settings = seeded(residual_b_preset(preset), seed)
        policy = load_policy(b, device=settings.env_device)
        stabiliser = StabiliserPolicy.load(parts["stabiliser"], settings.env_device, mask=mask)
        train_residual_b(pair, mask, policy, stabiliser, settings, folder / "b")
    return parts


def measure(config: Config, pair: str, trained: int | Path | None) -> dict[str, Any]:
    """One training (its seed, or the folder of all of it) and its two evaluations; None is what ships."""
    with trained_in(trained if isinstance(trained, Path) else None):
        return _measure(config, pair, trained)


def _measure(config: Config, pair: str, trained: int | Path | None) -> dict[str, Any]:
    mask, _ = choose_mask(pair)
    if isinstance(trained, int):
        name: int | str = trained
        folder = config.out / pair / f"seed-{trained}"
        parts = train(pair, mask, trained, config.preset, folder)
    else:
        name = "shipped" if trained is None else trained.name
        folder = config.out / pair / name
        parts = {"stabiliser": stabiliser_path(pair), "residual": residual_path(pair)}
    row: dict[str, Any] = {"pair": pair, "training_seed": name, "mask": str(mask)}
    for method in METHODS:
        used = {name: str(parts[name]) for name in ("stabiliser", *(["residual"] if method == "dexcompose" else []))}
        done = evaluate(
            pair, method, seeds=config.seeds, rollouts=config.rollouts, out=folder / "eval", mask=str(mask), **used
        )
        row[method] = {name: done.summary[name] for name in ("episodes", "success", "wilson95", "outcomes")}
    return row


def main(config: Config) -> list[dict[str, Any]]:
    """Trains, measures and prints one line per training."""
    rows: list[dict[str, Any]] = []
    for pair in config.pairs:
        for trained in (None, *config.training_seeds, *config.retrained):
            rows.append(measure(config, pair, trained))
            atomic_write(config.out / "results.json", json.dumps(rows, indent=1) + "\n")
            cells = "  ".join(f"{method} {rows[-1][method]['success']['mean']:6.1%}" for method in METHODS)
            print(f"{pair:22s} training seed {rows[-1]['training_seed']!s:8s} {cells}", flush=True)
        for method in METHODS:
            found = mean_and_sd([row[method]["success"]["mean"] for row in rows if row["pair"] == pair])
            print(
                f"{pair:22s} {method}: {found['mean']:.1%} +- {found['sd'] or 0.0:.1%} over {found['count']} trainings",
                flush=True,
            )
    return rows


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
