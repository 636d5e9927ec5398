"""The release test on worlds whose answer is known."""

import json
import subprocess
import sys
import zlib
from subprocess import PIPE

import gymnasium as gym
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dexcompose_agents.attribution.release_test import (
    ReleaseTestConfig,
    base_motion,
    draw_rollout,
    finger_targets,
    run_release_test,
)
from dexcompose_agents.attribution.tables import MaskResult, draw_heat_map, read_csv, write_csv
from dexcompose_envs import hand
from dexcompose_envs.errors import FileError, UsageError
from dexcompose_envs.held_states import HeldStateLibrary, Manifest
from dexcompose_envs.ownership import FingerMask
from dexcompose_envs.scene import model_hash_of

SMALL = ReleaseTestConfig(steps=20, rollouts=12, clean_steps=4, seed=5)
masks = st.sampled_from(FingerMask.candidates())


def run(fake, config=SMALL, **kwargs):
    return run_release_test("GraspBall", config, library=fake.library, make_env=fake.make_vec, **kwargs)


def test_counts_are_those_of_the_fake_worlds(fake):
    drawn = np.array([draw_rollout(fake.library, SMALL, k).held_index for k in range(12)])
    results = {str(row.mask): row for row in run(fake, masks=fake.masks, num_envs=7)}
    easy, ring_touches = int((drawn % 2 == 0).sum()), int((drawn % 3 == 0).sum())
    assert 0 < easy < 12 and 0 < ring_touches < 12
    # Thumb and three or two others always suffice, thumb and one other in states that need one, the rest never.
    assert [results[str(mask)].retained for mask in fake.masks] == [12, 12, easy, 0, 0]
    # The ring finger, where it is released, keeps touching in every third state; nothing else does.
    assert results["TH+FF+MF+RF"].clean == results["FF+MF+RF+LF"].clean == 12
    assert results["TH+FF+MF"].clean == results["TH+FF"].clean == results["TH"].clean == 12 - ring_touches
    assert all(row.rollouts == 12 and row.unstable == 0 for row in results.values())


def test_result_does_not_depend_on_num_envs(fake):
    one, many, most = (run(fake, masks=fake.masks[:3], num_envs=n) for n in (1, 5, 1000))
    assert one == many == most
    assert [world.num_envs for world in fake.made] == [1, 5, 36]
    assert all(world.closed for world in fake.made)


def test_environment_is_asked_for_what_the_test_needs(fake):
    run(fake, masks=fake.masks[:1], env_kwargs={"num_threads": 2})
    world = fake.made[0]
    assert world.env_id == "DexCompose/GraspBall-v0"
    assert world.kwargs["start"] == "held" and world.kwargs["terminate_on_success"] is False
    assert world.kwargs["max_episode_steps"] > SMALL.steps and world.kwargs["num_threads"] == 2


def test_masks_share_their_draws(fake):
    first, second = (run(fake, masks=[mask], num_envs=12) and fake.made[-1] for mask in fake.masks[:2])
    assert (first.seeds == second.seeds).all() and (first.index == second.index).all()


def test_executed_actions_by_hand(fake):
    config = ReleaseTestConfig(rollouts=1)
    run(fake, config, masks=[FingerMask.parse("TH+FF+MF+RF")])
    actions = hand.denormalize(np.array(fake.made[0].actions)[:, 0])
    draw = draw_rollout(fake.library, config, 0)
    q_ref = fake.library.reference[draw.held_index]
    little = hand.finger_slice("LF")
    little_ref, little_open = (joints[little.start - 6 : little.stop - 6] for joints in (q_ref, hand.OPEN_FINGERS))
    # After step 25 of 100 a released joint is a quarter of the way open; a kept one has not moved.
    np.testing.assert_allclose(actions[24, little], 0.75 * little_ref + 0.25 * little_open, atol=1e-6)
    np.testing.assert_allclose(actions[99, little], little_open, atol=1e-6)
    np.testing.assert_allclose(actions[99, hand.finger_slice("FF")], q_ref[:4], atol=1e-6)
    # The wrist: still at first; half pitched at step 40; wholly pitched and back from the swing at the end.
    still = fake.library.control[0, :6]
    np.testing.assert_allclose(actions[19, :6], still, atol=1e-6)
    np.testing.assert_allclose(actions[39, 4] - still[4], 0.55, atol=1e-6)
    np.testing.assert_allclose(actions[89:, :6] - still, np.tile([0, 0, 0, 0, 1.1, 0], (11, 1)), atol=1e-6)


