"""Which episodes are run: fixed, each once, whatever ``num_envs``, and resumed where they were stopped."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dexcompose_agents.evaluation import EvaluationError, EvaluationInterrupted, episode_seed, evaluate
from dexcompose_agents.evaluation.protocol import EVALUATION_SEED_BASE
from dexcompose_agents.evaluation.records import EpisodeLog, EpisodeRecord, read_episodes
from dexcompose_envs.rollouts import AgentError

from .fakes import FakeMethod, FakeWorlds

PAIR = "GraspBall-PushButton"


def run(out: Path | None = None, method: Any = None, worlds: Any = FakeWorlds, **kwargs: Any) -> Any:
    """A small evaluation of the fake method."""
    kwargs = {"seeds": 3, "rollouts": 4, "num_envs": 4} | kwargs
    return evaluate(PAIR, method or FakeMethod(), out=out, worlds=worlds, **kwargs)


@given(
    st.tuples(st.integers(0, 8191), st.integers(0, 2**17 - 1)),
    st.tuples(st.integers(0, 8191), st.integers(0, 2**17 - 1)),
)
def test_episode_seeds_are_distinct_and_apart_from_training(first: tuple[int, int], second: tuple[int, int]) -> None:
    """Seeds collide only if seed and rollout agree; all lie in [2**30, 2**31)."""
    assert (episode_seed(*first) == episode_seed(*second)) == (first == second)
    assert EVALUATION_SEED_BASE <= episode_seed(*first) < 2**31


@pytest.mark.parametrize(("seed", "rollout"), [(-1, 0), (8192, 0), (0, -1), (0, 2**17)])
def test_episode_seed_refuses_numbers_out_of_range(seed: int, rollout: int) -> None:
    """Out of range would collide with another episode's seed."""
    with pytest.raises(EvaluationError, match="must lie in"):
        episode_seed(seed, rollout)


@settings(max_examples=40, deadline=None)
@given(num_envs=st.integers(1, 17), seeds=st.integers(1, 4), rollouts=st.integers(1, 6), other=st.integers(1, 17))
def test_result_does_not_depend_on_num_envs(num_envs: int, seeds: int, rollouts: int, other: int) -> None:
    """The same episodes with the same outcomes and lengths, for any batching."""
    first = run(seeds=seeds, rollouts=rollouts, num_envs=num_envs)
    second = run(seeds=seeds, rollouts=rollouts, num_envs=other)
    assert first.records == second.records
    expected = [episode_seed(seed, rollout) for seed in range(seeds) for rollout in range(rollouts)]
    assert [record.episode_seed for record in first.records] == expected


def test_unstable_worlds_are_errors_and_count_as_failures(tmp_path: Path) -> None:
    """An unstable world's outcome is ``error`` whatever the environment made of it, and it stays in the total."""
    evaluation = run(tmp_path, seeds=4, rollouts=10)
    outcomes = evaluation.summary["outcomes"]
    assert outcomes["error"] > 0
    assert sum(outcomes.values()) == evaluation.summary["episodes"] == 40
    assert evaluation.summary["success"]["mean"] == pytest.approx(outcomes["success"] / 40)


def test_files_are_written(tmp_path: Path) -> None:
    """One line per episode in the columns of the contract, and results with interval, versions, machine and time."""
    evaluation = run(tmp_path)
    lines = (tmp_path / "episodes.csv").read_text().splitlines()
    assert lines[0] == "pair,method,selector,seed,episode_seed,outcome,steps"
    assert len(lines) == 13
    assert sorted(read_episodes(tmp_path), key=lambda record: record.episode_seed) == list(evaluation.records)
    results = json.loads((tmp_path / "results.json").read_text())
    row = results["runs"][0]
    assert results["complete"] and row["complete"]
    assert row["wilson95"]["low"] <= row["success"]["mean"] <= row["wilson95"]["high"]
    entry = results["provenance"][f"{PAIR}/fake/none"]
    assert entry["machine"]["cpu"] and entry["machine"]["cores"] >= 1
    assert "mujoco" in entry["versions"]
    assert row["wall_time_s"] >= 0


@pytest.mark.parametrize("interrupt_after", [0, 1, 5, 9])
def test_interruption_loses_nothing_and_resumes(tmp_path: Path, interrupt_after: int) -> None:
    """After Ctrl-C the finished episodes are on disk; a second run does the rest, as one run would have."""
    made: list[FakeWorlds] = []

    def interrupting(pair: str, num_envs: int) -> FakeWorlds:
        made.append(FakeWorlds(pair, num_envs, interrupt_after=interrupt_after))
        return made[-1]

    with pytest.raises(EvaluationInterrupted) as caught:
        run(tmp_path, worlds=interrupting)
    assert caught.value.saved_to == tmp_path
    assert made[0].closed
    before = read_episodes(tmp_path)
    assert not json.loads((tmp_path / "results.json").read_text())["complete"]

    def resuming(pair: str, num_envs: int) -> FakeWorlds:
        made.append(FakeWorlds(pair, num_envs))
        return made[-1]

    resumed = run(tmp_path, worlds=resuming)
    assert resumed.records == run().records
    assert read_episodes(tmp_path)[: len(before)] == before
    assert not {record.episode_seed for record in before} & set(made[1].started)


