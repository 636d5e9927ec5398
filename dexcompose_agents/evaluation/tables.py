"""The results table: its rows and labels (for terminal and HTML alike), and the terminal version of it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from rich.console import Group
from rich.table import Table

from dexcompose_agents.evaluation.published import PUBLISHED_LABEL, PUBLISHED_METHODS
from dexcompose_agents.evaluation.records import OUTCOME_NAMES

__all__ = ["OUTCOME_LABELS", "method_label", "percent", "percent_pm", "sorted_runs", "terminal_table"]

OUTCOME_LABELS = {
    "success": "success",
    "init": "A lost in hold",
    "transition": "A lost in transition",
    "drop": "A lost during B",
    "b_fail": "held, B not done",
    "error": "unstable world",
}
"""Reader's names of the outcomes, in the order of ``OUTCOME_NAMES``."""


def _method_rank(method: str) -> tuple[int, str]:
    known = PUBLISHED_METHODS
    return (known.index(method) if method in known else len(known), method)


def sorted_runs(rows: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows of ``results["runs"]`` or ``results["overall"]`` by pair, then method as in the published table."""
    return sorted(rows, key=lambda row: (row.get("pair", ""), _method_rank(row["method"]), row["selector"]))


def method_label(row: dict[str, Any], rows: Sequence[dict[str, Any]]) -> str:
    """The method's name; with its selector where the method occurs with several."""
    selectors = {other["selector"] for other in rows if other["method"] == row["method"]}
    return f"{row['method']} ({row['selector']})" if len(selectors) > 1 else str(row["method"])


def percent(fraction: float) -> str:
    """A fraction as per cent with one decimal, "85.5"."""
    return f"{100.0 * fraction:.1f}"


def percent_pm(summary: dict[str, Any]) -> str:
    """Mean and SD as "85.5 ± 2.1"; without the SD where there is only one seed."""
    mean, sd = summary["mean"], summary["sd"]
    return percent(mean) if sd is None else f"{percent(mean)} ± {percent(sd)}"


def _success_table(runs: Sequence[dict[str, Any]], overall: Sequence[dict[str, Any]]) -> Table:
    table = Table(title="Composite success, % (mean ± sample SD over seeds)", title_justify="left")
    for column in ("pair", "method"):
        table.add_column(column, no_wrap=True)
    table.add_column("success", justify="right", style="bold", no_wrap=True)
    table.add_column("95% interval", justify="right", no_wrap=True)
    table.add_column(PUBLISHED_LABEL.replace(", ", ",\n"), justify="right", style="dim")
    previous = None
    for row in runs:
        if previous not in (None, row["pair"]):
            table.add_section()
        published = row["published_percent"]
        table.add_row(
            row["pair"] if row["pair"] != previous else "",
            method_label(row, runs),
            percent_pm(row["success"]),
            _interval(row["wilson95"]),
            "-" if published is None else f"{published:.1f}",
        )
        previous = row["pair"]
    if len({row["pair"] for row in runs}) > 1:
        table.add_section()
        for index, row in enumerate(overall):
            name = "Overall" if index == 0 else ""
            label = method_label(row, overall)
            table.add_row(name, label, percent_pm(row["success"]), _interval(row["bootstrap95"]), "")
    return table


def _outcome_table(runs: Sequence[dict[str, Any]]) -> Table:
    table = Table(title="How the other rollouts ended", title_justify="left", padding=(0, 1, 0, 0))
    for column in ("pair", "method"):
        table.add_column(column, no_wrap=True)
    for name in OUTCOME_NAMES[1:]:
        table.add_column("trans" if name == "transition" else name, justify="right", no_wrap=True)
    previous = None
    for row in runs:
        counts = (str(row["outcomes"][name]) for name in OUTCOME_NAMES[1:])
        label = method_label(row, runs) + ("" if row["complete"] is not False else " *")
        table.add_row(row["pair"] if row["pair"] != previous else "", label, *counts)
        previous = row["pair"]
    if any(row["complete"] is False for row in runs):
        table.caption = "* unfinished"
    return table


def _interval(interval: dict[str, float]) -> str:
    return f"{percent(interval['low'])} to {percent(interval['high'])}"


def terminal_table(results: dict[str, Any]) -> Group:
    """Success with interval and the published number beside it, and the outcome counts; fits 80 columns."""
    runs = sorted_runs(results["runs"])
    return Group(_success_table(runs, sorted_runs(results["overall"])), _outcome_table(runs))
