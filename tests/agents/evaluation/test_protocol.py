"""Which episodes are run: fixed, each once, whatever ``num_envs``, and resumed where they were stopped."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dexcompose_agents.evaluation import EvaluationError, evaluate, fingerprints
from dexcompose_agents.evaluation.manifest import Manifest
from dexcompose_agents.evaluation.protocol import outcome_of
from dexcompose_agents.evaluation.records import (
    EVALUATION_SEED_BASE,
    EpisodeRecord,
    append_episode,
    episode_seed,
    tidy_episodes,
)
from dexcompose_agents.evaluation.report import write_report
from dexcompose_agents.evaluation.results import write_results
from dexcompose_agents.methods import make_method
from dexcompose_agents.runtime.provenance import software_versions
from dexcompose_envs.episodes.phases import ONGOING
from dexcompose_envs.errors import FileError, UsageError
from dexcompose_envs.files import LOCK_FILE, OutputError
from dexcompose_envs.held_states import HeldStateLibrary
from dexcompose_envs.rollouts import AgentError, Episode, Rollout

from .fakes import FakeMethod, FakeWorlds, read_episodes

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
    with pytest.raises(UsageError, match=r"is -?\d+; expected a whole number from 0 to (8191|131071)$"):
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
    assert read_episodes(tmp_path) == list(evaluation.records)
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

    with pytest.raises(KeyboardInterrupt) as caught:
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
    assert read_episodes(tmp_path) == list(resumed.records)  # in the plan's order, whenever each was run
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
    with pytest.raises(EvaluationError, match=r"whose config\.method\.gain is 0\.01; expected 0\.5; choose"):
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


def test_rows_are_in_the_plans_order(tmp_path: Path) -> None:
    """Pair, published order of methods, selector, seed, rollout; a folder that is already in order isn't rewritten."""
    for name, pair in (("zero-shot", "PickStick-PushButton"), ("mine", PAIR), ("frozen", PAIR)):
        method = FakeMethod()
        method.name = name  # type: ignore[misc]
        evaluate(pair, method, out=tmp_path, worlds=FakeWorlds, seeds=2, rollouts=2)
    order = [(record.pair, record.method, record.seed, record.rollout) for record in read_episodes(tmp_path)]
    runs = [(PAIR, "frozen"), (PAIR, "mine"), ("PickStick-PushButton", "zero-shot")]
    assert order == [(*run, seed, rollout) for run in runs for seed in (0, 1) for rollout in (0, 1)]
    before = (tmp_path / "episodes.csv").stat().st_ino
    tidy_episodes(tmp_path)
    assert (tmp_path / "episodes.csv").stat().st_ino == before