def test_finished_evaluation_runs_nothing_again(tmp_path: Path) -> None:
    """With everything there, no environment is made; more seeds run only what is missing."""
    run(tmp_path)

    def refuse(*_: Any) -> FakeWorlds:
        raise AssertionError("no world is needed")

    run(tmp_path, worlds=refuse)
    assert len(run(tmp_path, seeds=5).records) == 20
    assert len(read_episodes(tmp_path)) == 20


def test_resume_refuses_another_configuration(tmp_path: Path) -> None:
    """Episodes of two configurations must not end up in one table."""
    run(tmp_path)
    with pytest.raises(EvaluationError, match=r"method\.gain = 0\.01, now 0\.5"):
        run(tmp_path, FakeMethod(gain=0.5))
    (tmp_path / "manifest.json").unlink()
    with pytest.raises(EvaluationError, match="cannot be resumed"):
        run(tmp_path)


def test_half_written_line_is_dropped(tmp_path: Path) -> None:
    """A killed process may leave part of a line; that episode is run again."""
    whole = run(tmp_path).records
    path = tmp_path / "episodes.csv"
    path.write_bytes(path.read_bytes()[:-7])
    assert len(read_episodes(tmp_path)) == 11
    assert run(tmp_path).records == whole
    assert len(read_episodes(tmp_path)) == 12


def _append(line: str) -> Callable[[Path], None]:
    return lambda path: path.write_text(path.read_text() + line)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (_append("a,b,none,0,1,vanished,3\n"), "unknown outcome 'vanished'"),
        (_append("a,b,none,zero,1,drop,3\n"), "must be integers"),
        (_append("a,b\n"), "expected 7 columns, found 2"),
        (lambda path: path.write_text(path.read_text() + path.read_text().splitlines()[-1] + "\n"), "twice"),
        (lambda path: path.write_text("a,b\n1,2\n"), "expected the columns"),
        (lambda path: path.write_bytes(b"\xff\xfe\x00"), "not a text file"),
    ],
)
def test_spoilt_records_are_refused(tmp_path: Path, spoil: Callable[[Path], None], message: str) -> None:
    """Every malformed file gives one line that says what is wrong."""
    run(tmp_path)
    spoil(tmp_path / "episodes.csv")
    with pytest.raises(EvaluationError, match=message) as caught:
        read_episodes(tmp_path)
    assert "\n" not in str(caught.value)


def test_spoilt_manifest_is_refused(tmp_path: Path) -> None:
    """A manifest that cannot be read is not guessed at."""
    run(tmp_path)
    (tmp_path / "manifest.json").write_text("{")
    with pytest.raises(EvaluationError, match="not a readable manifest"):
        run(tmp_path)


def test_two_writers_are_refused(tmp_path: Path) -> None:
    """The second evaluation into a folder that is being written stops at once."""
    pytest.importorskip("fcntl")
    with EpisodeLog(tmp_path), pytest.raises(EvaluationError, match="another evaluation"):
        run(tmp_path)


def test_unwritable_folder(tmp_path: Path) -> None:
    """An output path below a file can't be made; nothing is computed before that is known."""
    (tmp_path / "file").write_text("")
    made: list[Any] = []
    with pytest.raises(EvaluationError, match="cannot write to"):
        run(tmp_path / "file" / "out", worlds=lambda *args: made.append(args))
    assert made == []


def test_log_reaches_the_file_at_once(tmp_path: Path) -> None:
    """A record is on disk when ``append`` returns, not when the log is closed."""
    record = EpisodeRecord(PAIR, "fake", "none", 0, 7, "drop", 3)
    with EpisodeLog(tmp_path) as log:
        log.append(record)
        assert read_episodes(tmp_path) == [record]


class Broken(FakeMethod):
    """Returns whatever it was given."""

    def __init__(self, action: Callable[[int], Any]) -> None:
        """A method that returns ``action(N)``."""
        super().__init__()
        self.action = action

    def act(self, obs: dict[str, Any]) -> Any:
        """Return the given array."""
        return self.action(len(obs["context"]))


@pytest.mark.parametrize(
    ("action", "message"),
    [
        (
            lambda n: np.full((n, 28), np.nan),
            "agent 'fake' returned a NaN or infinite action in the episode with seed 1073741824",
        ),
        (lambda n: np.full((n, 28), np.inf), "NaN or infinite"),
        (lambda n: np.zeros((n, 27)), r"shape \(4, 27\); expected \(4, 28\)"),
        (lambda n: np.zeros(28), "shape"),
    ],
)
def test_invalid_actions_are_refused(action: Callable[[int], Any], message: str) -> None:
    """A broken method is named, with the episode."""
    with pytest.raises(AgentError, match=message):
        run(method=Broken(action))


@pytest.mark.parametrize("numbers", [{"seeds": 0}, {"rollouts": 0}, {"num_envs": 0}, {"seeds": 9000}])
def test_bad_numbers_are_refused(numbers: dict[str, int]) -> None:
    """The message names the number that came."""
    with pytest.raises(EvaluationError, match=str(next(iter(numbers.values())))):
        run(**numbers)


def test_unknown_pair_and_method_name_the_known_ones() -> None:
    """Both messages list what there is."""
    with pytest.raises(ValueError, match="expected one of GraspBall-PushButton"):
        evaluate("GraspBall-Violin", FakeMethod(), worlds=FakeWorlds)
    with pytest.raises(ValueError, match="expected one of frozen, zero-shot, dexcompose"):
        evaluate(PAIR, "magic", worlds=FakeWorlds)
