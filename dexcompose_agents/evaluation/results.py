"""``results.json``: what the episodes of a folder say, computed from ``episodes*.csv`` and nothing else."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dexcompose_agents.evaluation import published
from dexcompose_agents.evaluation import statistics as stats
from dexcompose_agents.evaluation.manifest import EvaluationError, Manifest
from dexcompose_agents.evaluation.records import OUTCOME_NAMES, EpisodeRecord, read_folder
from dexcompose_agents.runtime.provenance import write_json

RESULTS_FILE = "results.json"
RESULTS_FORMAT = 1

Method = tuple[str, str]
"""Method and selector: a row of the tables."""
Episodes = dict[str, dict[int, EpisodeRecord]]
"""``episodes[pair][episode_seed]``."""
Cells = dict[Method, Episodes]


def _cells(records: Sequence[EpisodeRecord]) -> Cells:
    cells: Cells = {}
    for record in records:
        pairs = cells.setdefault((record.method, record.selector), {})
        pairs.setdefault(record.pair, {})[record.episode_seed] = record
    return {method: cells[method] for method in sorted(cells, key=lambda row: (published.method_rank(row[0]), row[1]))}


def _over_seeds(records: Sequence[EpisodeRecord]) -> dict[str, Any]:
    """Success by seed and over the seeds, as a row of the results has it."""
    by_seed: dict[int, list[bool]] = {}
    for record in records:
        by_seed.setdefault(record.seed, []).append(record.success)
    rates = {str(seed): sum(values) / len(values) for seed, values in sorted(by_seed.items())}
    return {"success": stats.mean_and_sd([*rates.values()]), "per_seed": rates}


def _interval(interval: stats.Interval | None) -> dict[str, float] | None:
    return None if interval is None else interval._asdict()


def _run_summary(records: Sequence[EpisodeRecord], entry: Mapping[str, Any]) -> dict[str, Any]:
    pair, method, selector = records[0].run
    successes = sum(record.success for record in records)
    outcomes = Counter(record.outcome for record in records)
    plan, environment = entry.get("plan"), entry.get("config", {}).get("env", {})
    return {
        "pair": pair,
        "method": method,
        "selector": selector,
        "episodes": len(records),
        "complete": None if plan is None else len(records) >= plan["seeds"] * plan["rollouts"],
        "successes": successes,
        **_over_seeds(records),
        "wilson95": _interval(stats.wilson_interval(successes, len(records))),
        "outcomes": {name: outcomes[name] for name in OUTCOME_NAMES},
        "preservation": _preservation(outcomes, len(records)),
        "mean_steps": sum(record.steps for record in records) / len(records),
        "published_percent": published.published_success(pair, method),
        "mask": entry.get("config", {}).get("method", {}).get("mask"),
        "environment": {
            name: value for name, value in environment.items() if name in ("physics", "sensor_noise", "start")
        },
        "wall_time_s": entry.get("wall_time_s"),
    }


def _preservation(outcomes: Mapping[str, int], episodes: int) -> dict[str, float | None]:
    """Shares (Fig. 3) of rollouts that kept A's object, and of those, that also did B; None where none kept it."""
    kept = outcomes["success"] + outcomes["b_fail"]
    return {"a": kept / episodes, "b": outcomes["success"] / kept if kept else None}


def _difference(
    row: Episodes, other: Episodes, pairs: Sequence[str], seeds: Sequence[int]
) -> tuple[float, dict[str, float] | None]:
    differences = [[row[pair][seed].success - other[pair][seed].success for seed in seeds] for pair in pairs]
    mean, interval = stats.paired_difference(differences)
    return mean, _interval(interval)


