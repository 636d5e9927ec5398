"""Every benchmark runs at its smallest size and writes sane numbers; how fast anything is, isn't tested."""

import importlib
import json
import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageSequence

from dexcompose_agents.artefacts.shipped import pretrained_folder
from dexcompose_agents.rl.networks import load_network
from dexcompose_envs.errors import FileError, UsageError
from dexcompose_envs.held_states import HeldStateLibrary, held_states_folder
from dexcompose_envs.physics import BackendError
from dexcompose_envs.scene import build_scene

from .pairs import covering_pairs

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture
def script(monkeypatch):
    """`script(name)`: a benchmark's module."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module


def assert_positive(*numbers):
    assert all(math.isfinite(number) and number > 0 for number in numbers), numbers


def test_native_environment_against_bare_mujoco(script, tmp_path):
    out = tmp_path / "throughput.json"
    words = ["--worlds", "1", "2", "--threads", "1", "--world-steps", "8", "--turns", "1", "--out", str(out)]
    result = script("throughput").main(words)
    assert json.loads(out.read_text()) == json.loads(json.dumps(result))
    assert result["mode"] == "cpu"
    assert result["machine"]["cores"] >= 1
    assert {"mujoco", "dexcompose"} <= result["versions"].keys()
    assert [row["num_worlds"] for row in result["rows"]] == [1, 2]
    for row in result["rows"]:
        cell = row["threads"]["1"]
        assert_positive(row["bare_steps_per_s"], *cell.values())
        assert cell["ratio_per_core"] == pytest.approx(
            cell["steps_per_s"] / row["bare_steps_per_s"], abs=2e-2
        )  # rates are printed rounded


def test_scenes_are_compared_with_the_first(script, tmp_path):
    pairs = ["GraspBall-PushButton", "PickStick-PushButton"]
    words = ["scenes", "--pairs", *pairs, "--worlds", "2", "--steps", "3", "--turns", "1"]
    result = script("throughput").main([*words, "--out", str(tmp_path / "scenes.json")])
    assert json.loads((tmp_path / "scenes.json").read_text()) == json.loads(json.dumps(result))
    assert [row["pair"] for row in result["rows"]] == pairs
    assert result["rows"][0]["ratio"] == 1.0
    for row in result["rows"]:
        assert_positive(row["steps_per_s"], row["ratio"])


@pytest.mark.rendering
def test_scenes_go_on_where_episodes_end(script):
    module = script("throughput_scenes")
    config = module.ScenesConfig(worlds=2, steps=7)
    replay = module.Replay("PickStick-PushButton", config, max_episode_steps=3)
    assert_positive(*replay.run())
    replay.venv.close()


def test_the_grid_shows_a_rollout(script, tmp_path):
    module, out = script("grid"), tmp_path / "grid.webp"
    module.main(module.Config(pairs=("GraspBall-PushButton",), size=(64, 48), stride=10, last=2, out=out))
    with Image.open(out) as grid:
        frames = [np.asarray(frame.convert("RGB"), float) for frame in ImageSequence.Iterator(grid)]
    assert len(frames) > 5 and frames[0].shape == (48, 64, 3)
    assert np.abs(frames[-1] - frames[0]).mean() > 1


@pytest.mark.parametrize("pair", covering_pairs())
def test_nothing_passes_through_or_flies(script, pair):
    module = script("contact_gauges")
    row = module.measure(pair, module.Config(episodes=3, num_envs=3))
    assert row["object_contacts"] > 500 and row["other_contacts"] > 30
    assert 0 < row["object_p999_mm"] < 1.5
    assert 0 < row["other_p999_mm"] < 3.0
    assert 0 < row["speed_max_m_s"] < 3.0


def test_warp_ladder(script, tmp_path, capsys):
    sizes = "--worlds 2 --controls calm --steps 2 --repeats 1 --warmup 1 --episode-steps 6"
    words = f"warp --device cpu {sizes} --contestants physics physics+sensors env ppo --out"
    result = script("throughput").main([*words.split(), str(tmp_path / "warp.json")])
    assert json.loads((tmp_path / "warp.json").read_text())["rows"] == result["rows"]
    assert "NO GPU NUMBERS" in capsys.readouterr().out
    assert {"warp-lang", "mujoco-warp", "torch", "mujoco"} <= result["versions"].keys()
    rows = {row["contestant"]: row for row in result["rows"]}
    assert list(rows) == ["physics", "physics+sensors", "env", "ppo"]
    for row in rows.values():
        assert row["error"] is None
        assert_positive(row["steps_per_s"], *row["range"], row["contacts"], row["rows"])
    for name in ("physics", "physics+sensors", "env"):
        assert rows[name]["ratio"] == pytest.approx(rows[name]["steps_per_s"] / rows["physics"]["steps_per_s"])
    assert rows["ppo"]["ratio"] is None
    # The hand holds the object in all of them.
    assert rows["physics"]["contacts"] == pytest.approx(rows["env"]["contacts"], abs=4)


def test_warp_with_all_policies(script):
    module = script("throughput_warp")
    # From control step 50 on pi_B acts.
    config = module.WarpConfig(device="cpu", worlds=(1,), contestants=("env+policies",), warmup=50, steps=2, repeats=1)
    (row,) = module.measure(config)
    assert (row["control"], row["error"], row["ratio"]) == ("learned", None, None)
    assert_positive(row["steps_per_s"], row["rows"])


def test_worlds_that_do_not_fit_are_reported_and_the_median_counts(script, monkeypatch):
    module = script("throughput_warp")

    def run(config, contestant, control, worlds, library, parts, device):
        if worlds == 3 and contestant == "physics":
            raise BackendError("3 worlds need about 9 GiB, but cuda:0 has 1 GiB free")
        if worlds == 3:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory.")
        return module.Measured([1.0, 0.5, 4.0], 10, {"contacts": 1.0, "rows": 4.0}, None)

    monkeypatch.setattr(module, "_run", run)
    config = module.WarpConfig(device="cpu", worlds=(2, 3), contestants=("physics", "env"), controls=("rough",))
    physics, env, *failed = module.measure(config)
    assert physics["steps_per_s"] == env["steps_per_s"] == 2 * 10 / 1.0
    assert physics["range"] == [2 * 10 / 4.0, 2 * 10 / 0.5]
    assert env["ratio"] == 1.0
    assert [row["error"] for row in failed] == [
        "3 worlds need about 9 GiB, but cuda:0 has 1 GiB free", "CUDA out of memory.",
    ]  # fmt: skip
    assert module.table(config, [physics, env, *failed]).row_count == 4
    with pytest.raises(RuntimeError, match="illegal instruction"), module._noting_failure({}):
        raise RuntimeError("illegal instruction")


def test_bare_physics_moves_as_the_environment_and_leaves_sensors_out(script):
    bare = script("throughput_bare_warp")
    scene, library = build_scene("GraspBall"), HeldStateLibrary.load("GraspBall")
    parts = bare.held_parts("GraspBall", None, library, 2)
    np.testing.assert_array_equal(parts["qpos"].shape, (2, scene.model.nq))
    controls = torch.as_tensor(parts["targets"], dtype=torch.float32)[None].repeat(2, 1, 1)
    seen = {}
    for sensors in (False, True):
        physics = bare.BarePhysics(scene, 2, "cpu", sensors=sensors)
        physics.load(parts)
        physics.run(controls)
        usage = physics.usage()
        assert_positive(usage["contacts"], usage["rows"])
        assert usage["diverged"] == 0
        seen[sensors] = physics.sensordata
    assert not seen[False].any()
    held = seen[True][:, scene.sensors["object_position"]].numpy()
    np.testing.assert_allclose(held, library.hold_target[:2], atol=5e-3)


def test_rough_noise_is_the_same_angle_on_every_joint(script):
    common, hand = script("throughput_common"), importlib.import_module("dexcompose_envs.hand")
    radians = common.noise_scale("rough") * (hand.ACTION_HIGH - hand.ACTION_LOW) / 2
    np.testing.assert_allclose(radians[3:], common.ROUGH_NOISE)
    np.testing.assert_array_equal(common.noise_scale("calm"), common.CALM_NOISE)


def test_against_gymnasium_robotics(tmp_path):
    # In a process of its own: AsyncVectorEnv forks.
    words = "robotics --theirs HandManipulateBlock-v1 --worlds 2 --controls rough --steps 3 --turns 1 --out"
    command = [sys.executable, str(BENCHMARKS / "throughput.py"), *words.split(), str(tmp_path / "robotics.json")]
    subprocess.run(command, check=True, timeout=120, capture_output=True)
    rows = json.loads((tmp_path / "robotics.json").read_text())["rows"]
    assert [row["env"] for row in rows] == ["HandManipulateBlock-v1", "DexCompose/GraspBall-PushButton-v0"]
    sizes = [(row["physics_steps"], row["dt"], row["cone"]) for row in rows]
    assert sizes == [(20, 0.002, "pyramidal"), (8, 0.005, "elliptic")]
    for row in rows:
        assert_positive(row["steps_per_s"], row["nv"], row["contacts"], row["rows"])
        assert_positive(row["share_of_bare"])
        assert row["physics_steps_per_s"] == pytest.approx(row["steps_per_s"] * row["physics_steps"])


def test_engine_parity(script, tmp_path):
    module = script("engine_parity")
    config = module.Config(
        device="cpu", retention=("GraspBall",), skills=("PushButton",), worlds=2, after=(1, 3), hold_steps=4,
        episodes=1, rollouts=1, release_steps=4, masks=("TH+MF+RF", "TH"), out=tmp_path,
    )  # fmt: skip
    result = module.main(config)
    assert json.loads((tmp_path / "results.json").read_text()) == json.loads(json.dumps(result))
    groups = {row["sensors"]: row["largest_difference"] for row in result["sensors"]}
    assert groups.keys() == build_scene("GraspBall").sensors.keys()
    assert groups["object_position"] < 1e-5
    assert [(row["base_shake"], row["control_steps"]) for row in result["motion"]] == [(0, 1), (0, 3), (1, 1), (1, 3)]
    for row in result["motion"]:
        assert 0 < row["object_median_mm"] <= row["object_max_mm"] < 1
        assert 0 < row["wrist_median_mm"] <= row["wrist_max_mm"] < 1
        assert row["native_lost_at_end"] == row["warp_diverged"] == 0
    assert [row["engine"] for row in result["drift"]] == ["native", "warp"]
    assert all(0 < row["median_mm"] <= row["max_mm"] < 5 for row in result["drift"])
    assert [row["mask"] for row in result["release"]] == ["TH+MF+RF", "TH"]
    for row in result["policies"] + result["release"]:
        assert row["trials"] == 1
        assert {row["native"], row["warp"]} <= {0, 1}
        assert row["overlap"]


def test_intervals_that_do_not_overlap_are_called_so(script):
    compared = script("engine_parity").compared
    assert compared([10, 9], 10)["overlap"]
    row = compared([100, 20], 100)
    assert not row["overlap"]
    assert row["native_interval_95"][0] > row["warp_interval_95"][1]


def test_residual_ablation_goes_on_and_turns_one_setting_back(script, tmp_path, monkeypatch, capsys):
    module = script("residual_ablation")
    new, old = (module.settings_of(module.Config(), name, 3) for name in ("new", "old"))
    assert (new.ppo.gamma, old.ppo.gamma, old.ppo.seed) == (0.97, 0.99, 3)
    assert (old.approach_scale, old.wrist_error, old.moves("PushButton")) == (0.0, False, ("wrist", "fingers"))
    alone = module.settings_of(module.Config(steps=64), "approach", 3)
    assert alone == replace(new, approach_scale=0.0, ppo=replace(new.ppo, total_steps=64))
    with pytest.raises(UsageError, match="unknown setting 'luck'; expected one of new, gamma"):
        module.main(module.Config(settings=("luck",), out=tmp_path))

    config = module.Config(("GraspBall-PushButton",), ("dimensions",), preset="test", episodes=1, out=tmp_path)
    results = module.main(config)
    assert json.loads((tmp_path / "results.json").read_text()) == results
    assert [row["setting"] for row in results] == ["none", "dimensions"]
    for row in results:
        assert 0 <= row["held_out"]["successes"] <= row["held_out"]["episodes"] == 1
    assert [point["steps"] for point in results[1]["curve"]] == [0.0, 32.0]
    trained, folder = [], tmp_path / "GraspBall-PushButton" / "dimensions" / "seed-0"
    monkeypatch.setattr(module, "train", lambda pair, settings, folder: trained.append(folder))
    monkeypatch.setattr(module, "held_out", lambda pair, config, residual: results[1]["held_out"])
    assert module.main(config) == results and trained == []
    (folder / "result.json").unlink()
    assert module.main(config) == results and trained == [folder]
    assert capsys.readouterr().out.count("held out") == 6


def test_peak_force(script, tmp_path, capsys):
    config = script("peak_force").Config(("GraspBall-PushButton",), ("zero-shot",), 2, 2, out=tmp_path)
    (row,) = script("peak_force").main(config)
    assert json.loads((tmp_path / "results.json").read_text())["rows"] == [row]
    assert_positive(row["peak_force_mean"], row["peak_force_p95"])
    assert row["successes"] <= row["held_at_end"] <= row["episodes"] == 2
    assert "peak force" in capsys.readouterr().out


def test_learner_bakeoff_goes_on_and_sums_up(script, tmp_path, monkeypatch, capsys):
    module, pair = script("learner_bakeoff"), "GraspBall-PushButton"
    settings = module.Settings(
        pairs=(pair,), learners=("ppo", "sac"), seeds=(3,), preset="test", held_out_rounds=1,
        out=tmp_path / "out", work=tmp_path / "work",
    )  # fmt: skip
    config = module.config_of(replace(settings, steps=64, max_seconds=9.0, prefer=True), "tqc", 3)
    learning = config.off_policy
    assert (learning.total_steps, learning.max_seconds, learning.prefer, learning.seed) == (64, 9.0, True, 3)
    with pytest.raises(SystemExit, match="training paused after 0 of 2 iterations"):
        module.main(replace(settings, minutes=1e-9, learners=("sac",)))
    module.main(settings)
    assert not list((tmp_path / "work").glob("*/*"))
    files = {path.name: path for path in (tmp_path / "out" / pair).iterdir()}
    assert files.keys() == {"base.json", "ppo-3.json", "sac-3.json"}
    base = json.loads(files["base.json"].read_text())["held_out"]
    for name in ("ppo-3.json", "sac-3.json"):
        result = json.loads(files[name].read_text())
        assert [point["steps"] for point in result["curve"]] == [0, 32]
        assert result["curve"][1]["seconds"] > result["curve"][0]["seconds"] == 0
        held_out = result["held_out"]
        assert held_out["kept"] or held_out["best"] == base
        assert 0 <= held_out["final"]["success"] <= 1
    assert "crossq" not in capsys.readouterr().out
    monkeypatch.setattr(module, "run", None)
    module.main(settings)  # all is there
    module.main(replace(settings, summary=True))
    table = capsys.readouterr().out
    assert pair in table and "sac" in table and "crossq" not in table
    changed = json.loads(files["sac-3.json"].read_text())
    changed["made_from"]["mask"] = "TH"
    files["sac-3.json"].write_text(json.dumps(changed))
    with pytest.raises(FileError, match=r"of another comparison: its made_from\.mask is 'TH'"):
        module.main(settings)


def test_best_so_far_of_a_curve(script):
    points = [{"steps": steps, "success": success} for steps, success in ((0, 0.5), (10, 0.4), (20, 0.9), (30, 0.6))]
    best = script("learner_bakeoff").best_so_far
    assert [best(points, "steps", limit) for limit in (0, 10, 25, 30)] == [0.5, 0.5, 0.9, 0.9]


def test_training_seeds_are_trained_evaluated_and_not_made_again(script, tmp_path, monkeypatch, capsys):
    module = script("training_seeds")
    assert module.seeded(module.stabiliser_preset("cpu"), 5).ppo.seed == 5
    config = module.Config((1,), ("GraspBall-PushButton",), seeds=1, rollouts=2, preset="test", out=tmp_path)
    rows = module.main(config)
    assert json.loads((tmp_path / "results.json").read_text()) == rows
    assert [row["training_seed"] for row in rows] == ["shipped", 1]
    assert all(row[method]["episodes"] == 2 for row in rows for method in module.METHODS)
    weights = tmp_path / "GraspBall-PushButton" / "seed-1" / "b" / "residual_b.safetensors"
    assert load_network(weights, "residual_b")[1]["config"]["ppo"]["seed"] == 1
    assert "dexcompose: " in capsys.readouterr().out

    monkeypatch.setattr(module, "train_residual_b", None)
    monkeypatch.setattr(module, "train_stabiliser", None)
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "pretrained").symlink_to(pretrained_folder())
    (mine / "held_states").symlink_to(held_states_folder())
    *again, retrained = module.main(replace(config, retrained=(mine,)))
    assert again == rows
    assert retrained == rows[0] | {"training_seed": "mine"}
