"""Results, tables, report and benchmark on made-up episodes."""

from __future__ import annotations

import io
import json
import re
from dataclasses import astuple
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, ClassVar

import imageio.v3 as iio
import numpy as np
import pytest
from rich.console import Console

from dexcompose_agents import bench
from dexcompose_agents.bench import run_bench
from dexcompose_agents.evaluation import EvaluationError, video
from dexcompose_agents.evaluation.manifest import Manifest
from dexcompose_agents.evaluation.protocol import planned_episodes
from dexcompose_agents.evaluation.published import PUBLISHED, published_success
from dexcompose_agents.evaluation.records import EPISODE_COLUMNS, EpisodeRecord, episode_seed
from dexcompose_agents.evaluation.report import write_report
from dexcompose_agents.evaluation.results import summarise
from dexcompose_agents.evaluation.tables import blocks, coverage, print_tables, verdict
from dexcompose_agents.evaluation.video import Video, VideoError, load_videos, save_videos, write_video
from dexcompose_envs import pair_names
from dexcompose_envs.artefacts import NotMadeError
from dexcompose_envs.errors import FileError, MachineError, UsageError
from dexcompose_envs.files import OutputError

from .fakes import FakeMethod, FakeWorlds, read_episodes


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
    defaults = {"pairs": (BALL, STICK), "methods": ("frozen", "zero-shot", "dexcompose"), "seeds": 2, "rollouts": 5}
    fakes = {"num_envs": 4, "videos": "none", "worlds": FakeWorlds, "make": fake_method}
    report, results = run_bench(out, console=console, **(defaults | fakes | options))
    return report, results, console.file.getvalue()  # type: ignore[attr-defined]


def test_published_table_agrees_with_its_own_means() -> None:
    """The Overall row of the paper is the mean of its columns, to the rounding of two decimals."""
    assert len(PUBLISHED) == 16
    means = np.mean([PUBLISHED[pair] for pair in PUBLISHED], axis=0)
    assert means == pytest.approx((3.09, 45.61, 61.60, 43.57, 69.23, 77.43), abs=0.006)
    assert published_success("PickStick-PushButton", "dexcompose") == 86.54
    assert published_success("PickStick-PushButton", "mine") is None
    assert published_success("Nothing-Here", "frozen") is None


COMMITTED = Path(__file__).parents[3] / "benchmarks" / "results"
BALL, STICK = "GraspBall-PushButton", "PickStick-PushButton"


def records(pair: str, method: str, outcomes: str, seed: int = 0, selector: str = "none") -> list[EpisodeRecord]:
    """Rollouts 0, 1, ... of a seed; the outcomes by their first letters, "sdbite"."""
    names = {name[0]: name for name in ("success", "drop", "b_fail", "init", "transition", "error")}
    steps = {"init": 5, "transition": 20}
    return [
        EpisodeRecord(pair, method, selector, seed, episode_seed(seed, index), name, steps.get(name, 60))
        for index, name in enumerate(names[letter] for letter in outcomes)
    ]


def test_summary_by_hand() -> None:
    """Seed 0: 1 of 2, seed 1: 2 of 2; mean 0.75, SD sqrt(0.125) = 0.3536; the other pair has 0 of 2 in both seeds."""
    results = summarise(
        records(BALL, "m", "sd")
        + records(BALL, "m", "ss", 1)
        + records(STICK, "m", "eb")
        + records(STICK, "m", "it", 1)
    )
    first, second = results["runs"]
    assert first["success"] == {"mean": 0.75, "sd": pytest.approx(0.125**0.5), "count": 2}
    assert (first["successes"], first["episodes"]) == (3, 4)
    assert second["outcomes"] == {"success": 0, "init": 1, "transition": 1, "drop": 0, "b_fail": 1, "error": 1}
    overall = results["overall"][0]["success"]  # seeds: (0.5 + 0)/2 and (1 + 0)/2
    assert overall == {"mean": 0.375, "sd": pytest.approx(0.25 / 2**0.5), "count": 2}


