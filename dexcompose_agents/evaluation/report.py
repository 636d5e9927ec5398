"""The HTML report: one self-contained file with verdict, tables, videos and provenance; no external resources."""

from __future__ import annotations

import base64
import json
from importlib import resources
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined, Template
from markupsafe import Markup

from dexcompose_agents.evaluation.manifest import EvaluationError
from dexcompose_agents.evaluation.records import read_folder
from dexcompose_agents.evaluation.results import summarise
from dexcompose_agents.evaluation.tables import OUTCOME_LABELS, OVERALL, blocks, coverage, verdict
from dexcompose_agents.evaluation.video import MEDIA_TYPES, VIDEO_FOLDER, Video, load_videos
from dexcompose_envs.files import atomic_write

REPORT_FILE = "report.html"
# Bars are drawn from the left: success, then the failures from the latest stage to the earliest.
_BAR_ORDER = ("success", "b_fail", "drop", "transition", "init", "error")


def _template() -> Template:
    files = resources.files(__package__)
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    style = Markup(files.joinpath("report_style.css").read_text(encoding="utf-8"))
    return environment.from_string(files.joinpath("report.html.j2").read_text(encoding="utf-8"), {"style": style})


def _embedded(video: Video, folder: Path) -> dict[str, Any]:
    path = folder / VIDEO_FOLDER / video.file
    media = MEDIA_TYPES[path.suffix]
    return {
        **video._asdict(),
        "outcome": OUTCOME_LABELS.get(video.outcome, video.outcome),
        "name": f"{video.method} on {video.pair}",
        "moving": media.startswith("video/"),
        "data": f"data:{media};base64,{base64.b64encode(path.read_bytes()).decode('ascii')}",
    }


def _notices(results: dict[str, Any]) -> list[str]:
    notices = []
    unfinished = [row for row in results["runs"] if row["complete"] is False]
    if unfinished:
        names = ", ".join(f"{row['pair']}/{row['method']} ({row['episodes']} episodes)" for row in unfinished)
        notices.append(f"Unfinished (*): {names}. The numbers below are those of the episodes run so far.")
    if errors := sum(row["outcomes"]["error"] for row in results["runs"]):
        notices.append(f"{errors} rollouts ended in a numerically unstable world; they count as failures.")
    return notices


def _lead(results: dict[str, Any]) -> str:
    episodes = sum(row["episodes"] for row in results["runs"])
    seeds = sorted({len(row["per_seed"]) for row in results["runs"]})
    text = f"{episodes} rollouts, {' or '.join(map(str, seeds))} seed{'' if seeds == [1] else 's'}"
    machines = {(entry["machine"]["cpu"], entry["machine"]["cores"]) for entry in results["provenance"].values()}
    if machines:
        wall = sum(row["wall_time_s"] or 0.0 for row in results["runs"])
        names = " and ".join(f"{cpu}, {cores} cores" for cpu, cores in sorted(machines))
        text += f", {wall / 60:.1f} minutes on {names}"
    return text


def render_report(results: dict[str, Any], folder: Path) -> str:
    """The report on results as HTML text, with the videos of a folder; whatever comes from outside is escaped."""
    videos, note = load_videos(folder)
    tables = blocks(results)
    several = len({row["pair"] for row in results["runs"]}) > 1
    return _template().render(
        title="DexCompose benchmark",
        verdict=verdict(results),
        lead=_lead(results),
        notices=_notices(results),
        overall=next((block for block in tables if block.title.startswith(OVERALL)), None),
        pairs=[block for block in tables if not block.title.startswith(OVERALL)],
        coverage=coverage(results) if several else None,
        compared=bool(results["comparisons"]),
        reference=results["reference"]["method"],
        order=_BAR_ORDER,
        labels=OUTCOME_LABELS,
        videos=[_embedded(video, folder) for video in videos],
        video_note=note,
        published=results["published"],
        provenance=json.dumps(results["provenance"], indent=2),
    )


def write_report(
    folder: Path | str, path: Path | None = None, reference: str | None = None
) -> tuple[Path, dict[str, Any]]:
    """Write the report of a results folder; all numbers are computed anew from its ``episodes*.csv``.

    Args:
        folder: Folder of an evaluation.
        path: Where the report goes; ``folder/report.html`` by default.
        reference: Method that the others are compared with, see ``summarise``.

    Returns:
        The path written and the results.

    Raises:
        EvaluationError: If the folder has no finished episode, or none of the reference.
        FileError: If a file of the folder is damaged.
    """
    folder = Path(folder)
    records, manifest = read_folder(folder)
    if not records:
        raise EvaluationError(f"'{folder}' has no finished episode to report")
    results = summarise(records, manifest, reference)
    path = path or folder / REPORT_FILE
    atomic_write(path, render_report(results, folder))
    return path, results
