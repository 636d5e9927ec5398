"""The README's tables, from committed results.

    python benchmarks/readme_table.py

Prints Markdown; a test keeps the README up to date with it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dexcompose_agents.evaluation.published import published_success
from dexcompose_agents.evaluation.statistics import wilson_interval
from dexcompose_agents.runtime.provenance import read_json
from dexcompose_envs import skill_names

RESULTS = Path(__file__).parent / "results"
METHODS = ("frozen", "no-stabiliser", "zero-shot", "dexcompose", "oracle")
LOST = ("init", "transition", "drop")
REFERENCE = "dexcompose"
LEARNERS = {"ppo": "PPO", "sac": "SAC", "tqc": "TQC", "crossq": "CrossQ"}


def all_pairs(results: dict[str, Any]) -> str:
    """Success and losses of every pair and method, %, beside what was published."""
    runs = {(run["pair"], run["method"]): run for run in results["runs"]}
    pairs = sorted({pair for pair, _ in runs})
    rows = [
        (pair, *(_cell([runs[pair, method]]) for method in METHODS), _published(pair)) for pair in pairs
    ]  # fmt: skip
    means = [_cell([runs[pair, method] for pair in pairs]) for method in METHODS]
    return table(("pair", *METHODS, "published, Isaac Lab"), [*rows, ("mean", *means, "")])


def differences(results: dict[str, Any]) -> str:
    """By how many points the reference is over the other methods, with paired bootstrap intervals."""
    rows = []
    for method in METHODS:
        for row in results["overall"]:
            if row["method"] == method != REFERENCE:
                low, high = (-100 * row["difference95"][end] for end in ("high", "low"))
                rows.append((f"`{method}`", f"{-100 * row['difference']:+.1f} ({low:.1f} to {high:.1f})"))
    return table((f"`{REFERENCE}` over", "points"), rows)


def selectors(results: dict[str, Any]) -> str:
    """Success of the masks of each selector on the paper's four pairs, %, with the mask."""
    runs = {(run["selector"], run["pair"]): run for run in results["runs"]}
    pairs = sorted({pair for _, pair in runs})
    rows = []
    for selector in dict.fromkeys(run["selector"] for run in results["runs"]):
        mine = [runs[selector, pair] for pair in pairs]
        cells = [f"{100 * run['success']['mean']:.1f} ({run['mask']})" for run in mine]
        rows.append((f"`{selector}`", *cells, f"{100 * sum(run['success']['mean'] for run in mine) / len(mine):.1f}"))
    return table(("selector", *pairs, "mean"), rows)


def grid(results: dict[str, Any], method: str = REFERENCE) -> str:
    """Success of one method on every pair, %: objects by fixtures."""
    success = {run["pair"]: run["success"]["mean"] for run in results["runs"] if run["method"] == method}
    held, fixtures = skill_names("retention"), skill_names("interaction")
    rows = [(a, *(f"{100 * success[f'{a}-{b}']:.1f}" for b in fixtures)) for a in held]
    return table(("", *fixtures), rows)


def with_noise(noisy: dict[str, Any], clean: dict[str, Any]) -> str:
    """Success with and without sensor noise on the same episodes, mean of all pairs, %."""
    seeds = sorted({seed for run in noisy["runs"] for seed in run["per_seed"]})
    methods = [method for method in METHODS if any(run["method"] == method for run in noisy["runs"])]
    rows = []
    for name, results in (("with", noisy), ("without", clean)):
        found = [[r["per_seed"][s] for r in results["runs"] for s in seeds if r["method"] == m] for m in methods]
        rows.append((name, *(f"{100 * sum(values) / len(values):.1f}" for values in found)))
    return table(("sensor noise", *methods), rows)


def training_seeds(rows: Sequence[dict[str, Any]]) -> str:
    """Success of what was trained with other seeds, %."""
    trained = list(dict.fromkeys(row["training_seed"] for row in rows))
    found = {(row["pair"], row["training_seed"]): row for row in rows}
    lines = [
        (pair, f"`{method}`", *(f"{100 * found[pair, each][method]['success']['mean']:.1f}" for each in trained))
        for pair in dict.fromkeys(row["pair"] for row in rows)
        for method in ("zero-shot", REFERENCE)
    ]
    return table(("pair", "method", *(_training(each) for each in trained)), lines)