FIRST = episode_seed(0, 0)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (f"{PAIR},fake,none,0,{FIRST},vanished,60", "unknown outcome 'vanished'"),
        (f"{PAIR},fake,none,zero,{FIRST},drop,60", "must be integers"),
        (f"{PAIR},fake,none,0,{FIRST},drop,6_0", "must be integers"),
        (f"{PAIR},fake,none,+0,{FIRST},drop,60", "must be integers"),
        ("a,b", "expected 7 columns, found 2"),
        (f'{PAIR},"fake,none,0,{FIRST},drop,60', "unexpected end of data"),
        (f"Ball-Violin,fake,none,0,{FIRST},drop,60", "Ball-Violin"),
        (f"{PAIR},,none,0,{FIRST},drop,60", "must not be empty"),
        (f"{PAIR},fake,none,0,{FIRST - 1},drop,60", "is none of seed 0"),
        (f"{PAIR},fake,none,0,{FIRST + 2**17},drop,60", "is none of seed 0"),
        (f"{PAIR},fake,none,8192,{FIRST},drop,60", "evaluation seed is 8192; expected"),
        (f"{PAIR},fake,none,-1,{FIRST},drop,60", "evaluation seed is -1; expected"),
        (f"{PAIR},fake,none,0,{FIRST},error,0", "steps of outcome 'error' is 0; expected a whole number of at least 1"),
        (f"{PAIR},fake,none,0,{FIRST},b_fail,-5", "steps of outcome 'b_fail' is -5; expected"),
        (f"{PAIR},fake,none,0,{FIRST},success,10", "of at least 11"),
        (f"{PAIR},fake,none,0,{FIRST},init,0", "of at least 1"),
        (f"{PAIR},fake,none,0,{FIRST},transition,10", "of at least 11"),
        (f"{PAIR},fake,none,0,{FIRST},drop,50", "of at least 51"),
        (f"{PAIR},fake,none,3,{episode_seed(3, 0)},drop,60", "not in the manifest's plan of 3 seeds with 4 rollouts"),
        (f"{PAIR},fake,none,0,{episode_seed(0, 4)},drop,60", "not in the manifest's plan of 3 seeds with 4 rollouts"),
        (f"{PAIR},other,none,0,{FIRST},drop,60", f"knows no run {PAIR}/other/none"),
        (f"{PAIR},fake,none,0,{FIRST},error,60", f"episode {FIRST} of {PAIR}/fake/none is there twice"),
    ],
)
def test_rows_outside_the_protocol_are_refused(tmp_path: Path, row: str, message: str) -> None:
    """Malformed, foreign, contradictory and unplanned rows: one line with file and line, on every way in."""
    run(tmp_path)
    path = tmp_path / "episodes.csv"
    path.write_text(path.read_text() + row + "\n")
    for reading in (read_episodes, write_results, run):
        with pytest.raises(FileError, match=r"episodes\.csv, line 14: .*" + re.escape(message)) as caught:
            reading(tmp_path)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"a,b\n1,2\n", "expected the columns"), (b"\xff\xfe\x00", "not a text file"), (b"pair\x00\n", r"episodes\.csv")],
)
def test_spoilt_files_are_refused(tmp_path: Path, content: bytes, message: str) -> None:
    """Not the file that it should be: said with its name."""
    (tmp_path / "episodes.csv").write_bytes(content)
    with pytest.raises(FileError, match=message):
        read_episodes(tmp_path)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=4,
)


def _paths(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    items = value.items() if isinstance(value, dict) else ()
    return [path, *(found for name, item in items for found in _paths(item, (*path, name)))]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a small evaluation; whoever spoils it mends it."""
    folder = tmp_path_factory.mktemp("finished")
    run(folder)
    return folder


@settings(max_examples=80, deadline=None)
@given(data=st.data())
def test_any_manifest_is_understood_or_refused_in_one_line(finished: Path, data: st.DataObject) -> None:
    """Any field gone or replaced by anything: the report is made, or the file named."""
    path = finished / "manifest.json"
    content = json.loads(good := path.read_text())
    where = data.draw(st.sampled_from(_paths(content)))
    if not where:
        content = data.draw(json_values)
    else:
        inner = content
        for name in where[:-1]:
            inner = inner[name]
        if data.draw(st.booleans()):
            inner[where[-1]] = data.draw(json_values)
        else:
            del inner[where[-1]]
    try:
        path.write_text(json.dumps(content))
        write_report(finished, finished / "r.html")
    except FileError as error:
        assert "manifest" in str(error) and "\n" not in str(error)
    finally:
        path.write_text(good)


@pytest.mark.parametrize("text", ["{", "", "[]", "[" * 100_000, '{"format": 2, "runs": {}}', '{"format": 1}', "\0"])
def test_spoilt_manifest_is_refused(tmp_path: Path, text: str) -> None:
    """A manifest that cannot be read is not guessed at."""
    run(tmp_path)
    (tmp_path / "manifest.json").write_text(text)
    with pytest.raises(FileError, match=r"manifest\.json'"):
        run(tmp_path)


def test_manifest_of_another_configuration_is_noticed(tmp_path: Path) -> None:
    """A configuration that was changed by hand no longer has its hash."""
    run(tmp_path)
    path = tmp_path / "manifest.json"
    path.write_text(path.read_text().replace('"gain": 0.01', '"gain": 0.5'))
    with pytest.raises(FileError, match="does not fit its hash"):
        run(tmp_path, FakeMethod(gain=0.5))


def test_two_writers_are_refused(tmp_path: Path) -> None:
    """The second evaluation into a folder that is being written stops at once."""
    fcntl = pytest.importorskip("fcntl")
    with (tmp_path / LOCK_FILE).open("w") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(UsageError, match="another process is writing"):
            run(tmp_path, worlds=lambda *_: pytest.fail("nothing may be run"))


def test_unwritable_folder(tmp_path: Path) -> None:
    """An output path below a file can't be made; nothing is computed before that is known."""
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="file/out"):
        run(tmp_path / "file" / "out", worlds=lambda *_: pytest.fail("nothing may be run"))


