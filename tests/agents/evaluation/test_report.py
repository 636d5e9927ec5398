"""Results, tables, report and benchmark on made-up episodes."""

from __future__ import annotations

import io
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from dexcompose_agents import bench
from dexcompose_agents.bench import BenchConfig, run_bench
from dexcompose_agents.evaluation import EvaluationError, EvaluationInterrupted, video
from dexcompose_agents.evaluation.published import PUBLISHED, PUBLISHED_MEAN, PUBLISHED_METHODS, published_success
from dexcompose_agents.evaluation.records import EpisodeRecord, read_episodes
from dexcompose_agents.evaluation.report import write_report
from dexcompose_agents.evaluation.results import summarise
from dexcompose_agents.evaluation.tables import terminal_table
from dexcompose_agents.evaluation.video import Video, VideoError, load_videos, save_videos, write_video

from .fakes import FakeMethod, FakeWorlds


def fake_method(name: str, pair: str, **_: Any) -> FakeMethod:
    """A fake under the name that was asked for."""
    if name not in ("frozen", "zero-shot", "dexcompose"):
        raise ValueError(f"unknown method '{name}'")
    method = FakeMethod(gain=0.01 * len(name))
    method.name = name  # type: ignore[misc]
    return method


def small_bench(out: Path, **options: Any) -> tuple[Path, dict[str, Any], str]:
    """Two pairs, three methods, 2 seeds x 5 rollouts; the printed text comes along."""
    console = Console(file=io.StringIO(), width=200)
    settings = {"seeds": 2, "rollouts": 5, "num_envs": 4, "out": out, "videos": "none"} | options.pop("config", {})
    report, results = run_bench(
        BenchConfig(**settings), console, make=fake_method, **({"worlds": FakeWorlds} | options)
    )
    return report, results, console.file.getvalue()  # type: ignore[attr-defined]


def test_published_table_agrees_with_its_own_means() -> None:
    """The Overall row of the paper is the mean of its columns, to the rounding of two decimals."""
    assert len(PUBLISHED) == 16
    for method in PUBLISHED_METHODS:
        mean = float(np.mean([row[method] for row in PUBLISHED.values()]))
        assert mean == pytest.approx(PUBLISHED_MEAN[method], abs=0.006), method
    assert published_success("PickStick-PushButton", "dexcompose") == 86.54
    assert published_success("PickStick-PushButton", "mine") is None
    assert published_success("Nothing-Here", "frozen") is None


def test_summary_by_hand() -> None:
    """Seed 0: 1 of 2, seed 1: 2 of 2; mean 0.75, SD sqrt(0.125) = 0.3536; the other pair has 0 of 2 in both seeds."""
    outcomes = {("A-X", 0): ["success", "drop"], ("A-X", 1): ["success"] * 2}
    outcomes |= {("C-X", 0): ["error", "b_fail"], ("C-X", 1): ["init", "transition"]}
    records = [
        EpisodeRecord(pair, "m", "none", seed, 100 * seed + index, outcome, 10)
        for (pair, seed), names in outcomes.items()
        for index, outcome in enumerate(names)
    ]
    results = summarise(records)
    first, second = results["runs"]
    assert first["success"] == {"mean": 0.75, "sd": pytest.approx(0.125**0.5), "count": 2}
    assert (first["successes"], first["episodes"]) == (3, 4)
    assert second["outcomes"] == {"success": 0, "init": 1, "transition": 1, "drop": 0, "b_fail": 1, "error": 1}
    overall = results["overall"][0]["success"]  # seeds: (0.5 + 0)/2 and (1 + 0)/2
    assert overall == {"mean": 0.375, "sd": pytest.approx(0.25 / 2**0.5), "count": 2}


