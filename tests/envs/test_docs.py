"""The pages of `docs/envs/` are what the code says today."""

import json
import runpy
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import gymnasium as gym

from dexcompose_envs import env_id, pair_names, skill_names
from dexcompose_envs.scene import model_hash_of

SCRIPT = Path(__file__).parents[2] / "docs" / "generate.py"
docs = SimpleNamespace(**runpy.run_path(str(SCRIPT)))


def test_pages_are_up_to_date():
    # In a process of its own: other tests register skills of theirs.
    command = [sys.executable, str(SCRIPT), "--check"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_outdated_pages_are_named(tmp_path, capsys):
    docs.write(tmp_path)
    assert docs.main(["--check", "--out", str(tmp_path)]) == 0
    (tmp_path / "PushButton.md").write_text("old")
    (tmp_path / "GraspBall.md").unlink()
    (tmp_path / "GoneSkill.md").write_text("gone")
    assert docs.main(["--check", "--out", str(tmp_path)]) == 1
    lines = capsys.readouterr().err.splitlines()
    assert [Path(line.split()[0]).name for line in lines] == ["GoneSkill.md", "GraspBall.md", "PushButton.md"]
    assert docs.main(["--out", str(tmp_path)]) == 0
    assert docs.outdated(tmp_path) == []


def test_every_environment_has_a_picture_on_its_page():
    for name in (*skill_names(), *pair_names()):
        assert f"(pictures/{name}.jpg)" in docs.pages()[f"{name}.md"]
    assert {path.stem for path in (SCRIPT.parent / "envs" / "pictures").iterdir()} == {*skill_names(), *pair_names()}


def test_a_page_lists_the_masks_that_were_tried_best_first():
    tests = sorted(path.parent for path in docs.MASK_TESTS.glob("*/mask_test.csv"))
    assert tests
    for folder in tests:
        settings = json.loads((folder / "mask_test.json").read_text())
        assert settings["pair"] == folder.name
        assert settings["model_hash"] == model_hash_of(folder.name)
        table = docs.pages()[f"{folder.name}.md"].split("## Masks")[1]
        rows = [line.split(" | ") for line in table.splitlines() if line.startswith("| TH")]
        successes = [float(row[1]) for row in rows]
        assert len(rows) > 5 and successes == sorted(successes, reverse=True)
        assert "FF" not in rows[0][0]  # the index finger does B's work


def test_a_page_has_every_column_of_every_observation():
    name = "GraspBall-PushButton"
    page = docs.pages()[f"{name}.md"]
    env = gym.make(env_id(name)).unwrapped
    for key, terms in env.layout.items():
        assert f"`{key}` ({env.observation_space[key].shape[0]} numbers)" in page
        for term, columns in terms.items():
            assert f"| {columns.start}:{columns.stop} | `{term}` |" in page
    env.close()