def test_episode_is_in_the_file_at_once(tmp_path: Path) -> None:
    """A record is on disk when it was reported as finished, not when the evaluation is through."""
    seen: list[int] = []
    run(tmp_path, progress=lambda done, _: seen.append(len(read_episodes(tmp_path)) - done))
    assert seen == [0] * 13


def test_full_disk_names_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The system's reason alone would not say which disk."""

    def full(*_: Any, **__: Any) -> Any:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "open", full)
    with pytest.raises(OutputError, match=r"episodes\.csv.*No space left on device"):
        append_episode(tmp_path, EpisodeRecord(PAIR, "fake", "none", 0, FIRST, "drop", 51))


def test_smaller_plan_keeps_the_larger(tmp_path: Path) -> None:
    """Asking for fewer seeds later evaluates those alone, and what was there stays part of the folder's plan."""
    run(tmp_path, seeds=3)
    assert run(tmp_path, seeds=2).summary["complete"]
    assert len(read_episodes(tmp_path)) == 12
    assert Manifest.load(tmp_path).runs[f"{PAIR}/fake/none"]["plan"]["seeds"] == 3


@pytest.fixture
def plug_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The source file of a module with two methods, one of which describes nothing."""
    source = tmp_path / "plug_in_for_resume.py"
    source.write_text(
        "from tests.agents.evaluation.fakes import FakeMethod\n"
        "class Described(FakeMethod):\n    name = 'described'\n"
        "class Silent(FakeMethod):\n    name = 'silent'\n    describe = None\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    yield source
    sys.modules.pop(source.stem, None)


@pytest.mark.parametrize("name", ["Described", "Silent"])
@pytest.mark.parametrize("instance", [False, True])
def test_method_whose_source_changed_is_refused(plug_in: Path, tmp_path: Path, name: str, instance: bool) -> None:
    """Old episodes are not passed off as those of new code; the same code goes on."""

    def method() -> Any:
        word = f"{plug_in.stem}:{name}"
        return make_method(word, PAIR) if instance else word

    out = tmp_path / "out"
    run(out, method())
    run(out, method(), seeds=4)
    plug_in.write_text(plug_in.read_text() + "# changed\n")
    with pytest.raises(EvaluationError, match=r"whose config\.method\.source is .* choose another folder"):
        run(out, method())


def test_option_of_a_method_that_describes_nothing_is_remembered(plug_in: Path, tmp_path: Path) -> None:
    """Without ``describe()`` the options that a method was made with are what tells two of them apart."""
    run(tmp_path / "out", f"{plug_in.stem}:Silent", gain=0.1)
    with pytest.raises(EvaluationError, match=r"method\.gain is '0\.1'; expected '0\.2'"):
        run(tmp_path / "out", f"{plug_in.stem}:Silent", gain=0.2)


def test_method_without_source_is_not_resumed(tmp_path: Path) -> None:
    """Of a class that was typed in, nobody can tell whether it is the same as before."""
    typed = type("Typed", (FakeMethod,), {"__module__": "nowhere"})
    run(tmp_path, typed())
    with pytest.raises(EvaluationError, match=r"method\.source is 'unreadable"):
        run(tmp_path, typed())


def test_a_change_of_our_composition_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Our own methods are identified by the sources of the composition, too; the version is only information."""
    run(tmp_path)
    monkeypatch.setattr(fingerprints, "_OWN_SOURCE", "dexcompose_agents.evaluation")
    with pytest.raises(EvaluationError, match=r"method\.composition is "):
        run(tmp_path)


