"""The parity report: measures, compares, and what is committed is of today's scenes."""

import importlib
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from dexcompose_envs.errors import UsageError
from dexcompose_envs.scene import model_hash_of

ROOT = Path(__file__).parents[1]
COMMITTED = ROOT / "benchmarks" / "results" / "isaaclab_parity"
PAIR = "GraspBall-PushButton"


@pytest.fixture
def parity(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    return importlib.import_module("isaaclab_parity")


@pytest.fixture
def measured(parity, tmp_path):
    small = parity.Measure("mujoco", worlds=2, steps=12, episodes=2, rollouts=2, num_envs=2, work=tmp_path)
    parity.measure(replace(small, pairs=(PAIR,), skills=("PushButton",)))
    return {path.stem: json.loads(path.read_text()) for path in (tmp_path / "mujoco").glob("*.json")}


def test_what_is_measured_is_compared(parity, measured, tmp_path):
    assert measured.keys() == {f"{part}-{PAIR}" for part in ("replay", "hold", "composites")} | {"policies-PushButton"}
    assert np.array(measured[f"replay-{PAIR}"]["rows"]["actions"]).shape == (12, 2, 28)
    theirs = json.loads(json.dumps(measured))
    theirs[f"replay-{PAIR}"]["rows"]["traces"]["palm_position"][9][1][2] += 0.25
    theirs["policies-PushButton"]["rows"] = {"episodes": 2, "successes": 1}
    numbers = {"compared": 29, "largest_difference": 1e-6}
    theirs[f"model-{PAIR}"] = {**theirs[f"hold-{PAIR}"], "rows": {"joint.range": numbers}}
    content = parity.compared(measured, theirs)
    assert content["replay"][PAIR]["palm_position"] == {"1": 0.0, "10": 0.25}
    assert content["replay"][PAIR]["joint_position"]["10"] == 0.0
    assert content["policies"]["PushButton"]["isaaclab"]["percent"] == 50.0
    assert content["hold"][PAIR]["mujoco"]["kept"] == 2
    assert max(content["hold"][PAIR]["mujoco"]["drift_mm"]) < 1.0
    text = parity.page(content)
    for line in ("| PushButton | 100.0 (34.2 to 100.0) | 50.0 (9.5 to 90.5) |", "| `joint.range` | 1e-06 (29) |"):
        assert line in text


def test_models_that_differ_are_not_compared(parity, measured):
    theirs = json.loads(json.dumps(measured))
    theirs[f"hold-{PAIR}"]["model_hash"] = "0" * 12
    with pytest.raises(UsageError, match=f"hold-{PAIR} was measured on models 0+ and .*; expected one"):
        parity.compared(measured, theirs)


def test_an_unknown_backend(parity):
    with pytest.raises(UsageError, match="backend is 'physx'; expected one of mujoco, isaaclab"):
        parity.measure(parity.Measure("physx"))


def test_the_committed_report_is_of_todays_scenes(parity):
    content = json.loads((COMMITTED / "report.json").read_text())
    assert content["model_hashes"] == {name: model_hash_of(name) for name in content["model_hashes"]}
    assert set(parity.PAIRS) | set(parity.SKILLS) <= content["model_hashes"].keys()
    assert (COMMITTED / "report.md").read_text() == parity.page(content)
    for pair in parity.PAIRS:
        ours, theirs = (content["composites"][pair][backend] for backend in parity.BACKENDS)
        assert ours["episodes"] == theirs["episodes"] == 128
