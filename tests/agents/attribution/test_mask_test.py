"""The mask test: its table, what is tried, and that a test goes on and never mixes with another."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dexcompose_agents import cli
from dexcompose_agents.attribution.mask_table import (
    COLUMNS,
    MaskTestConfig,
    MaskTrial,
    plausible_masks,
    read_trials,
    write_trials,
)
from dexcompose_agents.attribution.mask_test import run_mask_test
from dexcompose_agents.attribution.tables import MaskResult, write_csv
from dexcompose_envs.errors import FileError, UsageError
from dexcompose_envs.ownership import FingerMask

PAIR = "GraspBall-PushButton"
MASKS = [FingerMask.parse(text) for text in ("TH+RF+LF", "TH+FF+MF")]
QUICK = MaskTestConfig(rollouts=2)


@given(counts=st.lists(st.tuples(*[st.integers(0, 20)] * 6).filter(any), min_size=1, max_size=30))
def test_a_table_reads_back_as_it_was_written(counts, tmp_path_factory):
    trials = [MaskTrial(mask, *row) for mask, row in zip(FingerMask.candidates(), counts, strict=False)]
    path = tmp_path_factory.mktemp("trials") / "mask_test.csv"
    write_trials(path, trials)
    assert read_trials(path) == trials
    for trial in trials:
        assert trial.interval.low <= trial.success <= trial.interval.high


def test_outcomes_are_counted():
    trial = MaskTrial.of_outcomes(MASKS[0], ["success", "drop", "success", "b_fail", "error"])
    assert trial == MaskTrial(MASKS[0], 2, drop=1, b_fail=1, error=1)
    assert trial.rollouts == 5 and trial.success == 0.4
    with pytest.raises(UsageError, match="rollouts is 0"):
        MaskTrial.of_outcomes(MASKS[0], [])


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        (",".join(COLUMNS), "mask,wins", "has the columns"),
        ("TH+RF+LF,3", "TH+RF+LF,3,3", "line 2: 12 values; expected 11"),
        ("TH+RF+LF,3", "TH+XX,3", "line 2: unknown finger 'XX'"),
        ("TH+RF+LF,3", "TH+RF+LF,three", "line 2: .*three"),
        ("TH+RF+LF,3", "TH+RF+LF,-3", "line 2: .*-3"),
        ("TH+RF+LF,3", "TH+RF+LF,2", "line 2: the row, or one before it, was edited"),
        ("TH+FF+MF", "TH+RF+LF", "line 3: the row, or one before it, was edited"),
    ],
)
def test_a_damaged_table_is_refused_with_the_line(tmp_path, old, new, words):
    path = tmp_path / "mask_test.csv"
    write_trials(path, [MaskTrial(MASKS[0], 3, drop=1), MaskTrial(MASKS[1], 3, drop=1)])
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(FileError, match=words):
        read_trials(path)


def test_a_table_that_lost_a_row_is_refused(tmp_path):
    path = tmp_path / "mask_test.csv"
    write_trials(path, [MaskTrial(MASKS[0], 3, drop=1), MaskTrial(MASKS[1], 3, drop=1)])
    head, _, last = path.read_text().splitlines(keepends=True)
    path.write_text(head + last)
    with pytest.raises(FileError, match="line 2: the row, or one before it, was edited, repeated or removed"):
        read_trials(path)


def test_only_masks_that_hold_in_the_release_test_are_tried():
    results = [MaskResult(mask, kept, 90, 100) for mask, kept in zip(MASKS, (80, 40), strict=True)]
    everything = MaskResult(FingerMask.all_fingers(), 100, 100, 100)
    assert plausible_masks([*results, everything], MaskTestConfig()) == [MASKS[0]]
    assert len(plausible_masks(results, MaskTestConfig(least_retention=0.3))) == 2
    with pytest.raises(UsageError, match=r"least_retention is 0\.9; expected at most 0\.8"):
        plausible_masks(results, MaskTestConfig(least_retention=0.9))


@pytest.mark.parametrize(("name", "value"), [("rollouts", 0), ("least_retention", 1.5), ("seed", -1)])
def test_wrong_settings_are_refused(name, value):
    with pytest.raises(UsageError, match=f"{name} is {value}"):
        MaskTestConfig(**{name: value})


@pytest.fixture(scope="module")
def tested(tmp_path_factory):
    """A folder with a test of two masks, and its result."""
    out = tmp_path_factory.mktemp("mask_test")
    return out, run_mask_test(PAIR, MASKS, QUICK, out)


def test_masks_differ_in_what_they_are_and_are_not_tried_twice(tested):
    out, trials = tested
    assert [trial.mask for trial in trials] == MASKS and {trial.rollouts for trial in trials} == {2}
    assert trials[1].succeeded == 0  # the index finger holds the ball
    assert run_mask_test(PAIR, MASKS[::-1], QUICK, out, make_env=None) == trials[::-1]


def test_the_number_of_worlds_changes_nothing(tested, tmp_path):
    _, trials = tested
    assert run_mask_test(PAIR, MASKS[:1], QUICK, tmp_path, num_envs=1) == trials[:1]


def test_a_test_with_other_settings_is_refused(tested):
    with pytest.raises(UsageError, match=r"holds a mask test whose settings\.rollouts is 2; expected 3"):
        run_mask_test(PAIR, MASKS, MaskTestConfig(rollouts=3), tested[0])


def test_the_command_tries_what_the_table_says_and_the_oracle_reads_it(select_mask_files, tmp_path, capsys):
    table = select_mask_files["table"]
    write_csv(table, [MaskResult(mask, 90 if mask == MASKS[0] else 10, 95, 100) for mask in FingerMask.candidates()])
    out, choice = tmp_path / "mask-test", tmp_path / "mask.json"
    assert cli.main(["mask-test", PAIR, f"--table={table}", "--rollouts=1", "--out", str(out)]) == 0
    assert [trial.mask for trial in read_trials(out / "mask_test.csv")] == MASKS[:1]
    assert "TH+RF+LF         success" in capsys.readouterr().out
    files = [f"--{name}={path}" for name, path in select_mask_files.items()]
    trials = f"--trials={out / 'mask_test.csv'}"
    assert cli.main(["select-mask", PAIR, "--selector=oracle", *files, trials, "--out", str(choice)]) == 0
    assert "preserve TH+RF+LF" in capsys.readouterr().out
