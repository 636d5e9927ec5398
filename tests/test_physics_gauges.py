"""The gauges of the physics: variants change a model and put it back, and every gauge reads something sane."""

import json
import sys
from pathlib import Path

import mujoco
import numpy as np
import pytest

from dexcompose_envs.errors import UsageError
from dexcompose_envs.scene import build_scene
from dexcompose_envs.scene.model_hash import model_hash

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
import physics_gauges
from gauges_common import nominal_worlds
from physics_gauges import Config
from physics_tracks import Bare, Starts, cpu_seconds
from physics_variants import VARIANTS, changed, fine, options, variant
from throughput_common import held_states

del sys.path[0]

needs_discrete = pytest.mark.skipif(
    not hasattr(mujoco.mjtIntegrator, "mjINT_DISCRETE"), reason="this MuJoCo has no such integrator"
)
KNOWN = [pytest.param(name, marks=needs_discrete if name == "discrete" else ()) for name in VARIANTS]


@pytest.fixture(scope="module")
def ball():
    return build_scene("GraspBall").model


@pytest.mark.parametrize("name", KNOWN)
def test_a_variant_changes_the_model_and_all_is_put_back(ball, name):
    before, kept = model_hash(ball), variant(ball)
    with changed([ball], VARIANTS[name]):
        inside = model_hash(ball)
    assert model_hash(ball) == before
    assert ball.opt.timestep == kept.opt.timestep
    # What this tree's physics are already is no change.
    assert (inside == before) == (model_hash(variant(ball, VARIANTS[name])) == before)
    if name in ("8 ms", "pyramidal"):
        assert inside != before


def test_a_model_is_put_back_after_an_error(ball):
    before = model_hash(ball)
    with pytest.raises(KeyError), changed([ball], options(impratio=1.0)):
        assert ball.opt.impratio == 1.0
        raise KeyError
    assert model_hash(ball) == before


@needs_discrete
def test_old_and_new_undo_each_other(ball):
    old, new = variant(ball, VARIANTS["old"]), variant(ball, VARIANTS["discrete"])
    assert old.opt.integrator == mujoco.mjtIntegrator.mjINT_IMPLICITFAST
    assert new.opt.integrator == mujoco.mjtIntegrator.mjINT_DISCRETE
    assert model_hash(old) != model_hash(new)
    assert model_hash(variant(new, VARIANTS["old"])) == model_hash(old)
    assert model_hash(variant(old, VARIANTS["discrete"])) == model_hash(new)


def test_bare_physics_move_as_the_environment(ball):
    starts, library, bare = Starts.of("GraspBall", 2, ball), held_states("GraspBall"), Bare(ball)
    venv = nominal_worlds("GraspBall", 2, start="held", held_states=library)
    obs, _ = venv.reset(seed=0, options={"held_index": library.indices("test")[:2]})
    action = obs["context"][:, venv.unwrapped.layout["context"]["previous_action"]]
    for _ in range(3):
        venv.step(action)
    states, data = bare.settle(starts, 3), mujoco.MjData(ball)
    for world in range(2):
        venv.unwrapped.load_into(data, world)
        bare.load(states[world])
        np.testing.assert_allclose(bare.data.qpos, data.qpos, atol=1e-5)
    venv.close()


def test_looking_changes_nothing_and_the_tremble_moves_the_object(ball):
    starts, bare = Starts.of("GraspBall", 2, ball), Bare(ball)
    blind, seen = (bare.run(starts.states, starts.trembling(6), looks=looks) for looks in (False, True))
    np.testing.assert_allclose(blind.position, seen.position, atol=1e-9)
    assert blind.depth.size == blind.contacts == 0
    assert seen.depth.size > 2 * 6 * bare.substeps
    assert 0 < np.median(seen.depth) < seen.depth.max() < 2e-3
    assert 3 <= seen.contacts < 20
    assert 1 <= seen.iterations < 50
    assert 0 < seen.jump() <= np.linalg.norm(np.diff(seen.position, axis=0), axis=2).sum()
    quiet, shaken = (bare.run(starts.states, each, looks=False) for each in (starts.quiet(30), starts.trembling(30)))
    assert quiet.jump() < shaken.jump()


