"""The results as tables: blocks of rows and the verdict, for terminal and HTML alike, and the terminal's version."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

from rich.console import Console
from rich.table import Table
from rich.text import Text

from dexcompose_agents.evaluation.published import PUBLISHED_LABEL
from dexcompose_agents.evaluation.records import OUTCOME_NAMES

OUTCOME_LABELS = {
    "success": "success",
    "init": "A lost in hold",
    "transition": "A lost in transition",
    "drop": "A lost during B",
    "b_fail": "held, B not done",
    "error": "unstable world",
}
"""Reader's names of the outcomes, in the order of ``OUTCOME_NAMES``."""
assert tuple(OUTCOME_LABELS) == OUTCOME_NAMES
OVERALL = "Overall"


class Row(NamedTuple):
    """One method's line in a block, as text: "85.5 ± 2.1" (mean and sample SD over seeds), "81.0 to 89.1", "+3.2".

    There is "-" for an interval or a published number that does not exist, and no difference from itself for the
    reference. ``counts`` are the rollouts by outcome, None for the overall block; ``preserved``: A kept, B done then.
    """

    label: str
    success: str
    interval: str
    difference: str
    difference_interval: str
    published: str
    counts: dict[str, int] | None
    preserved: tuple[str, ...]
    finished: bool


class Block(NamedTuple):
    """The rows of one pair, or of all common pairs."""

    title: str
    rows: tuple[Row, ...]


def method_of(row: dict[str, Any]) -> tuple[Any, Any]:
    """Method and selector of a row of the results."""
    return row.get("method"), row.get("selector")


def method_label(row: dict[str, Any], rows: Iterable[dict[str, Any]]) -> str:
    """The method's name; with its selector where the method occurs with several."""
    selectors = {other["selector"] for other in rows if other["method"] == row["method"]}
    return f"{row['method']} ({row['selector']})" if len(selectors) > 1 else str(row["method"])


def percent(fraction: float) -> str:
    """A fraction as per cent with one decimal, "85.5"."""
    return f"{100.0 * fraction:.1f}"


def points(fraction: float) -> str:
    """A difference in percentage points with its sign, "+3.2"."""
    return f"{round(100.0 * fraction, 1) + 0.0:+.1f}"  # no "-0.0"


def _interval(interval: dict[str, float] | None, form: Any = percent) -> str:
    return "-" if interval is None else f"{form(interval['low'])} to {form(interval['high'])}"


def _row(row: dict[str, Any], label: str, difference: float | None, interval: dict[str, float] | None) -> Row:
    mean, sd = row["success"]["mean"], row["success"]["sd"]
    published = row["published_percent"]
    return Row(
        label=label,
        success=percent(mean) if sd is None else f"{percent(mean)} ± {percent(sd)}",
        interval=_interval(row.get("wilson95") or row.get("bootstrap95")),
        difference="" if difference is None else points(difference),
        difference_interval="" if difference is None else _interval(interval, points),
        published="-" if published is None else f"{published:.1f}",
        counts=row.get("outcomes"),
        preserved=tuple("-" if x is None else percent(x) for x in row.get("preservation", {}).values()),
        finished=row.get("complete") is not False,
    )


def blocks(results: dict[str, Any]) -> list[Block]:
    """One block per pair; the overall block comes last where there are several pairs."""
    runs, overall = results["runs"], results["overall"]
    changes = {(row["pair"], method_of(row)): (row["difference"], row["bootstrap95"]) for row in results["comparisons"]}
    changes |= {(OVERALL, method_of(row)): (row["difference"], row["difference95"]) for row in overall}
    changes.pop((OVERALL, method_of(results["reference"] or {})), None)

    def block(title: str, key: str, rows: Iterable[dict[str, Any]]) -> Block:
        texts = [_row(row, method_label(row, runs), *changes.get((key, method_of(row)), (None, None))) for row in rows]
        return Block(title, tuple(texts))

    pairs = list(dict.fromkeys(row["pair"] for row in runs))
    found = [block(pair, pair, (row for row in runs if row["pair"] == pair)) for pair in pairs]
    if len(pairs) > 1 and overall:
        found.append(block(f"Overall, {len(overall[0]['pairs'])} of {len(pairs)} pairs", OVERALL, overall))
    return found


