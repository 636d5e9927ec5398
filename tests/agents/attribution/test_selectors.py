"""Selectors: decisions by hand, and what every selector must keep."""

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dexcompose_agents.attribution.mask_table import MaskTrial, write_trials
from dexcompose_agents.attribution.selectors import (
    SELECTORS,
    Candidate,
    HeuristicSelector,
    OracleSelector,
    Selection,
    UtilitySelector,
    make_candidates,
    select_mask,
)
from dexcompose_agents.attribution.tables import MaskResult, write_csv
from dexcompose_agents.attribution.usage import FingerUsage, measure_usage, recorded_signals
from dexcompose_envs.artefacts import ArtefactError
from dexcompose_envs.errors import FileError
from dexcompose_envs.ownership import FingerMask

PAIR = "GraspBall-PushButton"
PUSHING = FingerUsage((0.9, 0.04, 0.02, 0.02, 0.02), (1.0, 0, 0, 0, 0), (0.2,) * 5, "contact")


def row(mask, retained, clean=100, rollouts=100):
    return MaskResult(FingerMask.parse(mask), retained, clean, rollouts)


def select(name, rows, usage=PUSHING):
    return SELECTORS[name].select(make_candidates(rows, usage), PAIR)


def test_heuristic_takes_the_highest_retention_with_two_released():
    rows = [row("TH+FF+MF+RF", 100), row("TH+FF+MF", 97), row("TH+RF+LF", 95), row("TH", 3)]
    assert str(select("heuristic", rows).mask) == "TH+FF+MF"


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ([row("TH+FF+MF", 90, clean=80), row("TH+FF+RF", 90, clean=90)], "TH+FF+RF"),  # clean first
        ([row("TH+FF+MF", 90), row("TH+FF", 90)], "TH+FF"),  # then more released
        ([row("TH+RF+LF", 90), row("TH+FF+MF", 90)], "TH+FF+MF"),  # then the candidates' order
    ],
)
def test_heuristic_breaks_ties(rows, expected):
    assert str(select("heuristic", rows).mask) == expected


def test_heuristic_needs_two_released():
    with pytest.raises(ValueError, match="none of the 1 candidate masks releases at least 2 fingers"):
        select("heuristic", [row("TH+FF+MF+RF", 100)])
    one = make_candidates([row("TH+FF+MF+RF", 9)], PUSHING)
    assert str(HeuristicSelector(min_released=1).select(one, PAIR).mask) == "TH+FF+MF+RF"


def test_utility_by_hand():
    candidate = Candidate(FingerMask.parse("TH+RF"), p_ret=0.9, p_ret_low=0.8, p_clean=0.81, eta_b=0.5, rollouts=100)
    assert UtilitySelector().utility(candidate) == pytest.approx(0.8**2 * 0.9 * 0.5)
    slipped = replace(candidate, slip=0.25)
    assert UtilitySelector().utility(slipped) == pytest.approx(0.8**2 * 0.9 * 0.5 * 0.75)
    only_retention = UtilitySelector(retention_exponent=1.0, clean_exponent=0.0, use_exponent=0.0)
    assert only_retention.utility(candidate) == pytest.approx(0.8)
    with pytest.raises(ValueError, match="use_exponent is -1"):
        UtilitySelector(use_exponent=-1.0)


def test_utility_frees_the_finger_that_b_uses():
    rows = [row("TH+FF+MF", 99), row("TH+MF+RF+LF", 96), row("TH+MF+RF", 93), row("TH+MF", 20)]
    selection = select("utility", rows)
    assert str(selection.mask) == "TH+MF+RF+LF"
    assert str(select("heuristic", rows).mask) == "TH+FF+MF"
    assert next(iter(selection.scores)) == "TH+MF+RF+LF" and set(selection.scores) == {str(r.mask) for r in rows}
    assert "96 % of 100 release tests" in selection.why and "next: TH+MF+RF" in selection.why


def test_utility_gives_b_more_fingers_where_chance_alone_tells_masks_apart():
    rows = [row("TH+MF+RF+LF", 97), row("TH+RF+LF", 95), row("TH+RF", 80)]
    assert str(select("utility", rows).mask) == "TH+RF+LF"
    candidates = make_candidates(rows, PUSHING)
    four, three, _ = map(UtilitySelector().utility, candidates)
    assert 0.95 < three / four < 1.0
    assert str(UtilitySelector(tolerance=0.0).select(candidates, PAIR).mask) == "TH+MF+RF+LF"
    with pytest.raises(ValueError, match=r"tolerance is 1\.5"):
        UtilitySelector(tolerance=1.5)


def test_utility_trusts_many_rollouts_more():
    rows = [row("TH+MF+RF+LF", 5, 5, 5), row("TH+MF+RF", 97)]
    assert str(select("utility", rows).mask) == "TH+MF+RF"


def test_selection_file_round_trip(tmp_path):
    selection = select("utility", [row("TH+MF", 90), row("TH", 2)])
    selection.save(tmp_path / "mask.json")
    stored = json.loads((tmp_path / "mask.json").read_text())
    assert stored["mask"] == "TH+MF" and stored["selector"] == "utility" and stored["pair"] == "GraspBall-PushButton"
    assert stored["why"] == selection.why and stored["scores"]["TH+MF"]["p_ret"] == 0.9
    assert Selection.load(tmp_path / "mask.json") == selection
    for text in ("{}", "[1]", "not json", '{"mask": "XX"}'):
        (tmp_path / "mask.json").write_text(text)
        with pytest.raises(ArtefactError, match=r"mask\.json' is truncated, damaged or foreign"):
            Selection.load(tmp_path / "mask.json")


