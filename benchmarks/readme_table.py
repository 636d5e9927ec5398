"""The README's tables, from committed results.

    python benchmarks/readme_table.py

Prints Markdown; a test keeps the README up to date with it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dexcompose_agents.evaluation.published import published_success
from dexcompose_agents.runtime.provenance import read_json
from dexcompose_envs import skill_names

RESULTS = Path(__file__).parent / "results"
METHODS = ("frozen", "no-stabiliser", "zero-shot", "dexcompose", "oracle")
LOST = ("init", "transition", "drop")
REFERENCE = "dexcompose"


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
    }


if __name__ == "__main__":
    print("\n\n".join(tables().values()))
