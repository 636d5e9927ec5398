"""Writes the pages of `docs/envs/`: what each environment is, taken from docstrings, terms and skills themselves.

python docs/generate.py [--check]
"""

from __future__ import annotations

import argparse
import inspect
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import fields
from pathlib import Path

import gymnasium as gym
import numpy as np

from dexcompose_agents.attribution.mask_table import TABLE, read_trials
from dexcompose_envs import hand
from dexcompose_envs.env import DexComposeEnv
from dexcompose_envs.episodes.phases import OUTCOMES, SETTLE_STEPS
from dexcompose_envs.files import atomic_write
from dexcompose_envs.options import CoreConfig
from dexcompose_envs.registration import env_id
from dexcompose_envs.skills import pair_names, parse_chain, skill_names
from dexcompose_envs.skills.base import InteractionSkill, RetentionSkill, Skill
from dexcompose_envs.skills.chain import Chain

FOLDER = Path(__file__).parent / "envs"
PICTURES = FOLDER / "pictures"
_COMMITTED = Path(__file__).parents[1] / "benchmarks" / "results"
RESULTS = [_COMMITTED / "pairs" / "results.json"]
MASK_TESTS = _COMMITTED / "mask_test"
NOTE = "<!-- Written by `python docs/generate.py`; change the docstrings instead. -->\n"
INDEX = "README.md"


def pages() -> dict[str, str]:
    """File name -> text of all pages, for the skills and pairs that are registered now."""
    names = (*skill_names(), *pair_names())
    return {INDEX: _index(names)} | {f"{name}.md": _page(name) for name in names}


def write(folder: Path) -> None:
    """Writes all pages, and removes those of environments that are gone."""
    made = pages()
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in made.items():
        atomic_write(folder / name, text)
    for path in set(folder.glob("*.md")) - {folder / name for name in made}:
        path.unlink()


def outdated(folder: Path) -> list[str]:
    """Names of the pages that are missing, differ from what would be written, or should not be there."""
    made = pages()
    found = {path.name: path.read_text(encoding="utf-8") for path in folder.glob("*.md")}
    return sorted(name for name in made.keys() | found.keys() if made.get(name) != found.get(name))


def _index(names: Sequence[str]) -> str:
    environments = _table(
        ("id", "what it is", "steps"),
        [(f"[`{env_id(name)}`]({name}.md)", _sentence(name), str(_steps(name))) for name in names],
    )
    low, high, units = hand.ACTION_LOW, hand.ACTION_HIGH, ["m"] * 3 + ["rad"] * (hand.NUM_ACTIONS - 3)
    actions = _table(
        ("action", "joint", "at -1", "at 1", "unit"),
        [
            (str(i), f"`{name}`", f"{low[i]:.3g}", f"{high[i]:.3g}", units[i])
            for i, name in enumerate(hand.ACTION_NAMES)
        ],
    )
    options = _table(
        ("option", "default", "what it is"),
        [(f"`{name}`", f"`{default}`", doc) for name, default, doc in _options()],
    )
    about = inspect.getdoc(DexComposeEnv) or ""
    return "\n\n".join(
        [
            NOTE + "# Environments", environments, "A longer chain, such as `GraspBall-PushButton-PushButton`, is "
            "registered by `dexcompose_envs.registration.register_chain`.", about, f"`OUTCOMES`: "
            f"{', '.join(f'{i} {name}' for i, name in enumerate(OUTCOMES))}.", "## Actions", actions, "## Options",
            "Of `gym.make` and `gym.make_vec`:", options,
        ]
    ) + "\n"  # fmt: skip


def _page(name: str) -> str:
    chain = Chain.of(*parse_chain(name))
    parts = [NOTE + f"# {env_id(name)}", _sentence(name), f'```python\nenv = gym.make("{env_id(name)}")\n```']
    if (PICTURES / f"{name}.jpg").exists():
        parts.append(f"![Moments of a successful episode](pictures/{name}.jpg)")
    parts += _success(chain)
    parts.append(f"An episode ends after {_steps(name)} control steps at the latest (25 per second). "
                 f"Actions, rewards, starts and ends: see [all environments]({INDEX}).")  # fmt: skip
    parts.append("## Observations")
    for key, terms in chain.terms.items():
        layout = chain.layout[key]
        rows = [
            (f"{layout[term.name].start}:{layout[term.name].stop}", f"`{term.name}`", term.doc) for _, term in terms
        ]
        size = max(columns.stop for columns in layout.values())
        parts += [f"`{key}` ({size} numbers):", _table(("columns", "term", "what it is"), rows)]
    for place, skill in chain.skills.items():
        parts += [f"## Skill {place.upper()}: {skill.name}", inspect.getdoc(type(skill)) or "", _facts(skill)]
    if rows := _results(name):
        parts += ["## Results", "Made by `dexcompose bench`: mean and SD over seeds, 95 % Wilson interval.", _table(
            ("method", "success %", "interval", "lost %", "missed %"), rows)]  # fmt: skip
    if rows := _masks(name):
        parts += ["## Masks", "Every mask that holds in half of the release tests, tried before anything was trained "
                  "for one: made by `dexcompose mask-test`, a constant squeeze on training seeds.", _table(
            ("fingers that keep holding", "success %", "interval", "lost %", "missed %"), rows)]  # fmt: skip
    return "\n\n".join(parts) + "\n"


