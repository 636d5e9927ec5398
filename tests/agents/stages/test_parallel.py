"""Stages in processes of their own: the same results, one line for what goes wrong, and nothing lost."""

import multiprocessing
import os
import signal
from contextlib import closing

import pytest

from dexcompose_agents.runtime.compute import Piece
from dexcompose_agents.runtime.interrupts import Paused
from dexcompose_agents.runtime.side_by_side import one_per_core, shares_of_cores
from dexcompose_agents.stages import train_all
from dexcompose_agents.stages.parallel import complete_all
from dexcompose_agents.stages.records import done_already
from dexcompose_agents.stages.skill import Demonstrations, Policy
from dexcompose_agents.stages.train_all import TrainAll
from dexcompose_envs.errors import FileError, MachineError, UsageError
from dexcompose_envs.physics.workers import usable_cores

SKILLS = ("GraspBall", "PushButton")


def demonstrations(folder, skills=SKILLS):
    return [Demonstrations(name=skill, preset="test", chain=folder) for skill in skills]


def endless(folder, skill):
    """A training that nobody waits for."""
    return Policy(name=skill, preset="test", chain=folder, settings={"steps": 10**6})


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A chain's folder with demonstrations, made by two processes at a time."""
    out = tmp_path_factory.mktemp("chain")
    stages = demonstrations(out)
    found = dict((stage.title, record) for stage, record in complete_all(stages, out, Piece(), 2))
    assert sorted(found) == [f"demonstrations {skill}" for skill in SKILLS]
    return out


def test_stages_are_done_as_in_one_process(folder, tmp_path):
    for stage in demonstrations(folder):
        places = {name: folder / place for name, place in stage.writes().items()}
        record = done_already(stage, folder, places)
        assert record is not None and all(place.exists() for place in places.values())
    alone = demonstrations(tmp_path, SKILLS[:1])
    ((stage, record),) = complete_all(alone, tmp_path, Piece(), 1)
    places = {name: folder / place for name, place in stage.writes().items()}
    assert record["outputs"] == done_already(stage, folder, places)["outputs"]
    assert not multiprocessing.active_children()


def test_an_error_of_a_stage_comes_through_and_stops_the_others(folder):
    missing = Policy(name="PickStick", preset="test", chain=folder)  # no demonstrations
    with pytest.raises(FileError, match=r"no demonstrations .*PickStick"):
        list(complete_all([endless(folder, "PushButton"), missing], folder, Piece(), 2))
    assert not multiprocessing.active_children()


def test_a_process_that_is_killed_is_named(folder):
    def kill(*_):
        for process in multiprocessing.active_children():
            os.kill(process.pid, signal.SIGKILL)

    before = signal.signal(signal.SIGALRM, kill)
    signal.alarm(2)
    try:
        with pytest.raises(MachineError, match=r"the process of 'policy GraspBall' died \(exit code -9\)"):
            list(complete_all([endless(folder, "GraspBall")], folder, Piece(), 1))
    finally:
        signal.signal(signal.SIGALRM, before)


def test_at_the_end_of_the_time_everything_is_saved(folder):
    stages = [endless(folder, skill) for skill in SKILLS]
    with pytest.raises(Paused):
        list(complete_all(stages, folder, Piece(0.03), 2))
    for skill in SKILLS:
        assert list((folder / "work" / f"policy-{skill}").glob("*checkpoint*"))
    assert not multiprocessing.active_children()


def test_whoever_leaves_stops_the_processes(folder):
    quick, long = demonstrations(folder, SKILLS[:1])[0], endless(folder, "PushButton")
    with closing(complete_all([quick, long], folder, Piece(), 2)) as running:
        stage, _ = next(running)
        assert stage is quick and len(multiprocessing.active_children()) == 1
    assert not multiprocessing.active_children()


def test_cores_are_shared_out():
    usable = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set()
    for count in (1, 2, 3, 100):
        shares = shares_of_cores(count)
        assert len(shares) == count and all(share <= usable for share in shares)
        if usable:
            assert all(shares) and set().union(*shares) == usable
        if count <= len(usable):
            assert sum(map(len, shares)) == len(usable)
    assert shares_of_cores(0) == []


def test_jobs_by_default():
    assert one_per_core(True) == usable_cores() and one_per_core(False) == 1


def test_the_longest_begins_first(tmp_path, monkeypatch):
    begun = []

    def begin(stages, *_):
        begun.append([stage.title for stage in stages])
        if len(begun) == 2:
            raise Paused
        return iter(())

    monkeypatch.setattr(train_all, "complete_all", begin)
    monkeypatch.setattr(train_all, "done_already", lambda *_: None)
    with pytest.raises(Paused):
        TrainAll(only=("GraspBall-PushButton",), jobs=2, out=tmp_path / "out").run()
    assert begun[1] == ["policy PushButton", "policy GraspBall"]  # twice as many steps


@pytest.mark.parametrize("jobs", [0, -2, 1.5])
def test_a_wrong_number_of_jobs_is_refused(tmp_path, jobs):
    with pytest.raises(UsageError, match=f"jobs is {jobs}"):
        TrainAll(preset="test", jobs=jobs, out=tmp_path / "out").run()
