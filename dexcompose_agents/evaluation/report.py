"""The HTML report: one self-contained file with table, outcome bars, videos and provenance; no external resources."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from html import escape
from importlib import resources
from pathlib import Path
from typing import Any

from dexcompose_agents.evaluation.manifest import EvaluationError, Manifest
from dexcompose_agents.evaluation.published import PUBLISHED_LABEL
from dexcompose_agents.evaluation.records import OUTCOME_NAMES, read_episodes
from dexcompose_agents.evaluation.results import summarise
from dexcompose_agents.evaluation.tables import OUTCOME_LABELS, method_label, percent, percent_pm, sorted_runs
from dexcompose_agents.evaluation.video import VIDEO_FOLDER, Video, load_videos
from dexcompose_envs.files import atomic_path

__all__ = ["REPORT_FILE", "render_report", "write_report"]

REPORT_FILE = "report.html"
_MEDIA_TYPES = {".mp4": "video/mp4", ".webm": "video/webm", ".gif": "image/gif"}
# Drawn from the left: success, then the failures from the latest stage to the earliest.
_BAR_ORDER = ("success", "b_fail", "drop", "transition", "init", "error")


def _interval(interval: dict[str, float]) -> str:
    return f"{percent(interval['low'])} to {percent(interval['high'])}"


def _table(results: dict[str, Any]) -> str:
    runs, overall = sorted_runs(results["runs"]), sorted_runs(results["overall"])
    columns: dict[tuple[str, str], str] = {}
    for row in overall or runs:
        columns.setdefault((row["method"], row["selector"]), method_label(row, overall or runs))
    cells = {(row["pair"], row["method"], row["selector"]): row for row in runs}
    head = "".join(f"<th>{escape(label)}</th><th class=published>{PUBLISHED_LABEL}</th>" for label in columns.values())
    body = []
    for pair in dict.fromkeys(row["pair"] for row in runs):
        line = [f"<td>{escape(pair)}</td>"]
        for method, selector in columns:
            cell = cells.get((pair, method, selector))
            if cell is None:
                line.append("<td>-</td><td class=published>-</td>")
                continue
            published = cell["published_percent"]
            line.append(f"<td>{percent_pm(cell['success'])}<small>{_interval(cell['wilson95'])}</small></td>")
            line.append(f"<td class=published>{'-' if published is None else f'{published:.1f}'}</td>")
        body.append(f"<tr>{''.join(line)}</tr>")
    if len(body) > 1:
        rows = {(row["method"], row["selector"]): row for row in overall}
        line = ["<td>Overall</td>"]
        for column in columns:
            total = rows.get(column)
            value = "-"
            if total is not None:
                value = f"{percent_pm(total['success'])}<small>{_interval(total['bootstrap95'])}</small>"
            line.append(f"<td>{value}</td><td></td>")
        body.append(f"<tr class=overall>{''.join(line)}</tr>")
    head = f"<thead><tr><th>pair</th>{head}</tr></thead>"
    return f"<div class=scroll><table>{head}<tbody>{''.join(body)}</tbody></table></div>"


def _bars(runs: Sequence[dict[str, Any]]) -> str:
    """Stacked outcome bars, one per run, as an inline SVG; every segment says its count in a tooltip."""
    left, width, height, gap = 170.0, 640.0, 24.0, 8.0
    parts, y, previous = [], 4.0, None
    for row in runs:
        if row["pair"] != previous:
            y += 18.0
            parts.append(f'<text class="pair" x="0" y="{y:.0f}">{escape(row["pair"])}</text>')
            y, previous = y + 8.0, row["pair"]
        middle = y + height / 2 + 4.5
        parts.append(
            f'<text x="{left - 10:.0f}" y="{middle:.1f}" text-anchor="end">{escape(method_label(row, runs))}</text>'
        )
        x = left
        for name in _BAR_ORDER:
            count = row["outcomes"][name]
            span = width * count / row["episodes"]
            if count == 0:
                continue
            label = f"{OUTCOME_LABELS[name]}: {count} of {row['episodes']} ({percent(count / row['episodes'])}%)"
            parts.append(
                f'<rect class="o-{name}" x="{x:.2f}" y="{y:.1f}" width="{span:.2f}" height="{height:.0f}">'
                f"<title>{label}</title></rect>"
            )
            if span > 34:
                text = f"{100 * count / row['episodes']:.0f}%"
                parts.append(
                    f'<text class="on" x="{x + span / 2:.1f}" y="{middle:.1f}" text-anchor="middle">{text}</text>'
                )
            x += span
        y += height + gap
    legend = "".join(f"<span><i class=o-{name}></i>{OUTCOME_LABELS[name]}</span>" for name in _BAR_ORDER)
    svg = (
        f'<svg viewBox="0 0 {left + width + 4:.0f} {y:.0f}" width="100%" role="img" '
        f'aria-label="Outcomes of all rollouts, by pair and method">{"".join(parts)}</svg>'
    )
    return f"<div class=legend>{legend}</div>{svg}"


def _comparisons(rows: Sequence[dict[str, Any]]) -> str:
    lines = []
    for row in rows:
        interval = row["bootstrap95"]
        names = [row["method"], row["minus"]]
        if names[0] == names[1]:
            names = [f"{row['method']} ({row['selector']})", f"{row['minus']} ({row['minus_selector']})"]
        low, high = (f"{100 * interval[side]:+.1f}" for side in ("low", "high"))
        lines.append(
            f"<tr><td>{escape(row['pair'])}</td><td>{escape(names[0])} minus {escape(names[1])}</td>"
            f"<td>{100 * row['difference']:+.1f}</td><td>{low} to {high}</td><td>{row['episodes']}</td></tr>"
        )
    head = (
        "<tr><th>pair</th><th>methods</th><th>difference, points</th><th>95% interval</th><th>common episodes</th></tr>"
    )
    return f"<div class=scroll><table><thead>{head}</thead><tbody>{''.join(lines)}</tbody></table></div>"


def _videos(videos: Sequence[Video], folder: Path, note: str | None) -> str:
    figures = []
    for video in videos:
        path = folder / VIDEO_FOLDER / video.file
        media = _MEDIA_TYPES.get(path.suffix)
        if media is None:
            continue
        data = f"data:{media};base64,{base64.b64encode(path.read_bytes()).decode('ascii')}"
        name = f"{video.method} on {video.pair}"
        if media.startswith("video/"):
            element = (
                f'<video src="{data}" autoplay loop muted playsinline controls aria-label="{escape(name)}"></video>'
            )
        else:
            element = f'<img src="{data}" alt="{escape(name)}">'
        outcome = OUTCOME_LABELS.get(video.outcome, video.outcome)
        caption = f"<b>{escape(video.method)}</b>, {escape(video.pair)}: {outcome} (episode {video.episode_seed})"
        figures.append(f"<figure>{element}<figcaption>{caption}</figcaption></figure>")
    text = "The first episode of the evaluation, whatever came of it: nothing is picked." if figures else ""
    remark = f"<p class=notice>Videos are missing: {escape(note)}.</p>" if note else ""
    return f"<p class=muted>{text}</p>{remark}<div class=videos>{''.join(figures)}</div>"


_MEASURED = f"""<details><summary>How this was measured</summary><ul>
<li>Every rollout starts from a held state of the library's test part, which no training reads. Its start and all its
noise come from its episode seed, 2^30 + seed x 2^17 + rollout; each episode runs exactly once, and the result does not
depend on how many worlds are stepped together. All methods run the same episodes.</li>
<li>Success: the object is retained throughout and the interaction succeeds. Otherwise the stage of the failure is
reported. Unstable worlds count as failures and are shown as such.</li>
<li>Table: mean and sample SD over the seeds' success rates, %; below, the Wilson 95 % interval over all rollouts.
Overall: average over the pairs within each seed, then mean and sample SD over seeds; below, a 95 % bootstrap interval
over seeds.</li>
<li>Italic numbers are the authors' ({PUBLISHED_LABEL}): another simulator, other objects, policies from human
demonstrations. They are printed for orientation, not as a target that was met or missed.</li></ul></details>"""


def _notices(results: dict[str, Any]) -> str:
    notices = []
    unfinished = [row for row in results["runs"] if row["complete"] is False]
    if unfinished:
        names = ", ".join(f"{row['pair']}/{row['method']} ({row['episodes']} episodes)" for row in unfinished)
        notices.append(f"Unfinished: {names}. The numbers below are those of the episodes run so far.")
    errors = sum(row["outcomes"]["error"] for row in results["runs"])
    if errors:
        notices.append(f"{errors} rollouts ended in a numerically unstable world; they count as failures.")
    return "".join(f"<p class=notice>{escape(notice)}</p>" for notice in notices)


def _lead(results: dict[str, Any]) -> str:
    episodes = sum(row["episodes"] for row in results["runs"])
    seeds = sorted({len(row["per_seed"]) for row in results["runs"]})
    machines = {(entry["machine"]["cpu"], entry["machine"]["cores"]) for entry in results["provenance"].values()}
    wall = sum(row["wall_time_s"] or 0.0 for row in results["runs"])
    text = f"{episodes} rollouts, {' or '.join(map(str, seeds))} seeds"
    if machines:
        text += f", {wall / 60:.1f} minutes on " + " and ".join(
            f"{cpu}, {cores} cores" for cpu, cores in sorted(machines)
        )
    return escape(text)


def render_report(results: dict[str, Any], folder: Path, title: str = "DexCompose benchmark") -> str:
    """The report as HTML text.

    Args:
        results: Content of ``results.json``.
        folder: Where the recorded videos lie.
        title: Heading.
    """
    videos, note = load_videos(folder)
    style = resources.files(__package__).joinpath("report_style.css").read_text(encoding="utf-8")
    runs = sorted_runs(results["runs"])
    sections = [
        f"<h1>{escape(title)}</h1><p class=lead>{_lead(results)}</p>",
        _notices(results),
        f"<h2>Composite success, %</h2>{_table(results)}",
        f"<h2>How the rollouts ended</h2>{_bars(runs)}",
    ]
    if results["comparisons"]:
        sections.append(f"<h2>Differences on the same episodes</h2>{_comparisons(results['comparisons'])}")
    if videos or note:
        sections.append(f"<h2>One rollout per method</h2>{_videos(videos, folder, note)}")
    provenance = escape(json.dumps(results["provenance"], indent=2))
    sections.append(_MEASURED)
    sections.append(f"<details><summary>Configuration, versions, machine</summary><pre>{provenance}</pre></details>")
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{style}</style></head><body>{''.join(sections)}</body></html>\n"
    )


def write_report(folder: Path | str, path: Path | None = None) -> tuple[Path, dict[str, Any]]:
    """Write the report of a results folder; all numbers are computed anew from its ``episodes*.csv``.

    Args:
        folder: Folder of an evaluation.
        path: Where the report goes; ``folder/report.html`` by default.

    Returns:
        The path written and the results.

    Raises:
        EvaluationError: If the folder has no episodes, or the report cannot be written.
    """
    folder = Path(folder)
    records = read_episodes(folder)
    if not records:
        raise EvaluationError(f"'{folder}' has no finished episode to report")
    results = summarise(records, Manifest.load(folder))
    path = path or folder / REPORT_FILE
    try:
        with atomic_path(path) as temporary:
            temporary.write_text(render_report(results, folder), encoding="utf-8")
    except OSError as error:
        raise EvaluationError(f"cannot write '{path}': {error.strerror or error}") from None
    return path, results


assert set(_BAR_ORDER) == set(OUTCOME_NAMES) == set(OUTCOME_LABELS)
