"""Which settings of residual B matter: trains with all of them, and with each turned back to the published value.

    python benchmarks/residual_ablation.py --seeds 0 1 --out runs/residual_ablation
    python benchmarks/residual_ablation.py --pairs GraspBall-PushButton --steps 60000 --settings new gamma

Run it again after an interruption: trainings that are there are not made again, and the one that was stopped goes on.
Writes `PAIR/SETTING/seed-N/result.json` (the curve on training seeds, success on held-out episodes) and all of them to
`results.json`. Held-out episodes start from the test part of the held states, at seeds from 2**29 on: above those of
trainings, below evaluation's.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import tyro

from dexcompose_agents.artefacts.shipped import choose_mask, trained_in
from dexcompose_agents.diffusion.policy import load_policy
from dexcompose_agents.evaluation.protocol import make_worlds
from dexcompose_agents.evaluation.statistics import wilson_interval
from dexcompose_agents.evaluation.until_decided import UntilDecided
from dexcompose_agents.methods import make_method
from dexcompose_agents.methods.parts import load_stabiliser
from dexcompose_agents.residual.config import ResidualBConfig, residual_b_preset
from dexcompose_agents.residual.training import train_residual_b
from dexcompose_agents.stages.settings import changed
from dexcompose_envs import PAIRS, parse_pair
from dexcompose_envs.checks import one_of
from dexcompose_envs.files import atomic_write
from dexcompose_envs.rollouts import Episode, run_episodes

FIRST_SEED = 2**29
OLD: Mapping[str, Mapping[str, Any]] = {
    "gamma": {"ppo": {"gamma": 0.99}},
    "gae_lambda": {"ppo": {"gae_lambda": 0.95}},
    "anneal": {"ppo": {"anneal": False}},
    "target_kl": {"ppo": {"target_kl": None}},
    "approach": {"approach_scale": 0.0},
    "tracking": {"tracking_scale": 0.0},
    "drop_penalty": {"drop_penalty": 5.0},
    "shortcut": {"shortcut": False},
    "dimensions": {"dimensions": ("wrist", "fingers")},
    "wrist_error": {"wrist_error": False},
}
"""Each setting as published, or as the paper's text suggests where it is silent, by its name here."""
SETTINGS = ("new", *OLD, "old")
"""All as they are now, each alone turned back, all turned back."""


@dataclass
class Config:
    """What to train and measure."""

    pairs: tuple[str, ...] = tuple("-".join(pair) for pair in PAIRS)
    """Pairs."""
    settings: tuple[str, ...] = SETTINGS
    """new: as in the preset; old: all turned back; else what alone is turned back."""
    seeds: tuple[int, ...] = (0,)
    """Training seeds."""
    steps: int | None = None
    """Budget in control steps; by default the preset's."""
    episodes: int = 128
    """Held-out episodes per training."""
    num_envs: int = 32
    """Worlds stepped together in these."""
    preset: str = "cpu"
    """Preset of the trainings."""
    pretrained: Path | None = None
    """Folder of `dexcompose train all` whose weights, masks and held states are used; by default what ships."""
    out: Path = Path("runs/residual_ablation")
    """Folder."""


def settings_of(config: Config, name: str, seed: int) -> ResidualBConfig:
    """The settings of one training."""
    one_of("setting", name, SETTINGS)
    made = residual_b_preset(config.preset)
    for part in OLD.values() if name == "old" else [OLD.get(name, {})]:
        made = changed(made, part)
    steps = made.ppo.total_steps if config.steps is None else config.steps
    return replace(made, ppo=replace(made.ppo, seed=seed, total_steps=steps))


def held_out(pair: str, config: Config, residual: Path | None) -> dict[str, Any]:
    """Success with a residual (None: without one) on held-out episodes, and its 95 % interval."""
    method = make_method("zero-shot", pair) if residual is None else make_method("dexcompose", pair, residual=residual)
    venv = make_worlds(pair, min(config.num_envs, config.episodes))
    plan = [Episode(FIRST_SEED + number) for number in range(config.episodes)]
    successes = sum(bool(rollout.info["success"]) for rollout in run_episodes(venv, method, plan, UntilDecided()))
    venv.close()
    interval = [round(end, 4) for end in wilson_interval(successes, config.episodes)]
    return {"episodes": config.episodes, "successes": successes, "interval_95": interval}


def curve(folder: Path) -> list[dict[str, float]]:
    """Steps, success and return of each evaluation on training seeds."""
    names = ("steps", "composed_success", "composed_return", "base_success")
    with open(folder / "evaluations.csv", newline="", encoding="utf-8") as file:
        return [{name: float(row[name]) for name in names} for row in csv.DictReader(file)]


def train(pair: str, settings: ResidualBConfig, folder: Path) -> None:
    """One training, or what is left of it."""
    mask, _ = choose_mask(pair)
    policy = load_policy(parse_pair(pair)[1], device=settings.env_device)
    stabiliser = load_stabiliser(pair, mask, device=settings.env_device)
    train_residual_b(pair, mask, policy, stabiliser, settings, folder)


def runs(config: Config) -> Iterator[dict[str, Any]]:
    """The results, one by one; those that are there are read."""
    for pair in config.pairs:
        for name, seed in [("none", 0), *((name, seed) for seed in config.seeds for name in config.settings)]:
            folder = config.out / pair / name / f"seed-{seed}"
            file = folder / "result.json"
            if not file.exists():
                folder.mkdir(parents=True, exist_ok=True)
                result: dict[str, Any] = {"pair": pair, "setting": name, "seed": seed}
                if name == "none":
                    result |= {"held_out": held_out(pair, config, None)}
                else:
                    train(pair, settings_of(config, name, seed), folder)
                    residual = folder / "residual_b.safetensors"
                    result |= {"curve": curve(folder), "held_out": held_out(pair, config, residual)}
                atomic_write(file, json.dumps(result, indent=1) + "\n")
            yield json.loads(file.read_text(encoding="utf-8"))


def main(config: Config) -> list[dict[str, Any]]:
    """Trains, measures and prints one line per training."""
    for seed in config.seeds:
        for name in config.settings:
            settings_of(config, name, seed)  # refuses wrong ones before anything runs
    results = []
    with trained_in(config.pretrained):
        for result in runs(config):
            results.append(result)
            atomic_write(config.out / "results.json", json.dumps(results, indent=1) + "\n")
            tried = result["held_out"]
            rate, (low, high) = tried["successes"] / tried["episodes"], tried["interval_95"]
            best = max((row["composed_success"] for row in result.get("curve", ())), default=float("nan"))
            print(
                f"{result['pair']:22s} {result['setting']:16s} seed {result['seed']}  held out {rate:6.1%} "
                f"[{low:.1%}, {high:.1%}]  best in training {best:.1%}",
                flush=True,
            )
    return results


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
