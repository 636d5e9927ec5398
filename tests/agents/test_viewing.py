"""What `view` shows and writes."""

from pathlib import Path

import numpy as np
import pytest
import torch

from dexcompose_agents import viewing
from dexcompose_agents.evaluation.video import record_video
from dexcompose_envs.errors import MachineError, UsageError
from dexcompose_envs.rollouts import Episode

MAGIC = {".gif": b"GIF8", ".mp4": b"ftyp"}


class Still:
    """Keeps the first command: the object stays in hand and B is never done."""

    name = "still"

    def reset(self, obs, info, env_ids, seeds):
        self.began = [*getattr(self, "began", []), *seeds.tolist()]

    def act(self, obs):
        return obs["context"][:, 50:78]


@pytest.fixture
def still(monkeypatch):
    """A method that needs no weights, and pictures that need no graphics; returns the method."""
    agent = Still()
    monkeypatch.setattr(viewing, "make_method", lambda method, pair: agent)
    picture = np.full((16, 24, 3), 90, np.uint8)
    monkeypatch.setattr("dexcompose_envs.vector_env.DexComposeVectorEnv.render", lambda venv: (picture,))
    return agent


@pytest.mark.parametrize("name", ["a.b.gif", "film.2026.mp4", "FILM.GIF"])
def test_exactly_the_named_file_is_written_in_the_format_of_its_suffix(name, still, tmp_path):
    path = tmp_path / "new" / name
    assert viewing.view("GraspBall-PushButton", seed=6, video=path) == ["b_fail"]
    assert still.began == [6]
    assert [file.name for file in path.parent.iterdir()] == [name]
    assert MAGIC[path.suffix.lower()] in path.read_bytes()[:12]


def test_the_caller_keeps_its_threads(still, tmp_path, torch_threads):
    threads = []
    still.idle = lambda env_ids: threads.append(torch.get_num_threads())
    torch_threads(2)
    viewing.view("GraspBall-PushButton", seed=5, video=tmp_path / "film.gif")
    assert threads == [1]
    record_video("GraspBall-PushButton", still, Episode(5), tmp_path)
    assert threads == [1, 1]
    assert torch.get_num_threads() == 2


@pytest.mark.parametrize("name", ["film", "film.avi", "film.gif.txt"])
def test_other_formats_are_refused_before_anything_is_run(name, still, tmp_path):
    with pytest.raises(UsageError, match=r"must end in \.mp4 or \.gif"):
        viewing.view("GraspBall-PushButton", video=tmp_path / name)
    assert not hasattr(still, "began") and list(tmp_path.iterdir()) == []


def test_wrong_requests_are_one_line(still, monkeypatch):
    with pytest.raises(UsageError, match="episodes is 0; expected a whole number of at least 1"):
        viewing.view("GraspBall-PushButton", episodes=0)
    with pytest.raises(UsageError, match="'PushButton"):
        viewing.view("PushButton-GraspBall", video=Path("film.gif"))
    for variable in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr(viewing.sys, "platform", "linux")
    with pytest.raises(MachineError, match=r"no display for a window .*; give --video FILE"):
        viewing.view("GraspBall-PushButton")