def test_a_release_does_not_end_an_evaluation() -> None:
    """The package's version is noted, but not part of what has to stay the same."""
    assert fingerprints.environment_fingerprint(PAIR).keys() == {"data_version", "model_hash", "held_states"}
    assert "dexcompose" in software_versions()


def test_held_states_are_known_by_what_they_are(tmp_path: Path) -> None:
    """A library given as an object or a file is not passed off as the one that ships."""
    shipped = HeldStateLibrary.load("GraspBall")
    other = HeldStateLibrary.from_columns(shipped.manifest, shipped.take(np.arange(len(shipped) - 1)))
    other.save(tmp_path / "other.npz")

    def found(held_states: Any = None) -> Any:
        return fingerprints.environment_fingerprint(PAIR, held_states)["held_states"]

    assert found() == found(shipped) != found(other)
    assert found(tmp_path / "other.npz") == found(HeldStateLibrary.load(tmp_path / "other.npz"))


@pytest.mark.parametrize("selector", [None, "none"])
def test_selector_is_the_methods_own_word(tmp_path: Path, selector: str | None) -> None:
    """ "none" for a method without a mask; one that was asked for and isn't used is refused, not recorded."""
    assert {record.selector for record in run(selector=selector).records} == {"none"}
    with pytest.raises(EvaluationError, match="'fake' uses no selector, but selector 'oracle' was asked for"):
        run(tmp_path, selector="oracle")
    chosen = FakeMethod()
    chosen.selector = "utility"  # type: ignore[misc]
    assert {record.selector for record in run(method=chosen).records} == {"utility"}
    with pytest.raises(EvaluationError, match="uses selector 'utility', but selector 'oracle'"):
        run(method=chosen, selector="oracle")


def test_episode_that_is_cut_short_has_no_outcome() -> None:
    """It is neither a success nor any of the failures, so it can't be counted."""
    rollout = Rollout(Episode(FIRST), 25, {"unstable": False, "outcome": ONGOING}, False, True)
    with pytest.raises(EvaluationError, match=f"episode {FIRST} was cut short after 25 steps"):
        outcome_of(rollout)


@pytest.mark.parametrize("name", ["", "a/b", "a\nb", 3])
def test_names_that_cannot_be_kept_are_refused(name: Any) -> None:
    """A name becomes part of keys and rows."""
    method = FakeMethod()
    method.name = name  # type: ignore[misc]
    with pytest.raises(EvaluationError, match="name of a method must be printable text"):
        run(method=method)


@pytest.mark.parametrize("described", [{"a": np.float32(1)}, {"a": float("nan")}, [1], None])
def test_descriptions_that_cannot_be_kept_are_refused(described: Any) -> None:
    """The message names the method."""
    method = FakeMethod()
    method.describe = lambda: described  # type: ignore[method-assign]
    with pytest.raises(EvaluationError, match=r"describe\(\) of method 'fake'"):
        run(method=method)


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


@pytest.mark.parametrize(
    "numbers", [{"seeds": 0}, {"rollouts": 0}, {"num_envs": 0}, {"seeds": 9000}, {"num_envs": 1.5}]
)
def test_bad_numbers_are_refused(numbers: dict[str, Any]) -> None:
    """The message names the number that came."""
    with pytest.raises(UsageError, match=str(next(iter(numbers.values())))):
        run(**numbers)


def test_unknown_pair_and_method_name_the_known_ones() -> None:
    """Both messages list what there is."""
    with pytest.raises(ValueError, match="expected one of GraspBall-OpenDoor"):
        evaluate("GraspBall-Violin", FakeMethod(), worlds=FakeWorlds)
    with pytest.raises(ValueError, match="expected one of frozen, zero-shot, dexcompose"):
        evaluate(PAIR, "magic", worlds=FakeWorlds)
