"""Pairs evaluated side by side: the same files, and nothing lost when that is stopped."""

import json

import pytest

from dexcompose_agents.bench import run_bench
from dexcompose_agents.evaluation import evaluate
from dexcompose_agents.evaluation.shares import SHARES, share_of, take_back
from dexcompose_envs.errors import FileError, UsageError

from .fakes import FakeMethod, FakeWorlds, read_episodes

PAIRS = ("GraspBall-PushButton", "PickStick-PushButton")


@pytest.fixture
def folder(tmp_path):
    """Both pairs, 2 seeds x 3 rollouts, made up."""
    for pair in PAIRS:
        evaluate(pair, FakeMethod(), seeds=2, rollouts=3, out=tmp_path / "out", worlds=FakeWorlds)
    return tmp_path / "out"


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.suffix in (".csv", ".json")}


def test_a_share_holds_its_pair_and_goes_back_as_it_was(folder):
    before = contents(folder)
    share = share_of(folder, PAIRS[0])
    assert {record.pair for record in read_episodes(share)} == {PAIRS[0]} and len(read_episodes(share)) == 6
    take_back(folder)
    assert contents(folder) == before and not (folder / SHARES).exists()
    take_back(folder)
    assert contents(folder) == before


def test_what_was_done_in_a_share_is_kept(folder):
    share = share_of(folder, PAIRS[1])
    evaluate(PAIRS[1], FakeMethod(), seeds=3, rollouts=3, out=share, worlds=FakeWorlds)
    for _ in range(2):  # the second time a process was killed while it took the share back
        take_back(folder)
        assert len(read_episodes(folder)) == 6 + 9
        share_of(folder, PAIRS[1])
    take_back(folder)
    runs = json.loads((folder / "results.json").read_text())["runs"]
    assert {run["pair"]: run["episodes"] for run in runs} == {PAIRS[0]: 6, PAIRS[1]: 9}


def test_a_damaged_share_is_named_and_stays(folder):
    share = share_of(folder, PAIRS[0])
    (share / "episodes.csv").write_text("nonsense\n")
    with pytest.raises(FileError, match=r"work/GraspBall-PushButton/episodes\.csv, line 1"):
        take_back(folder)
    assert (share / "episodes.csv").read_text() == "nonsense\n"


def test_a_bench_side_by_side_finds_the_same(tmp_path):
    options = {"seeds": 1, "rollouts": 2, "videos": "none"}
    for jobs in (1, 2):
        run_bench(tmp_path / str(jobs), PAIRS, ["no-stabiliser"], jobs=jobs, **options)
    assert (tmp_path / "1" / "episodes.csv").read_bytes() == (tmp_path / "2" / "episodes.csv").read_bytes()
    assert not (tmp_path / "2" / SHARES).exists()
    with pytest.raises(UsageError, match="seeds is 0"):
        run_bench(tmp_path / "2", PAIRS, ["no-stabiliser"], jobs=2, **options | {"seeds": 0})