def test_physics_steps_have_to_fill_a_control_step(ball):
    assert Bare(variant(ball, VARIANTS["8 ms"])).substeps == 5
    assert Bare(variant(ball, fine(0.0005))).substeps == 80
    with pytest.raises(ValueError, match=r"physics step of 0\.007 s; expected a whole part of 0\.04 s"):
        Bare(variant(ball, options(timestep=0.007)))


def test_sensors_in_each_step_cost_time_alone(ball):
    starts = Starts.of("GraspBall", 1, ball)
    bares = {"last": Bare(ball), "each": Bare(ball, sensors_in_each_step=True)}
    targets = starts.trembling(3)
    ends = [bare.run(starts.states, targets, looks=False).position for bare in bares.values()]
    np.testing.assert_array_equal(*ends)
    assert all(0 < each < 1 for each in cpu_seconds(bares, dict.fromkeys(bares, starts.states), targets).values())


def test_all_gauges(tmp_path, capsys, monkeypatch):
    ran = []

    def run(skill, agent, episodes, num_envs):
        ran.append((skill, build_scene(skill).model.opt.cone))
        return [True] * episodes

    def composed(pair, name, config):
        ran.append((pair, build_scene(*pair.split("-")).model.opt.cone))
        return 0

    monkeypatch.setattr(physics_gauges.base_policies, "run", run)
    monkeypatch.setattr(physics_gauges, "composed", composed)
    out = tmp_path / "gauges.json"
    given = Config(skills=("GraspBall",), variants=("new", "pyramidal", "8 ms"), worlds=2, quick=True, out=out)
    result = physics_gauges.main(given)
    assert json.loads(out.read_text()) == json.loads(json.dumps(result))
    assert {"machine", "versions"} <= result.keys()
    assert [(row["skill"], row["variant"]) for row in result["rows"]] == [
        ("GraspBall", "new"), ("GraspBall", "pyramidal"), ("GraspBall", "8 ms"),
    ]  # fmt: skip
    for row in result["rows"]:
        assert 0 <= row["drift_median_mm"] <= row["drift_max_mm"]
        assert row["jump_mm"] > 0
        assert 0 < row["depth_999_mm"] <= row["depth_max_mm"] < 5
        assert row["slip_mm"] > 0
        assert 0 < row["fine_slip_mm"] < 5
        assert row["slip_share"] == pytest.approx(row["slip_mm"] / row["fine_slip_mm"], rel=1e-2)
        assert row["cpu_us"] > 0
    new, pyramidal, other_step = result["rows"]
    assert new["cpu_ratio"] == 1.0
    assert new["release"].keys() == pyramidal["release"].keys() == set(given.masks)
    assert (new["base"], new["composites"]) == (1, {"PushButton": 0})
    assert (other_step["release"], other_step["base"], other_step["composites"]) == ({}, None, {})
    elliptic, flat = mujoco.mjtCone.mjCONE_ELLIPTIC, mujoco.mjtCone.mjCONE_PYRAMIDAL
    assert ran == [(name, cone) for cone in (elliptic, flat) for name in ("GraspBall", "GraspBall-PushButton")]
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("|")][-5:]
    assert lines[0].startswith("| skill | variant | drift (max) | jump |")
    assert len({line.count("|") for line in lines}) == 1
    assert lines[-1].endswith("| - | - | - | - | - | - |")


def test_what_cannot_be_measured_is_refused():
    with pytest.raises(UsageError, match="unknown variant 'newer'"):
        Config(variants=("newer",))
    with pytest.raises(ValueError, match="slip_steps is 80; expected at most 50"):
        Config(tremble_steps=50)