def _success(chain: Chain) -> list[str]:
    """When a composite succeeds; what a skill alone calls success is in its own words below."""
    if len(chain.skills) == 1 or "a" not in chain.skills:
        return []
    held, *done = [skill.name for skill in chain.skills.values()]
    return [f"Success: {' and then '.join(done)} done within its control steps, a finger having touched its fixture by "
            f"then, and the object of {held} still held {SETTLE_STEPS} steps later."]  # fmt: skip


def _results(name: str) -> list[tuple[str, ...]]:
    """What the committed table has of a pair."""
    found = []
    for row in (row for path in RESULTS for row in json.loads(path.read_text(encoding="utf-8"))["runs"]):
        if row["pair"] == name:
            success, (low, high), ended = row["success"], row["wilson95"].values(), row["outcomes"]
            lost = sum(ended[how] for how in ("init", "transition", "drop"))
            shares = [f"{100 * count / row['episodes']:.1f}" for count in (lost, ended["b_fail"])]
            spread = "" if success["sd"] is None else f" ± {100 * success['sd']:.1f}"  # one seed has none
            mean = f"{100 * success['mean']:.1f}{spread}"
            found.append((row["method"], mean, f"{100 * low:.1f} to {100 * high:.1f}", *shares))
    return found


def _masks(name: str) -> list[tuple[str, ...]]:
    """What the committed mask test has of a pair, best first."""
    path = MASK_TESTS / name / TABLE
    if not path.exists():
        return []
    found = []
    for trial in sorted(read_trials(path), key=lambda trial: -trial.success):
        low, high = trial.interval.low, trial.interval.high
        lost = trial.init + trial.transition + trial.drop
        shares = [f"{100 * count / trial.rollouts:.1f}" for count in (trial.succeeded, lost, trial.b_fail)]
        found.append((str(trial.mask), shares[0], f"{100 * low:.1f} to {100 * high:.1f}", *shares[1:]))
    return found


def _facts(skill: Skill) -> str:
    rows = [
        ("description", skill.DESCRIPTION),
        ("control steps alone", str(skill.MAX_STEPS)),
        ("actions that its base policy executes before it plans again", str(skill.EXECUTE_STEPS)),
    ]
    if isinstance(skill, RetentionSkill):
        rows.append(("lost when the object is further from its place in the palm than", f"{skill.RETENTION_RADIUS} m"))
        rows.append(("lost when the object's centre is lower than", f"{skill.DROP_HEIGHT} m"))
        rows.append(("place of the object in the palm frame (m)", _numbers(skill.hold_point)))
    if isinstance(skill, InteractionSkill):
        rows.append(("bounds of a residual: wrist m, wrist rad, fingers rad", _numbers(skill.RESIDUAL_BOUND)))
        rows.append(("probability that its base policy doesn't see a finger", f"{skill.FINGER_DROPOUT:g}"))
        rows.append(("its base policy guesses wrist targets linearly first", "yes" if skill.LINEAR_GUESS else "no"))
        rows.append(("wrist where it starts (m, rad)", _numbers(skill.start_pose[: hand.NUM_WRIST])))
    return _table(("fact", "value"), rows)


def _sentence(name: str) -> str:
    return " Then: ".join(skill.DESCRIPTION for skill in Chain.of(*parse_chain(name)).skills.values())


def _steps(name: str) -> int:
    steps = gym.spec(env_id(name)).max_episode_steps
    assert steps is not None
    return steps


def _options() -> Iterator[tuple[str, object, str]]:
    """Name, default and docstring of each option that isn't a skill's name."""
    lines = inspect.getsource(CoreConfig)
    for item in fields(CoreConfig):
        if item.name not in ("retention", "interactions"):
            doc = lines.split(f"\n    {item.name}:", 1)[1].split('"""', 2)[1]
            yield item.name, item.default, " ".join(doc.split())


def _numbers(values: Sequence[float] | np.ndarray) -> str:
    return ", ".join(f"{value:.3g}" for value in np.round(values, 4) + 0.0)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    cells = [head, ["---"] * len(head), *rows]
    return "\n".join(
        "| " + " | ".join(" ".join(cell.split()).replace("|", "\\|") for cell in row) + " |" for row in cells
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Writes the pages, or with `--check` names those that are outdated."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=FOLDER, help="folder of the pages; default: docs/envs")
    parser.add_argument("--check", action="store_true", help="write nothing; fail if a page is outdated")
    given = parser.parse_args(arguments)
    if not given.check:
        write(given.out)
        return 0
    names = outdated(given.out)
    for name in names:
        print(f"{given.out / name} is outdated; run python docs/generate.py", file=sys.stderr)
    return int(bool(names))


if __name__ == "__main__":
    sys.exit(main())
