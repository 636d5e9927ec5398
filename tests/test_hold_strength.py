"""How firmly a hold holds: slip factor, softening, and the squeeze that bisection finds."""

import json
import sys
from pathlib import Path

import mujoco
import numpy as np
import pytest

from dexcompose_envs import hand
from dexcompose_envs.errors import UsageError

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
import hold_strength
from gauges_common import HeldContacts, nominal_worlds, weight
from hold_strength import Config, Gauge, Strength, bisect, settled_holds, softened

del sys.path[0]


def test_softening_keeps_the_joints_and_scales_what_presses():
    joints, reference = np.full((1, 22), 0.5), np.linspace(0.4, 1.2, 22)[None]
    np.testing.assert_allclose(softened(joints, reference, 1.0), reference)
    np.testing.assert_allclose(softened(joints, reference, 0.0), joints)
    np.testing.assert_allclose(softened(joints, reference, 0.25) - joints, 0.25 * (reference - joints))


@pytest.fixture(scope="module")
def holds():
    """Two settled holds of the ball."""
    return settled_holds(Config("GraspBall", worlds=2))


def test_contacts_of_a_settled_hold_carry_the_object(holds):
    venv = nominal_worlds("GraspBall", len(holds))
    model, data = venv.unwrapped.scene.model, mujoco.MjData(venv.unwrapped.scene.model)
    venv.reset(seed=0, options={"state": np.stack([hold.state for hold in holds])})
    venv.unwrapped.load_into(data, 0)
    venv.close()
    contacts = HeldContacts(model)
    found = list(contacts.touches(data))
    np.testing.assert_array_equal(contacts.depths(data), [touch.depth for touch in found])
    assert weight(model) == pytest.approx(0.15 * 9.81)
    assert {touch.finger for touch in found} <= set(hand.FINGERS)
    assert {"TH", "MF"} <= {touch.finger for touch in found}
    assert all(touch.normal > 0 and -1e-4 < touch.depth < 2e-3 for touch in found)
    slip, thumb = hold_strength.grip(model, data)
    assert slip == pytest.approx(sum(touch.friction * touch.normal for touch in found) / weight(model))
    # The other fingers press against the thumb, more or less.
    others = sum(touch.normal for touch in found if touch.finger != "TH")
    assert thumb < others < 1.5 * thumb


def test_the_command_finds_the_squeeze(tmp_path, capsys):
    out = tmp_path / "hold.json"
    result = hold_strength.main(Config("GraspBall", worlds=2, squeezes=(1.0, 0.5), out=out))
    assert json.loads(out.read_text()) == json.loads(json.dumps(result))
    as_grasped, half = result["rows"]
    assert as_grasped["slip_factor"] > half["slip_factor"] > 3.0
    assert as_grasped["least"] <= as_grasped["slip_factor"] <= as_grasped["largest"]
    assert half["thumb_force"] == pytest.approx(as_grasped["thumb_force"] / 2, rel=0.1)
    found = result["found"]
    assert found["slip_factor"] == pytest.approx(3.0, abs=0.1)
    assert 0.1 < found["squeeze"] < 0.5
    assert found["lost"] == 0
    assert f"HOLD_SQUEEZE = {found['squeeze']:g}" in capsys.readouterr().out


def test_held_states_can_be_softened_too(held_library, tmp_path):
    path = tmp_path / "ball.npz"
    held_library("GraspBall").save(path)
    (hold,) = settled_holds(Config("GraspBall", held_states=str(path), split="test", worlds=1))
    np.testing.assert_allclose(hold.command, held_library("GraspBall").control[6], atol=1e-6)
    gauge = Gauge("GraspBall", [hold])
    first, again = gauge.measure(1.0), gauge.measure(1.0)
    gauge.close()
    assert first == again
    assert first.moved_mm < 1.0


class Linear:
    """Grasps whose slip factor is proportional to the squeeze."""

    def __init__(self, slope):
        self._slope = slope

    def measure(self, squeeze):
        slip = self._slope * squeeze
        return Strength(squeeze, slip, slip, slip, slip, 0.0, 0)


@pytest.mark.parametrize("slope", [3.0, 4.0, 12.0, 60.0])
def test_bisection(slope):
    assert bisect(Linear(slope), 3.0, 0.05).squeeze == pytest.approx(3.0 / slope, abs=0.051 / slope)


def test_weak_grasps_are_refused():
    with pytest.raises(UsageError, match=r"slip factor is 2\.00 as grasped; expected more than 3"):
        bisect(Linear(2.0), 3.0, 0.1)