def test_overall_is_over_what_all_have_in_common() -> None:
    """Method n lacks the stick and its seed 1, so Overall is the ball's seed 0: 1/2 for m and 2/2 for n.

    Over whatever each has, m would have ((1/2 + 0)/2 + (2/2 + 0)/2)/2 = 3/8 on two pairs.
    """
    m = (
        records(BALL, "m", "sd")
        + records(BALL, "m", "ss", 1)
        + records(STICK, "m", "dd")
        + records(STICK, "m", "dd", 1)
    )
    results = summarise(m + records(BALL, "n", "ssd")[:2])
    first, second = results["overall"]
    assert [row["success"]["mean"] for row in (first, second)] == [0.5, 1.0]
    assert [row["pairs"] for row in (first, second)] == [[BALL]] * 2
    assert [row["episodes"] for row in (first, second)] == [2, 2]
    assert first["bootstrap95"] is None  # one seed
    assert "Overall covers the episodes that every method has run: only GraspBall-PushButton" in coverage(results)
    assert blocks(results)[-1].title == "Overall, 1 of 2 pairs"
    assert blocks(results)[-1].rows[0].interval == "-"
    nothing = summarise(records(BALL, "m", "ss") + records(STICK, "n", "ss"))
    assert nothing["overall"] == []
    assert "none can be called best" in verdict(nothing) and "no Overall" in coverage(nothing)


def test_every_method_is_compared_with_one_reference() -> None:
    """The reference is the last of the published order, or the one asked for; differences are on common episodes."""
    data = records(BALL, "zero-shot", "ssdd") + records(BALL, "dexcompose", "sssd") + records(BALL, "mine", "ddd")
    results = summarise(data)
    assert results["reference"] == {"method": "dexcompose", "selector": "none"}
    rows = {row["method"]: row for row in results["comparisons"]}
    assert {name: (row["minus"], row["difference"], row["episodes"]) for name, row in rows.items()} == {
        "zero-shot": ("dexcompose", -0.25, 4),
        "mine": ("dexcompose", -1.0, 3),
    }
    assert rows["mine"]["bootstrap95"] is None  # all three differ alike
    others = summarise(data, reference="mine")["comparisons"]
    assert [(row["method"], row["minus"], row["difference"]) for row in others] == [
        ("zero-shot", "mine", pytest.approx(2 / 3)),
        ("dexcompose", "mine", 1.0),
    ]
    with pytest.raises(EvaluationError, match="no episodes of the reference method 'x'; expected one of zero-shot"):
        summarise(data, reference="x")
    masks = records(BALL, "m", "ss", selector="utility") + records(BALL, "m", "dd", selector="oracle")
    assert summarise(masks, reference="m/utility")["comparisons"][0]["selector"] == "oracle"
    assert summarise(masks)["comparisons"][0]["minus_selector"] == "oracle"  # the first by name


@pytest.mark.parametrize(
    ("dexcompose", "other", "expected"),
    [
        (
            "s" * 60 + "d" * 4,
            "s" * 30 + "d" * 34,
            r"dexcompose is best: 93\.8 % success on .*\+46\.9 points .*excludes",
        ),
        ("s" * 30 + "d" * 34, "s" * 60 + "d" * 4, r"mine is best: 93\.8 % .*\+46\.9 points against dexcompose"),
        ("sd" * 20, "sd" * 19 + "dd", r"No best method is shown: dexcompose has 50\.0 % .*includes zero"),
        ("sd" * 20, "ds" * 20, r"are equal: 50\.0 %"),
        ("ssss", "dddd", r"too few different episodes for an interval"),
    ],
)
def test_verdict_says_only_what_is_shown(dexcompose: str, other: str, expected: str) -> None:
    """Best only where the interval of the difference excludes zero."""
    text = verdict(summarise(records(BALL, "dexcompose", dexcompose) + records(BALL, "mine", other)))
    assert re.search(expected, text), text
    assert "\n" not in text


def test_verdict_of_one_method() -> None:
    """Nothing to compare with, and that is said."""
    assert verdict(summarise(records(BALL, "m", "sd"))) == (
        "m: 50.0 % success on GraspBall-PushButton. There is no other method to compare it with."
    )