def learners(folder: Path) -> str:
    """Held-out success (%) and return of residual B by learner, mean (least to greatest) over training seeds."""
    rows, steps = [], {name: list[float]() for name in LEARNERS}
    for pair in sorted(path.name for path in folder.iterdir()):
        base = read_json(folder / pair / "base.json")["held_out"]
        found = {
            name: [read_json(path) for path in sorted((folder / pair).glob(f"{name}-*.json"))] for name in LEARNERS
        }
        for what, scale in (("success", 100.0), ("return", 1.0)):
            cells = [f"{scale * base[what]:.1f}"]
            for results in found.values():
                values = [scale * result["held_out"]["final"][what] for result in results]
                cells.append(f"{sum(values) / len(values):.1f} ({min(values):.1f} to {max(values):.1f})")
            rows.append((f"{pair}, {what}", *cells))
        for name, results in found.items():
            steps[name] += [result["curve"][-1]["steps"] / 1000 for result in results]
    budget = [f"{min(values):.0f} to {max(values):.0f}" for values in steps.values()]
    rows.append(("thousands of control steps", "", *budget))
    return table(("", "pi_B alone", *LEARNERS.values()), rows)


def ablation(results: Sequence[dict[str, Any]]) -> str:
    """Success of residual B with each setting turned back, %: held out (95 % interval), and on training's episodes."""
    pairs = list(dict.fromkeys(row["pair"] for row in results))
    rows = []
    for setting in dict.fromkeys(row["setting"] for row in results):
        cells = []
        for pair in pairs:
            mine = [row for row in results if (row["pair"], row["setting"]) == (pair, setting)]
            successes, episodes = (sum(row["held_out"][name] for row in mine) for name in ("successes", "episodes"))
            low, high = wilson_interval(successes, episodes)
            last = [row["curve"][-1]["composed_success"] for row in mine if "curve" in row]
            cells.append(f"{100 * successes / episodes:.1f} ({100 * low:.1f} to {100 * high:.1f})")
            cells.append(f"{100 * sum(last) / len(last):.1f}" if last else "")
        rows.append((f"`{setting}`", *cells))
    head = [f"{pair}, {which}" for pair in pairs for which in ("held out", "training")]
    return table(("", *head), rows)


def _training(name: int | str) -> str:
    return f"seed {name}" if isinstance(name, int) else name


def _cell(runs: Sequence[dict[str, Any]]) -> str:
    """Success and, in brackets, lost objects, %, over the rollouts of some runs."""
    episodes = sum(run["episodes"] for run in runs)
    lost = sum(run["outcomes"][how] for run in runs for how in LOST)
    return f"{100 * sum(run['successes'] for run in runs) / episodes:.1f} ({100 * lost / episodes:.1f})"


def _published(pair: str) -> str:
    values = [published_success(pair, method) for method in ("zero-shot", "dexcompose")]
    return ", ".join(f"{value:.1f}" for value in values if value is not None)


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [head, *rows]
    text = ["| " + " | ".join(line) + " |" for line in lines]
    text.insert(1, "|" + "---|" * len(head))
    return "\n".join(line.replace("|  |", "| |") for line in text)


def tables() -> dict[str, str]:
    """All tables by name."""
    pairs, chosen, scratch, noisy = (
        read_json(RESULTS / name / "results.json") for name in ("pairs", "selectors", "from_scratch", "sensor_noise")
    )
    return {
        "all pairs": all_pairs(pairs),
        "differences": differences(pairs),
        "selectors": selectors(chosen),
        "from scratch": grid(scratch),
        "sensor noise": with_noise(noisy, pairs),
        "training seeds": training_seeds(read_json(RESULTS / "training_seeds.json")),
        "learners": learners(RESULTS / "learner_bakeoff"),
        "ablation": ablation(read_json(RESULTS / "residual_ablation.json")),
    }


if __name__ == "__main__":
    print("\n\n".join(tables().values()))