def test_a_selection_for_another_pair_is_refused(tmp_path):
    select("utility", [row("TH+MF", 90)]).save(tmp_path / "mask.json")
    assert Selection.load(tmp_path / "mask.json", "GraspBall-PushButton").pair == "GraspBall-PushButton"
    with pytest.raises(FileError, match=r"mask\.json' .* pair is 'GraspBall-PushButton'; expected 'PickStick-P"):
        Selection.load(tmp_path / "mask.json", "PickStick-PushButton")


def test_a_mask_is_selected_from_files_and_says_which(demonstrations, tmp_path):
    table = tmp_path / "release_test.csv"
    write_csv(table, [MaskResult(mask, 90 - i, 95, 100) for i, mask in enumerate(FingerMask.candidates())])
    selection = select_mask("GraspBall-PushButton", "utility", table, demonstrations)
    assert selection.pair == "GraspBall-PushButton" and selection.selector == "utility"
    assert selection.table == hashlib.sha256(table.read_bytes()).hexdigest()
    usage = measure_usage(recorded_signals("PushButton", demonstrations))
    assert selection.demonstrations == usage.demonstrations != ""
    selection.save(tmp_path / "mask.json")
    assert Selection.load(tmp_path / "mask.json") == selection
    write_csv(table, [MaskResult(mask, 90 - i, 94, 100) for i, mask in enumerate(FingerMask.candidates())])
    assert select_mask("GraspBall-PushButton", "utility", table, demonstrations).table != selection.table


def test_recorded_progress_decides_which_steps_count(demonstrations):
    """The button moves within few steps of an episode, and these alone count for the work share."""
    for episode in recorded_signals("PushButton", demonstrations):
        assert episode.progress.sum() == pytest.approx(1.0)
        assert 0 < (episode.progress > 0).sum() < len(episode.joint_position) // 2


def test_an_unfinished_table_is_refused(demonstrations, tmp_path):
    table = tmp_path / "release_test.csv"
    write_csv(table, [MaskResult(mask, 90, 95, 100) for mask in FingerMask.candidates()[:12]])
    with pytest.raises(FileError, match=r"release_test\.csv, line 13: the table ends after 12 of 30 masks"):
        select_mask("GraspBall-PushButton", "utility", table, demonstrations)


def test_wrong_input_is_refused():
    with pytest.raises(ValueError, match="unknown selector 'best'; expected one of heuristic, utility, llm, oracle"):
        select_mask(PAIR, "best", Path("table.csv"), Path("demos"))
    with pytest.raises(ValueError, match="no candidate masks"):
        select("utility", [])


@st.composite
def tables(draw):
    rows = []
    for mask in draw(st.lists(st.sampled_from(FingerMask.candidates()), min_size=1, max_size=30, unique=True)):
        rollouts = draw(st.integers(1, 100))
        counts = st.integers(0, rollouts)
        rows.append(MaskResult(mask, draw(counts), draw(counts), rollouts))
    return rows


@pytest.mark.parametrize("name", ["heuristic", "utility"])
@given(rows=tables(), random=st.randoms(use_true_random=False))
def test_every_selector_answers_with_a_candidate_whatever_the_order(name, rows, random):
    eligible = [r.mask for r in rows if name != "heuristic" or r.mask.num_released >= 2]
    if not eligible:
        with pytest.raises(ValueError, match="releases at least 2"):
            select(name, rows)
        return
    selection = select(name, rows)
    assert selection.mask in eligible
    assert selection.selector == name and str(selection.mask) in selection.why and "\n" not in selection.why
    assert select(name, rows) == selection
    assert select(name, random.sample(rows, len(rows))) == selection
    scores = [entry["score"] for entry in selection.scores.values()]
    assert scores == sorted(scores, reverse=True)


def tried(rows, *successes, rollouts=20):
    """Candidates of which the first ones were tried."""
    trials = [MaskTrial(row.mask, won, b_fail=rollouts - won) for row, won in zip(rows, successes, strict=False)]
    return make_candidates(rows, PUSHING, trials)


def test_the_oracle_takes_what_succeeded_most_often():
    rows = [row("TH+FF+MF", 99), row("TH+RF+LF", 90), row("TH+RF", 80), row("TH+LF", 100)]
    selection = OracleSelector().select(tried(rows, 3, 18, 17), PAIR)
    assert str(selection.mask) == "TH+RF+LF"
    assert list(selection.scores) == ["TH+RF+LF", "TH+RF", "TH+FF+MF"]  # TH+LF was not tried
    assert selection.scores["TH+RF+LF"]["success"] == 0.9 and "90 % of 20 composites" in selection.why
    assert str(OracleSelector().select(tried(rows, 18, 18, 18), PAIR).mask) == "TH+FF+MF"  # ties: retention


def test_the_oracle_without_enough_trials_says_how_to_get_them():
    rows = [row("TH+FF+MF", 99), row("TH+RF+LF", 90)]
    with pytest.raises(ValueError, match=r"none of the 2 .*: dexcompose mask-test GraspBall-PushButton"):
        OracleSelector().select(tried(rows), PAIR)
    with pytest.raises(ValueError, match="tried in 21 rollouts"):
        OracleSelector(min_rollouts=21).select(tried(rows, 3, 4), PAIR)


def test_the_oracle_reads_its_table_and_says_which(select_mask_files, tmp_path):
    trials = tmp_path / "mask_test.csv"
    write_trials(
        trials, [MaskTrial(FingerMask.parse("TH+LF"), 4, drop=1), MaskTrial(FingerMask.parse("TH"), 1, drop=4)]
    )
    selection = select_mask(PAIR, "oracle", *select_mask_files.values(), trials)
    assert str(selection.mask) == "TH+LF" and selection.trials == hashlib.sha256(trials.read_bytes()).hexdigest()
    assert select_mask(PAIR, "utility", *select_mask_files.values(), trials).trials == ""