def test_what_is_left_of_each_skill() -> None:
    """A is preserved where the object was kept, B where it was done then; nobody's guess where nothing was kept."""
    run = summarise(records(BALL, "m", "ssbd"))["runs"][0]
    assert run["preservation"] == {"a": 0.75, "b": pytest.approx(2 / 3)}
    assert summarise(records(BALL, "m", "dd"))["runs"][0]["preservation"] == {"a": 0.0, "b": None}


@pytest.mark.parametrize("path", sorted(COMMITTED.glob("*/episodes.csv")), ids=lambda path: path.parent.name)
def test_committed_results_say_what_their_episodes_say(path: Path) -> None:
    """Nothing in a committed ``results.json`` is written by hand or left over from an earlier rule."""
    results = json.loads((path.parent / "results.json").read_text())
    found = summarise(read_episodes(path.parent), Manifest(results["provenance"]))
    assert json.loads(json.dumps(found)) == results


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
    """Verdict, table, bars and an embedded picture; nothing is loaded from elsewhere."""
    small_bench(tmp_path)
    frames = [np.full((32, 48, 3), shade, np.uint8) for shade in (0, 80, 160)]
    write_video(frames, tmp_path / "videos" / "a_frozen.gif", 12.5)
    save_videos(tmp_path, [Video(BALL, "frozen", "a_frozen.gif", 7, "drop")], "one <is> missing")
    report, results = write_report(tmp_path)
    text = report.read_text()
    page = Page()
    page.feed(text)
    assert page.open == []
    assert {"table", "img", "style"} <= set(page.tags)
    assert page.sources and all(source.startswith("data:") for source in page.sources)
    assert not re.search(r"https?://|url\(|@import", text)
    assert "prefers-color-scheme: dark" in text
    assert "published, Isaac Lab" in text and "85.6" in text
    assert "one &lt;is&gt; missing" in text
    assert text.index('class="verdict"') < text.index("<table")
    assert text.count("<th>against<br>dexcompose</th>") == 3  # two pairs and Overall, whatever the number of methods
    assert len(results["comparisons"]) == 4


def test_report_escapes_whatever_comes_from_outside(tmp_path: Path) -> None:
    """Names of methods and selectors, captions and the configuration can't become elements or attributes."""
    evil = '<b onload="x">&'
    lines = [",".join(EPISODE_COLUMNS)]
    for method in (evil, "m"):
        for record in records(BALL, method, "sd"):
            lines.append(",".join(f'"{str(value).replace(chr(34), 2 * chr(34))}"' for value in astuple(record)))
    (tmp_path / "episodes.csv").write_text("\n".join([*lines, ""]))
    write_video([np.zeros((8, 8, 3), np.uint8)] * 2, tmp_path / "videos" / "v.gif", 10)
    save_videos(tmp_path, [Video(evil, evil, "v.gif", 7, evil)], evil)
    text = write_report(tmp_path)[0].read_text()
    page = Page()
    page.feed(text)
    assert "b" in page.tags  # our own, of the caption
    assert "<b " not in text and evil not in text and "&lt;b onload=" in text


def printed_table(results: dict[str, Any], encoding: str = "utf-8") -> str:
    """What an 80-column console of an encoding prints."""
    raw = io.BytesIO()
    console = Console(file=io.TextIOWrapper(raw, encoding=encoding), width=80)
    print_tables(results, console)
    console.file.flush()
    return raw.getvalue().decode(encoding)


def test_terminal_table_has_ours_and_theirs(tmp_path: Path) -> None:
    """Verdict, both pairs, the overall rows, and the published number in a column of its own."""
    _, results, printed = small_bench(tmp_path)
    for text in (printed, printed_table(results)):
        assert "published" in text and "Isaac Lab" in text
        assert "Overall, 2 of 2 pairs" in text and "86.5" in text
        assert text.splitlines()[0].startswith(verdict(results)[:40])
        assert "…" not in text


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "utf-8"])
def test_terminal_table_prints_everywhere(encoding: str) -> None:
    """All pairs, long names, Rich's brackets and foreign letters, on a console that has few characters."""
    pairs = pair_names()
    methods = ("frozen", "residual-with-a-very-long-name-of-its-own", "naïve[red]", "dexcompose")
    data = [
        record for pair in pairs for name in methods for seed in (0, 1) for record in records(pair, name, "sd", seed)
    ]
    text = printed_table(summarise(data), encoding)
    assert all(len(line) <= 80 for line in text.splitlines())
    assert all(pair in text for pair in pairs)
    assert ("50.0 +- 0.0" if encoding == "ascii" else "50.0 ± 0.0") in text
    assert ("na?ve[red]" if encoding == "ascii" else "naïve[red]") in text