def coverage(results: dict[str, Any]) -> str:
    """What the overall rows are about: the episodes that all methods have in common."""
    overall = results["overall"]
    if not overall:
        return "There is no Overall, since no episode was run by every method."
    first, pairs = overall[0], {row["pair"] for row in results["runs"]}
    covered, each = first["pairs"], first["episodes"] // len(first["pairs"])
    which = f"all {len(pairs)} pairs" if len(covered) == len(pairs) else f"only {', '.join(covered)}"
    return (
        f"Overall covers the episodes that every method has run: {which}, {each} episodes each, "
        f"number of seeds {first['success']['count']}; its interval is over seeds."
    )


def verdict(results: dict[str, Any]) -> str:
    """One line: which method is best on the common episodes, by how much, and whether that is shown."""
    rows = results["overall"]
    if not rows:
        return "No episode was run by every method, so none can be called best."
    best = max(rows, key=lambda row: row["difference"])
    label, pairs = method_label(best, results["runs"]), best["pairs"]
    where = f"on {pairs[0]}" if len(pairs) == 1 else f"over {len(pairs)} pairs"
    rate = f"{percent(best['success']['mean'])} % success {where}"
    if not results["complete"]:
        rate += " so far"
    if len(rows) == 1:
        return f"{label}: {rate}. There is no other method to compare it with."
    rival = next(row for row in rows if method_of(row) == method_of(results["reference"]))
    sign, shown = 1.0, best
    if rival is best:  # compare with the next best, which was compared with this one
        rival = shown = max((row for row in rows if row is not best), key=lambda row: row["difference"])
        sign = -1.0
    by, interval = sign * shown["difference"], shown["difference95"]
    other = method_label(rival, results["runs"])
    if by == 0.0:
        return f"{label} and {other} are equal: {rate}."
    if interval is None:
        return f"{label}: {rate}, {points(by)} points against {other}; too few different episodes for an interval."
    low, high = sorted((sign * interval["low"], sign * interval["high"]))
    band = f"95 % interval {points(low)} to {points(high)} on {best['episodes']} common episodes"
    if low > 0.0:
        return f"{label} is best: {rate}, {points(by)} points against {other} ({band}, which excludes zero)."
    return f"No best method is shown: {label} has {rate}, {points(by)} points against {other} ({band}, includes zero)."


def print_tables(results: dict[str, Any], console: Console) -> None:
    """Print the verdict, success with interval and the published number beside it, and outcome counts.

    Fits 80 columns; characters that the console cannot print are replaced.
    """

    def fit(text: str) -> Text:
        try:
            text.encode(console.encoding)
        except UnicodeEncodeError:
            text = text.replace("±", "+-").encode(console.encoding, "replace").decode(console.encoding)
        return Text(text)

    def table(title: str, columns: Sequence[str], shown: Sequence[Block], cells: Callable[[Row], Any]) -> Table:
        made = Table(title=fit(title), title_justify="left", caption_justify="left")
        made.add_column("method", overflow="fold")
        for column in columns:
            made.add_column(column, justify="right", no_wrap=True)
        for block in shown:
            made.add_section()
            made.add_row(fit(block.title), style="bold")
            for row in block.rows:
                made.add_row(fit(f"  {row.label}{'' if row.finished else ' *'}"), *map(fit, cells(row)))
        return made

    tables = blocks(results)
    console.print(fit(verdict(results)))
    title = "Composite success, % (mean ± sample SD over seeds)"
    columns = ("success", "95% interval", PUBLISHED_LABEL.replace(", ", ",\n"))
    success = table(title, columns, tables, lambda row: (row.success, row.interval, row.published))
    if len({row["pair"] for row in results["runs"]}) > 1:
        success.caption = fit(coverage(results))
    console.print(success)
    names, counted = OUTCOME_NAMES[1:], [block for block in tables if block.rows[0].counts is not None]
    title = "How the other rollouts ended; A: object kept, B: done of those, %"
    console.print(
        table(
            title, (*names, "A", "B"), counted,
            lambda row: [*(str((row.counts or {})[name]) for name in names), *row.preserved],
        )
    )  # fmt: skip
    if not all(row.finished for block in counted for row in block.rows):
        console.print("* unfinished")
