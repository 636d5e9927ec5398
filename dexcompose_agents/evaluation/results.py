"""``results.json``: what the episodes of a folder say, computed from ``episodes*.csv`` and nothing else."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from itertools import combinations
from pathlib import Path
from typing import Any

from dexcompose_agents.evaluation.manifest import Manifest, write_json
from dexcompose_agents.evaluation.published import PUBLISHED_LABEL, PUBLISHED_SOURCE, published_success
from dexcompose_agents.evaluation.records import OUTCOME_NAMES, EpisodeRecord, read_episodes
from dexcompose_agents.evaluation.statistics import (
    bootstrap_interval,
    mean_and_sd,
    overall_by_seed,
    paired_difference,
    wilson_interval,
)

__all__ = ["RESULTS_FILE", "summarise", "write_results"]

RESULTS_FILE = "results.json"
RESULTS_FORMAT = 1

Run = tuple[str, str, str]


def _grouped(records: Iterable[EpisodeRecord]) -> dict[Run, list[EpisodeRecord]]:
    groups: dict[Run, list[EpisodeRecord]] = {}
    for record in records:
        groups.setdefault(record.run, []).append(record)
    return groups


def _seed_rates(records: Sequence[EpisodeRecord]) -> dict[int, float]:
    by_seed: dict[int, list[bool]] = {}
    for record in records:
        by_seed.setdefault(record.seed, []).append(record.success)
    return {seed: sum(values) / len(values) for seed, values in sorted(by_seed.items())}


def _run_summary(run: Run, records: Sequence[EpisodeRecord], entry: dict[str, Any] | None) -> dict[str, Any]:
    pair, method, selector = run
    rates = _seed_rates(records)
    successes = sum(record.success for record in records)
    outcomes = Counter(record.outcome for record in records)
    plan = (entry or {}).get("plan")
    return {
        "pair": pair,
        "method": method,
        "selector": selector,
        "episodes": len(records),
        "complete": None if plan is None else len(records) >= plan["seeds"] * plan["rollouts"],
        "successes": successes,
        "success": asdict(mean_and_sd(list(rates.values()))),
        "wilson95": asdict(wilson_interval(successes, len(records))),
        "per_seed": {str(seed): rate for seed, rate in rates.items()},
        "outcomes": {name: outcomes.get(name, 0) for name in OUTCOME_NAMES},
        "mean_steps": sum(record.steps for record in records) / len(records),
        "published_percent": published_success(pair, method),
        "mask": (entry or {}).get("config", {}).get("method", {}).get("mask"),
        "wall_time_s": (entry or {}).get("wall_time_s"),
    }


def _overall(groups: dict[Run, list[EpisodeRecord]]) -> list[dict[str, Any]]:
    pairs_of: dict[tuple[str, str], dict[str, dict[int, float]]] = {}
    for (pair, method, selector), records in groups.items():
        pairs_of.setdefault((method, selector), {})[pair] = _seed_rates(records)
    rows = []
    for (method, selector), pair_means in pairs_of.items():
        by_seed = overall_by_seed(pair_means)
        if not by_seed:
            continue
        rates = list(by_seed.values())
        rows.append(
            {
                "method": method,
                "selector": selector,
                "pairs": sorted(pair_means),
                "success": asdict(mean_and_sd(rates)),
                "bootstrap95": asdict(bootstrap_interval(rates)),
                "per_seed": {str(seed): rate for seed, rate in by_seed.items()},
            }
        )
    return rows


def _comparisons(groups: dict[Run, list[EpisodeRecord]]) -> list[dict[str, Any]]:
    """Differences between the methods of a pair on their common episode seeds; later methods minus earlier ones."""
    rows = []
    for first, second in combinations(groups, 2):
        if first[0] != second[0]:
            continue
        later, earlier = ({record.episode_seed: record.success for record in groups[run]} for run in (second, first))
        if not set(later) & set(earlier):
            continue
        difference, interval, episodes = paired_difference(later, earlier)
        rows.append(
            {
                "pair": first[0],
                "method": second[1],
                "selector": second[2],
                "minus": first[1],
                "minus_selector": first[2],
                "difference": difference,
                "bootstrap95": asdict(interval),
                "episodes": episodes,
            }
        )
    return rows


def summarise(records: Sequence[EpisodeRecord], manifest: Manifest | None = None) -> dict[str, Any]:
    """The content of ``results.json``.

    Success is a fraction in [0, 1]. ``error`` episodes count as failures and stay visible in ``outcomes``. Per run
    (pair, method, selector): mean and sample SD of the per-seed success rates, and the Wilson 95 % interval over all
    its rollouts. ``overall``: average over pairs within each seed first, then mean and sample SD over seeds, with a
    bootstrap interval over seeds. ``comparisons``: paired differences on common episode seeds.

    Args:
        records: Episodes, each once.
        manifest: Manifest of the folder; gives masks, wall times, versions and the planned number of episodes.
    """
    groups = _grouped(records)
    entries = manifest.runs if manifest is not None else {}
    runs = [_run_summary(run, group, entries.get("/".join(run))) for run, group in groups.items()]
    return {
        "format": RESULTS_FORMAT,
        "complete": all(run["complete"] is not False for run in runs) and bool(runs),
        "runs": runs,
        "overall": _overall(groups),
        "comparisons": _comparisons(groups),
        "published": {"label": PUBLISHED_LABEL, "source": PUBLISHED_SOURCE},
        "provenance": {key: dict(entry) for key, entry in entries.items()},
    }


def write_results(folder: Path) -> dict[str, Any]:
    """Compute the results of ``folder`` from its episodes and write them to ``results.json`` atomically.

    Returns:
        The content written.
    """
    results = summarise(read_episodes(folder), Manifest.load(folder))
    write_json(folder / RESULTS_FILE, results)
    return results