def test_bench_is_resumed_after_an_interruption(tmp_path: Path) -> None:
    """Ctrl-C in the third run: nothing is lost, and the rest is that of an uninterrupted benchmark."""
    made: list[FakeWorlds] = []

    def worlds(pair: str, num_envs: int) -> FakeWorlds:
        made.append(FakeWorlds(pair, num_envs, interrupt_after=4 if len(made) == 2 else None))
        return made[-1]

    with pytest.raises(KeyboardInterrupt):
        small_bench(tmp_path / "a", worlds=worlds)
    before = read_episodes(tmp_path / "a")
    assert 20 <= len(before) < 30
    small_bench(tmp_path / "a")
    small_bench(tmp_path / "b")
    assert (tmp_path / "a" / "episodes.csv").read_bytes() == (tmp_path / "b" / "episodes.csv").read_bytes()
    assert len(read_episodes(tmp_path / "a")) == 60


def test_bench_leaves_out_pairs_that_nobody_has_trained(tmp_path: Path) -> None:
    def make(name: str, pair: str, **options: Any) -> FakeMethod:
        if pair != BALL and name == "dexcompose":
            raise NotMadeError(f"no residual for {pair}")
        return fake_method(name, pair, **options)

    _, results, printed = small_bench(tmp_path / "all", pairs=(), make=make)
    assert {run["pair"] for run in results["runs"]} == {BALL}
    first, *others = (pair for pair in pair_names() if pair != BALL)
    assert printed.startswith(f"left out: {', '.join((first, *others))}, since there is no residual for {first}\n")
    with pytest.raises(NotMadeError, match=f"no residual for {STICK}"):  # asked for by name
        small_bench(tmp_path / "named", pairs=(BALL, STICK), make=make)

    def nothing(name: str, pair: str, **_: Any) -> FakeMethod:
        raise NotMadeError(f"nothing for {pair}")

    with pytest.raises(NotMadeError, match=f"nothing for {pair_names()[0]}"):
        small_bench(tmp_path / "none", pairs=(), make=nothing)


def test_bench_checks_names_and_folder_first(tmp_path: Path) -> None:
    """A typing error in the last method is found before the first is run."""
    refuse = {"worlds": lambda *_: pytest.fail("nothing may be run")}
    with pytest.raises(ValueError, match="unknown method 'nope'"):
        small_bench(tmp_path, methods=("frozen", "nope"), **refuse)
    with pytest.raises(ValueError, match="unknown pair"):
        small_bench(tmp_path, pairs=("nope",), **refuse)
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="file"):
        small_bench(tmp_path / "file", **refuse)
    with pytest.raises(EvaluationError, match="frozen is there twice"):
        small_bench(tmp_path, methods=("frozen", "frozen"), **refuse)
    with pytest.raises(EvaluationError, match="reference 'ppo' is none of the methods frozen"):
        small_bench(tmp_path, reference="ppo", **refuse)


def test_bench_says_which_methods_use_no_selector(tmp_path: Path) -> None:
    """A selector that was asked for is recorded for those methods only that use it."""
    _, results, printed = small_bench(tmp_path, selector="oracle")
    assert "selector 'oracle' does not apply to frozen, zero-shot, dexcompose" in printed
    assert {row["selector"] for row in results["runs"]} == {"none"}