def test_swing_is_one_sine_period_in_its_direction():
    offsets = base_motion(ReleaseTestConfig(), np.array([0.0, np.pi / 2]))
    # Steps 40..90 hold one period of 50: the crest of 5 cm lies between steps 52 and 53, sin(2 pi 12/50) = 0.998.
    assert offsets[0, 51, 0] == pytest.approx(0.05 * np.sin(2 * np.pi * 12 / 50))
    assert offsets[0, :, 0].max() == pytest.approx(0.05, rel=3e-3)
    assert offsets[0, :, 0].min() == pytest.approx(-0.05, rel=3e-3)
    np.testing.assert_allclose(offsets[0, :, 1], 0, atol=1e-12)
    np.testing.assert_allclose(offsets[1, :, 1], offsets[0, :, 0], atol=1e-12)
    assert not base_motion(ReleaseTestConfig(motion="still"), np.zeros(3)).any()
    rolled = base_motion(ReleaseTestConfig(), np.array([0.0, np.pi / 2]), 1.5) - offsets
    np.testing.assert_allclose(rolled[:, [18, 60, 99], 5], [[0.0, -1.5, -1.5]] * 2, atol=1e-12)
    assert not rolled[..., :5].any()


@given(masks, st.integers(1, 50), st.integers(0, 2**16))
def test_kept_fingers_stay_and_released_ones_end_open(mask, steps, seed):
    q_ref = np.random.default_rng(seed).uniform(hand.ACTION_LOW[6:], hand.ACTION_HIGH[6:])
    targets = finger_targets(q_ref[None], mask.joint_mask()[None], steps)[0]
    assert targets.shape == (steps, 22)
    assert (targets[:, mask.joint_mask()] == q_ref[mask.joint_mask()]).all()
    np.testing.assert_allclose(targets[-1, ~mask.joint_mask()], hand.OPEN_FINGERS[~mask.joint_mask()], atol=1e-12)


def test_folder_has_table_settings_and_picture_and_resumes(fake, tmp_path):
    def stop(done, total):
        if done >= 20 * 30:  # two and a half masks
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(fake, masks=fake.masks, num_envs=6, out=tmp_path, progress=stop)
    assert [str(row.mask) for row in read_csv(tmp_path / "release_test.csv")] == ["TH+FF+MF+RF", "TH+FF+MF"]
    results = run(fake, masks=fake.masks, num_envs=6, out=tmp_path)
    assert results == run(fake, masks=fake.masks)
    assert len(fake.made[1].actions) == 20 * 6  # only the 3 masks that were missing: 36 rollouts in 6 waves
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"release_test.{e}" for e in ("csv", "json", "png")]
    assert json.loads((tmp_path / "release_test.json").read_text())["seed"] == 5
    made = len(fake.made)
    assert run(fake, masks=fake.masks, out=tmp_path) == results and len(fake.made) == made
    with pytest.raises(ValueError, match=r"settings\.seed is 5; expected 6"):
        run(fake, ReleaseTestConfig(steps=20, rollouts=12, clean_steps=4, seed=6), masks=fake.masks, out=tmp_path)


def test_states_are_drawn_from_the_part_for_training(fake):
    assert ReleaseTestConfig().split == "train"
    drawn = {draw_rollout(fake.library, SMALL, k).held_index for k in range(200)}
    assert drawn == set(range(9))  # the last quarter of 12 states is evaluation's


def test_another_library_of_the_same_size_is_refused(fake, tmp_path):
    run(fake, masks=fake.masks[:1], out=tmp_path)
    columns = fake.library.columns()
    columns["hold_target"] = columns["hold_target"] + 0.01
    fake.library = HeldStateLibrary.from_columns(fake.library.manifest, columns)
    with pytest.raises(
        UsageError, match=r"holds a release test whose settings\.held_states is '[0-9a-f]{64}'; expected"
    ):
        run(fake, masks=fake.masks[:1], out=tmp_path)


def test_the_held_states_of_another_skill_are_refused(fake):
    """The fake library says that it is of GraspBall."""
    with pytest.raises(ValueError, match=r"held-state library .*GraspBall.*expected 'PickStick'"):
        run_release_test("PickStick", SMALL, library=fake.library, masks=fake.masks[:1], env_kwargs={"num_threads": 1})