def _overall(cells: Cells, reference: Method) -> list[dict[str, Any]]:
    """One row per method over the episodes that every row has run: only over these may rows be put side by side."""
    pairs = sorted(set.intersection(*(set(row) for row in cells.values())))
    seeds = sorted(set.intersection(*(set(row[pair]) for row in cells.values() for pair in pairs))) if pairs else []
    rows = []
    for method, row in cells.items() if seeds else ():
        # Every pair has the same episodes, so the rate over all of a seed's is the average over pairs.
        success = _over_seeds([row[pair][seed] for pair in pairs for seed in seeds])
        theirs = [value for pair in pairs if (value := published.published_success(pair, method[0])) is not None]
        difference, interval = _difference(row, cells[reference], pairs, seeds)
        rows.append(
            {
                "method": method[0],
                "selector": method[1],
                "pairs": pairs,
                "episodes": len(pairs) * len(seeds),
                **success,
                "bootstrap95": _interval(stats.bootstrap_interval([*success["per_seed"].values()])),
                "published_percent": sum(theirs) / len(pairs) if len(theirs) == len(pairs) else None,
                "difference": difference,
                "difference95": interval,
            }
        )
    return rows


def _comparisons(cells: Cells, reference: Method) -> list[dict[str, Any]]:
    """Every method minus the reference, on the episodes of a pair that both have run."""
    rows = []
    other = cells[reference]
    for method, row in cells.items():
        for pair in row if method != reference else ():
            seeds = sorted(set(row[pair]) & set(other.get(pair, ())))
            if not seeds:
                continue
            difference, interval = _difference(row, other, [pair], seeds)
            rows.append(
                {
                    "pair": pair,
                    "method": method[0],
                    "selector": method[1],
                    "minus": reference[0],
                    "minus_selector": reference[1],
                    "difference": difference,
                    "bootstrap95": interval,
                    "episodes": len(seeds),
                }
            )
    return sorted(rows, key=lambda row: row["pair"])


def _reference(cells: Cells, name: str | None) -> Method:
    if name is None:
        name = ([method for method, _ in cells if method in published.PUBLISHED_METHODS] or [m for m, _ in cells])[-1]
    for method in cells:
        if name in (method[0], "/".join(method)):
            return method
    there = ", ".join(dict.fromkeys(method for method, _ in cells))
    raise EvaluationError(f"no episodes of the reference method '{name}'; expected one of {there}")


def summarise(
    records: Sequence[EpisodeRecord], manifest: Manifest | None = None, reference: str | None = None
) -> dict[str, Any]:
    """The content of ``results.json``.

    Success is a fraction in [0, 1]. ``error`` episodes count as failures and stay visible in ``outcomes``. Per run
    (pair, method, selector): mean and sample SD of the per-seed success rates, and the Wilson 95 % interval over all
    its rollouts. ``overall``: over the episodes that every method has run, average over pairs within each seed first,
    then mean and sample SD over seeds, with a bootstrap interval over seeds (None where they do not scatter).
    ``comparisons``: paired differences from one reference method on common episode seeds.

    Args:
        records: Episodes, each once.
        manifest: Manifest of the folder; gives masks, wall times, versions and the planned number of episodes.
        reference: Method that all others are compared with, as "method" or "method/selector"; by default the last of
            the published table that is there, else the last by name.

    Raises:
        EvaluationError: If there are no episodes of the reference.
    """
    cells, entries = _cells(records), manifest.runs if manifest is not None else {}
    chosen = _reference(cells, reference) if cells else None
    runs = [
        _run_summary(list(episodes.values()), entries.get(f"{pair}/{'/'.join(method)}", {}))
        for method, pairs in cells.items()
        for pair, episodes in pairs.items()
    ]
    return {
        "format": RESULTS_FORMAT,
        "complete": all(run["complete"] is not False for run in runs) and bool(runs),
        "reference": None if chosen is None else {"method": chosen[0], "selector": chosen[1]},
        "runs": sorted(runs, key=lambda run: run["pair"]),
        "overall": [] if chosen is None else _overall(cells, chosen),
        "comparisons": [] if chosen is None else _comparisons(cells, chosen),
        "published": {"label": published.PUBLISHED_LABEL, "source": published.PUBLISHED_SOURCE},
        "provenance": {key: dict(entry) for key, entry in entries.items()},
    }


def write_results(folder: Path) -> None:
    """Compute the results of ``folder`` from its episodes and write them to ``results.json``."""
    write_json(folder / RESULTS_FILE, summarise(*read_folder(folder)))