def test_bench_goes_on_without_a_renderer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No GL backend: a note on the screen and in the report, and all the numbers."""

    def fail(*_: Any) -> Video:
        raise MachineError("nothing to render with")

    monkeypatch.setattr(bench, "record_video", fail)
    report, _, printed = small_bench(tmp_path, videos="all")
    assert "no video: nothing to render with" in printed
    assert "Videos are missing: nothing to render with" in report.read_text()


def test_film_is_of_the_episode_it_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It shows the evaluation's rollout from its start to its end, and not what the world does afterwards."""

    class Rendered(FakeWorlds):
        """Worlds whose pictures are as bright as they are old, and whose phases change every two steps."""

        layout: ClassVar = {"context": {"phase": slice(1, 4)}}

        @property
        def unwrapped(self) -> Any:
            return self

        def _observe(self) -> dict[str, Any]:
            phases = np.eye(3)[np.minimum(self._steps // 2, 2)]
            return {"context": np.hstack([super()._observe()["context"], phases])}

        def render(self) -> Any:
            return (np.full((40, 48, 3), self._steps[0], np.uint8),)

    monkeypatch.setattr(video, "make_worlds", lambda pair, n, **_: Rendered(pair, n))
    captioned: list[tuple[int, int, str | None]] = []

    def caption(frame: Any, phase: int, outcome: str | None = None) -> Any:
        captioned.append((int(frame[0, 0, 0]), phase, outcome))
        return frame

    monkeypatch.setattr(video, "_captioned", caption)
    small_bench(tmp_path)
    first = next(record for record in read_episodes(tmp_path) if record.method == "frozen")
    filmed = video.record_video(BALL, fake_method("frozen", ""), planned_episodes(1, 1)[0], tmp_path)
    assert (filmed.episode_seed, filmed.outcome) == (first.episode_seed, first.outcome)
    assert (tmp_path / "videos" / filmed.file).stat().st_size > 0
    steps = sorted({*range(0, first.steps, 2), first.steps})
    assert captioned == [
        *((step, min(step // 2, 2), None) for step in steps),
        (first.steps, min(steps[-2] // 2, 2), first.outcome),
    ]


@pytest.mark.parametrize("name", ["film.gif", "GraspBall.v2.mp4", "film.mp4"])
def test_video_goes_where_its_name_says(tmp_path: Path, name: str) -> None:
    """Odd sizes, and names that hold dots; the file can be read again."""
    frames = [np.full((33, 47, 3), shade, np.uint8) for shade in (0, 200)]
    write_video(frames, tmp_path / name, 12.5)
    assert [item.name for item in tmp_path.iterdir()] == [name]
    assert len(iio.imread(tmp_path / name)) == 2
    with pytest.raises(VideoError, match="no frames"):
        write_video([], tmp_path / name, 12.5)
    with pytest.raises(UsageError, match=r"film\.avi' must end in \.mp4 or \.gif"):
        write_video(frames, tmp_path / "film.avi", 12.5)


def test_captions_show_the_phase_and_the_outcome() -> None:
    """The strip differs by phase only, and the rest of the picture is untouched."""
    frame = np.full((120, 320, 3), 90, np.uint8)
    strips = [video._captioned(frame, phase) for phase in range(3)]
    assert (strips[0] != strips[1]).any() and (strips[1] != strips[2]).any()
    assert (video._captioned(frame, 2, "drop") != strips[2]).any()
    assert (strips[0][30:] == frame[30:]).all()


def test_spoilt_video_index_is_no_obstacle(tmp_path: Path) -> None:
    """The report is about numbers; a broken index only costs the videos."""
    assert load_videos(tmp_path) == ([], None)
    (tmp_path / "videos").mkdir()
    index = tmp_path / "videos" / "videos.json"
    for content in ("{}", '{"videos": [{"file": 3}]}', '{"videos": 7}', "[", "\xff"):
        index.write_text(content)
        assert load_videos(tmp_path) == ([], "videos.json cannot be read")


def test_video_index_names_no_other_files(tmp_path: Path) -> None:
    """A report may be handed on, so an index can't make it embed whatever lies on this machine."""
    (tmp_path / "secret.gif").write_bytes(b"GIF89a")
    save_videos(tmp_path, [Video(BALL, "m", "../secret.gif", 7, "drop"), Video(BALL, "m", "videos.json", 7, "x")], None)
    assert load_videos(tmp_path) == ([], None)


def test_report_of_nothing(tmp_path: Path) -> None:
    """A folder without episodes is named."""
    with pytest.raises(FileError, match="no episodes"):
        write_report(tmp_path)
    (tmp_path / "episodes.csv").write_text("pair,method,selector,seed,episode_seed,outcome,steps\n")
    with pytest.raises(EvaluationError, match="no finished episode"):
        write_report(tmp_path)