def test_a_table_without_settings_is_refused(fake, tmp_path):
    run(fake, masks=fake.masks[:1], out=tmp_path)
    for text, error, message in (("{", FileError, "is not JSON"), ("[1]", UsageError, r"whose settings is \[1\]")):
        (tmp_path / "release_test.json").write_text(text)
        with pytest.raises(error, match=message):
            run(fake, masks=fake.masks[:1], out=tmp_path)
    (tmp_path / "release_test.json").unlink()
    with pytest.raises(FileError, match=r"cannot read '.*release_test\.json'"):
        run(fake, masks=fake.masks[:1], out=tmp_path)


def test_two_tests_in_one_folder_are_refused(fake, tmp_path):
    """Another process holds the folder; nothing is run and the table stays as it is."""
    run(fake, masks=fake.masks[:1], out=tmp_path)
    table, made = (tmp_path / "release_test.csv").read_text(), len(fake.made)
    code = f"""if True:
        import sys
        from dexcompose_envs import files
        with files.lock_folder({str(tmp_path)!r}):
            print("locked", flush=True)
            sys.stdin.read()"""
    with subprocess.Popen([sys.executable, "-c", code], stdin=PIPE, stdout=PIPE, text=True) as other:
        assert other.stdout.readline() == "locked\n"
        with pytest.raises(UsageError, match=f"another process is writing to '{tmp_path}'"):
            run(fake, masks=fake.masks, out=tmp_path)
        other.stdin.close()
    assert (tmp_path / "release_test.csv").read_text() == table and len(fake.made) == made


def test_diverged_worlds_count_as_neither(fake):
    class Diverging(fake.make_vec):
        def step(self, action):
            observation, reward, terminated, truncated, info = super().step(action)
            info["unstable"] = np.arange(self.num_envs) == 0
            return observation, reward, terminated, truncated, info

    fake.make_vec = Diverging
    (row,) = run(fake, masks=fake.masks[:1], num_envs=12)
    assert (row.retained, row.clean, row.unstable) == (11, 11, 1)


@pytest.mark.parametrize(("motion", "retained"), [("still", 2), ("shake", 0)])
def test_the_real_environment_fits(motion, retained):
    """A ball on the table stays where it is for a hand at rest and is lost to one that moves away, at once or later."""
    venv = gym.make_vec("DexCompose/GraspBall-v0", num_envs=3, num_threads=1)
    observation, _ = venv.reset(seed=0)
    columns = venv.unwrapped.core.held_columns()
    columns["reference"] = columns["control"][:, 6:]
    columns["hold_target"] = observation["context"][:, venv.unwrapped.layout["context"]["object_position"]] / 10
    venv.close()
    library = HeldStateLibrary.from_columns(Manifest("GraspBall", model_hash_of("GraspBall"), ""), columns)
    config = ReleaseTestConfig(rollouts=2, motion=motion)
    masks = [FingerMask.parse("TH+FF")]
    (row,) = run_release_test("GraspBall", config, library=library, masks=masks, env_kwargs={"num_threads": 1})
    assert (row.retained, row.unstable) == (retained, 0)
    assert motion == "shake" or row.clean == 2  # the hand that pitches down may touch the ball


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"motion": "jump"}, "unknown motion 'jump'; expected one of shake, still"),
        ({"rollouts": 0}, "rollouts is 0"),
        ({"steps": 10}, "clean_steps is 20; expected a whole number from 1 to 10"),
        ({"retain_distance": 0.06}, "retain_distance is 0.06"),
    ],
)
def test_wrong_settings_are_refused(kwargs, message):
    with pytest.raises(ValueError, match=message):
        ReleaseTestConfig(**kwargs)


def test_table_by_hand(tmp_path):
    row = MaskResult(FingerMask.parse("LF+TH+RF"), retained=90, clean=100, rollouts=100, slip=0.25)
    # Wilson with z = 1.96 at 90 of 100: centre 0.9 + 0.0192, half 1.96 sqrt(0.0009 + 0.000096), over 1.0384.
    assert row.p_ret_interval == pytest.approx((0.8256, 0.9448), abs=1e-4)
    assert row.p_clean_interval == pytest.approx((0.9630, 1.0), abs=1e-4)
    write_csv(tmp_path / "table.csv", [row])
    line = "TH+RF+LF,3,2,0.900000,0.825634,0.944771,1.000000,0.963007,1.000000,0.250000,100,0"
    assert (tmp_path / "table.csv").read_text().splitlines() == [
        "mask,kept,released,P_ret,P_ret_low,P_ret_high,P_clean,P_clean_low,P_clean_high,slip,n,unstable,check",
        # The last column is zlib.crc32 of an empty check and the row, joined by commas.
        f"{line},{zlib.crc32(b',' + line.encode()):08x}",
    ]


