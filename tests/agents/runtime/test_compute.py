"""The time of one call, and which physics a preset runs on."""

import pytest

from dexcompose_agents.residual.config import residual_b_preset, stabiliser_preset
from dexcompose_agents.runtime.compute import Piece, physics_options
from dexcompose_agents.runtime.interrupts import Paused


def test_a_piece_without_a_limit_never_ends():
    piece = Piece()
    assert piece.remaining is None
    seen = []
    piece.watch(lambda done, total: seen.append((done, total)))(1, 2)
    assert seen == [(1, 2)]


def test_a_piece_ends_the_call_after_its_time_but_never_a_finished_job():
    piece = Piece(1e-9)
    assert 0 < piece.remaining <= 1 / 60  # every stage gets a moment, so that each call makes progress
    seen = []
    advance = piece.watch(lambda done, total: seen.append(done))
    with pytest.raises(Paused, match="1e-09 minutes are over"):
        advance(1, 2)
    advance(2, 2)
    assert seen == [1, 2]


@pytest.mark.parametrize("minutes", [0.0, -1.0, float("nan")])
def test_a_piece_needs_some_time(minutes):
    with pytest.raises(ValueError, match=r"minutes is .*; expected a positive number"):
        Piece(minutes)


@pytest.mark.parametrize("preset", ["cpu", "test", "fast", "paper"])
def test_physics_run_where_the_networks_are_trained(preset):
    options = physics_options(preset, None)
    for config in (stabiliser_preset(preset), residual_b_preset(preset)):
        assert config.backend == options.get("backend", "mujoco")
        assert config.ppo.device == options.get("device", "cpu")
    assert physics_options("fast", "cuda:1") == {"backend": "warp", "device": "cuda:1"}