class Page(HTMLParser):
    """Collects what a page would load, and checks that tags are closed."""

    def __init__(self) -> None:
        super().__init__()
        self.sources: list[str] = []
        self.open: list[str] = []
        self.tags: list[str] = []

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.tags.append(tag)
        self.sources += [value for name, value in attrs if name in ("src", "href") and value]
        if tag not in ("meta", "img", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_report_is_self_contained(tmp_path: Path) -> None:
    """Table, bars, comparisons and an embedded picture; nothing is loaded from elsewhere."""
    small_bench(tmp_path)
    frames = [np.full((32, 48, 3), shade, np.uint8) for shade in (0, 80, 160)]
    path = write_video(frames, tmp_path / "videos" / "a_frozen", 12.5)
    save_videos(tmp_path, [Video("GraspBall-PushButton", "frozen", path.name, 7, "drop")], "one <is> missing")
    report, results = write_report(tmp_path)
    text = report.read_text()
    page = Page()
    page.feed(text)
    assert page.open == []
    assert {"table", "svg", "style"} <= set(page.tags)
    assert page.sources and all(source.startswith("data:") for source in page.sources)
    assert not re.search(r"https?://|url\(|@import", text)
    assert "prefers-color-scheme: dark" in text
    assert "published, Isaac Lab" in text and "85.6" in text
    assert "one &lt;is&gt; missing" in text
    assert len(results["comparisons"]) == 6


def test_terminal_table_has_ours_and_theirs(tmp_path: Path) -> None:
    """Both pairs, the overall rows, and the published number in a column of its own."""
    _, _, printed = small_bench(tmp_path)
    assert "published" in printed and "Isaac Lab" in printed
    assert "Overall" in printed and "86.5" in printed
    console = Console(file=io.StringIO(), width=80)
    console.print(terminal_table(summarise(read_episodes(tmp_path))))
    narrow = console.file.getvalue()  # type: ignore[attr-defined]
    assert "PickStick-PushButton" in narrow and "…" not in narrow


def test_bench_is_resumed_after_an_interruption(tmp_path: Path) -> None:
    """Ctrl-C in the third run: nothing is lost, and the rest is that of an uninterrupted benchmark."""
    made: list[FakeWorlds] = []

    def worlds(pair: str, num_envs: int) -> FakeWorlds:
        made.append(FakeWorlds(pair, num_envs, interrupt_after=4 if len(made) == 2 else None))
        return made[-1]

    with pytest.raises(EvaluationInterrupted):
        small_bench(tmp_path / "a", worlds=worlds)
    before = read_episodes(tmp_path / "a")
    assert 20 <= len(before) < 30
    small_bench(tmp_path / "a")
    small_bench(tmp_path / "b")
    assert set(read_episodes(tmp_path / "a")) == set(read_episodes(tmp_path / "b"))
    assert len(read_episodes(tmp_path / "a")) == 60


def test_bench_checks_names_and_folder_first(tmp_path: Path) -> None:
    """A typing error in the last method is found before the first is run."""
    refuse = {"worlds": lambda *_: pytest.fail("nothing may be run")}
    with pytest.raises(ValueError, match="unknown method 'nope'"):
        small_bench(tmp_path, config={"methods": ("frozen", "nope")}, **refuse)
    with pytest.raises(ValueError, match="unknown pair"):
        small_bench(tmp_path, config={"pairs": ("nope",)}, **refuse)
    (tmp_path / "file").touch()
    with pytest.raises(EvaluationError, match="cannot write"):
        small_bench(tmp_path / "file", **refuse)


def test_bench_goes_on_without_a_renderer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No GL backend: a note on the screen and in the report, and all the numbers."""

    def fail(*_: Any) -> Video:
        raise VideoError("no GL backend to render with")

    monkeypatch.setattr(bench, "record_video", fail)
    report, _, printed = small_bench(tmp_path, config={"videos": "all"})
    assert "no video: no GL backend" in printed
    assert "Videos are missing: no GL backend" in report.read_text()


def test_filming_takes_the_episode_it_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The rollout that is filmed is that of the evaluation, and a failing renderer is a VideoError."""

    class Rendered(FakeWorlds):
        """Worlds with a picture."""

        def render(self) -> Any:
            return (np.zeros((32, 48, 3), np.uint8),)

    class Blind(FakeWorlds):
        """Worlds without one."""

        def render(self) -> Any:
            raise RuntimeError("eglInitialize failed\nwith a second line")

    from dexcompose_agents.evaluation.protocol import planned_episodes

    episode = planned_episodes(1, 1)[0]
    _, results, _ = small_bench(tmp_path)
    first = next(record for record in read_episodes(tmp_path) if record.method == "frozen")
    monkeypatch.setattr(video, "make_worlds", lambda pair, n, **_: Rendered(pair, n))
    filmed = video.record_video("GraspBall-PushButton", fake_method("frozen", ""), episode, tmp_path)
    assert (filmed.episode_seed, filmed.outcome) == (first.episode_seed, first.outcome)
    assert (tmp_path / "videos" / filmed.file).stat().st_size > 0
    monkeypatch.setattr(video, "make_worlds", lambda pair, n, **_: Blind(pair, n))
    with pytest.raises(VideoError, match=r"no GL backend.*eglInitialize failed.; set MUJOCO_GL"):
        video.record_video("GraspBall-PushButton", fake_method("frozen", ""), episode, tmp_path)
    assert results["complete"]


def test_gif_takes_over_without_ffmpeg(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the mp4 encoder fails, a GIF is written and nothing of the mp4 is left."""

    def fail(*_: Any) -> None:
        raise OSError("no ffmpeg")

    monkeypatch.setattr(video, "_write_mp4", fail)
    frames = [np.full((33, 47, 3), shade, np.uint8) for shade in (0, 200)]
    path = write_video(frames, tmp_path / "film", 12.5)
    assert path.suffix == ".gif" and path.read_bytes()[:3] == b"GIF"
    assert [item.name for item in tmp_path.iterdir()] == ["film.gif"]
    with pytest.raises(VideoError, match="no frames"):
        write_video([], tmp_path / "film", 12.5)


def test_spoilt_video_index_is_no_obstacle(tmp_path: Path) -> None:
    """The report is about numbers; a broken index only costs the videos."""
    assert load_videos(tmp_path) == ([], None)
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos" / "videos.json").write_text("{}")
    assert load_videos(tmp_path)[0] == []


def test_report_of_nothing(tmp_path: Path) -> None:
    """A folder without episodes is named."""
    with pytest.raises(EvaluationError, match="no episodes"):
        write_report(tmp_path)
    (tmp_path / "episodes.csv").write_text("pair,method,selector,seed,episode_seed,outcome,steps\n")
    with pytest.raises(EvaluationError, match="no finished episode"):
        write_report(tmp_path)