@given(st.lists(st.tuples(masks, st.integers(1, 400), st.data()), max_size=5, unique_by=lambda row: row[0]))
def test_table_round_trip(tmp_path_factory, drawn):
    rows = []
    for mask, count, data in drawn:
        retained, clean, unstable = (data.draw(st.integers(0, count)) for _ in range(3))
        rows.append(MaskResult(mask, retained, clean, count, unstable))
    path = tmp_path_factory.mktemp("table") / "table.csv"
    write_csv(path, rows)
    assert read_csv(path) == rows


HEADER = "mask,kept,released,P_ret,P_ret_low,P_ret_high,P_clean,P_clean_low,P_clean_high,slip,n,unstable,check\n"
ROWS = [MaskResult(mask, 7 * i, 90 - i, 100, slip=0.01 * i) for i, mask in enumerate(FingerMask.candidates()[:5])]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("mask,n\nTH,3\n", "has the columns .*; expected mask, kept"),
        ("", "has the columns"),
        (HEADER + "XX,1,4,0.5,0,1,0.5,0,1,0,10,0,0\n", "line 2"),
        (HEADER + "TH,1,4,1.5,0,1,0.5,0,1,0,10,0,0\n", "line 2"),
        (HEADER + "TH,1,4,a,0,1,0.5,0,1,0,10,0,0\n", "line 2"),
        (HEADER + "TH,1,4,inf,0,1,0.5,0,1,0,10,0,0\n", "line 2"),
        (HEADER + "TH,1\n", "line 2"),
    ],
)
def test_wrong_tables_are_refused(text, message, tmp_path):
    path = tmp_path / "table.csv"
    path.write_text(text)
    with pytest.raises(FileError, match=rf"table\.csv.*{message}"):
        read_csv(path)


@given(st.data())
def test_an_edited_table_is_refused_with_the_line(tmp_path_factory, data):
    """Any digit of any row changed: the message names the row."""
    path = tmp_path_factory.mktemp("table") / "table.csv"
    write_csv(path, ROWS)
    lines = path.read_text().splitlines(keepends=True)
    row = data.draw(st.integers(1, 5))
    place = data.draw(st.sampled_from([i for i, letter in enumerate(lines[row]) if letter.isdigit()]))
    digit = data.draw(st.sampled_from([d for d in "0123456789" if d != lines[row][place]]))
    lines[row] = lines[row][:place] + digit + lines[row][place + 1 :]
    path.write_text("".join(lines))
    with pytest.raises(FileError, match=rf"table\.csv, line {row + 1}: "):
        read_csv(path)


@pytest.mark.parametrize(
    ("spoil", "line"),
    [
        (lambda lines: [*lines[:2], *lines[3:]], 3),  # a row is gone
        (lambda lines: [*lines, lines[1]], 7),  # a row is there twice
        (lambda lines: [lines[0], lines[2], lines[1], *lines[3:]], 2),  # two have changed places
        (lambda lines: [*lines[:5], lines[5][:40]], 6),  # cut off within a row
        (lambda lines: [*lines[:5], lines[5].rstrip()], 6),  # cut off after its last digit
    ],
)
def test_a_table_that_lost_rows_is_refused_with_the_line(spoil, line, tmp_path):
    path = tmp_path / "table.csv"
    write_csv(path, ROWS)
    assert read_csv(path) == ROWS
    path.write_text("".join(spoil(path.read_text().splitlines(keepends=True))))
    with pytest.raises(FileError, match=rf"table\.csv, line {line}: "):
        read_csv(path)


def test_heat_map_is_a_small_picture(tmp_path):
    results = [MaskResult(mask, 3 * i, 90 - i, 100) for i, mask in enumerate(FingerMask.candidates())]
    draw_heat_map(tmp_path / "map.png", results, "GraspBall")
    content = (tmp_path / "map.png").read_bytes()
    assert content.startswith(b"\x89PNG") and len(content) < 150_000
    with pytest.raises(ValueError, match="empty"):
        draw_heat_map(tmp_path / "map.png", [])


def test_it_needs_no_torch_whose_threads_would_be_in_the_way():
    code = """if True:
        import sys
        from dexcompose_agents.attribution.release_test import FingerMask, ReleaseTestConfig, run_release_test
        (row,) = run_release_test("GraspBall", ReleaseTestConfig(rollouts=1, steps=20), masks=[FingerMask.parse("TH")])
        assert row.rollouts == 1 and "torch" not in sys.modules"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=300)
