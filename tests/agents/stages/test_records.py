"""What is skipped, what runs again, what survives an interruption, what is refused: on two toy stages in a chain."""

import json
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from dexcompose_agents.runtime.compute import Piece
from dexcompose_agents.stages import base
from dexcompose_agents.stages.base import Reads, Stage
from dexcompose_agents.stages.records import complete, tidy
from dexcompose_envs.errors import FileError, UsageError


@dataclass(frozen=True)
class NumberConfig:
    number: int = 2
    device: str = "cpu"


@dataclass(kw_only=True)
class Number(Stage):
    """Writes a number's last digit, with an interruption where `interrupt` says so."""

    KEY = "number"
    ran = 0
    interrupt = False

    @classmethod
    def defaults(cls, preset, name=None):
        return NumberConfig()

    def reads(self):
        return []

    def writes(self):
        return {"n.txt": "a/n.txt"}

    def make(self, work, advance, piece):
        self.ran += 1
        with open(work / "steps", "a") as steps:
            steps.write("x")
        if self.interrupt:
            raise KeyboardInterrupt
        (work / "n.txt").write_text(str(self.config.number % 10))


@dataclass(kw_only=True)
class Double(Number):
    """Writes the double of the number, in a folder."""

    KEY = "double"
    source: Path = Path()

    def reads(self):
        return [Reads("number", self.source, "dexcompose number")]

    def writes(self):
        return {"d": "b/double"}

    def make(self, work, advance, piece):
        self.ran += 1
        (work / "d").mkdir()
        (work / "d" / "d.txt").write_text(str(2 * int(self.source.read_text())))


class Toy:
    """The chain of both stages in a folder."""

    def __init__(self, out, number=2, again=True):
        self.out, self.again = out, again
        self.number = Number(name="GraspBall", settings={"number": number})
        self.double = Double(name="GraspBall", source=out / "a" / "n.txt")

    def run(self):
        """Keys of the stages that ran."""
        ran = []
        for stage in (self.number, self.double):
            places = {name: self.out / place for name, place in stage.writes().items()}
            _, unchanged = complete(stage, self.out, places, Piece(), print, again=self.again)
            assert unchanged == (stage.ran == 0)
            ran += [stage.KEY] * stage.ran
        tidy(self.out)
        return ran


def test_second_run_skips_everything(tmp_path):
    assert Toy(tmp_path).run() == ["number", "double"]
    assert (tmp_path / "b" / "double" / "d.txt").read_text() == "4"
    assert not (tmp_path / "work").exists()
    assert Toy(tmp_path).run() == []
    record = json.loads((tmp_path / "stages" / "double-GraspBall.json").read_text())
    assert record["seconds"] >= 0 and record["machine"] and record["versions"]
    assert record["made_from"]["inputs"].keys() == {"number"}


def test_only_what_depends_on_a_change_runs_again(tmp_path):
    Toy(tmp_path, 2).run()
    assert Toy(tmp_path, 3).run() == ["number", "double"]
    assert (tmp_path / "b" / "double" / "d.txt").read_text() == "6"
    assert Toy(tmp_path, 13).run() == ["number"]  # other settings, same output


def test_neither_a_release_nor_another_device_invalidates_a_finished_stage(tmp_path, monkeypatch):
    Toy(tmp_path).run()
    monkeypatch.setattr("dexcompose_envs.__version__", "99.0.0")
    toy = Toy(tmp_path)
    toy.number = replace(toy.number, device="cuda:7")
    assert toy.run() == []


@pytest.mark.parametrize("what", ["DATA_VERSION", "model_hash_of"])
def test_another_data_version_or_model_does(tmp_path, monkeypatch, what):
    Toy(tmp_path).run()
    monkeypatch.setattr(base, what, 99 if what == "DATA_VERSION" else lambda name: "another")
    assert Toy(tmp_path).run() == ["number", "double"]


def test_a_removed_output_is_made_again(tmp_path):
    Toy(tmp_path).run()
    (tmp_path / "b" / "double" / "d.txt").unlink()
    (tmp_path / "b" / "double").rmdir()
    assert Toy(tmp_path).run() == ["double"]


def test_a_damaged_output_is_named(tmp_path):
    Toy(tmp_path).run()
    (tmp_path / "a" / "n.txt").write_text("7")
    with pytest.raises(FileError, match=r"n\.txt' was damaged or changed since stage 'number GraspBall' .* remove it"):
        Toy(tmp_path).run()
    (tmp_path / "a" / "n.txt").unlink()
    (tmp_path / "stages" / "double-GraspBall.json").write_text("{")
    with pytest.raises(FileError, match=r"double-GraspBall\.json' is not JSON"):
        Toy(tmp_path).run()


def test_on_its_own_a_stage_never_hands_out_or_replaces_what_other_settings_made(tmp_path):
    Number(name="GraspBall", out=tmp_path).run()
    other = Number(name="GraspBall", out=tmp_path, settings={"number": 3})
    message = r"holds a finished number GraspBall whose settings.number is 2; expected 3; remove it or"
    with pytest.raises(UsageError, match=message):
        other.run()
    assert (tmp_path / "n.txt").read_text() == "2" and other.ran == 0
    (tmp_path / "n.txt").unlink()
    assert other.run() == tmp_path
    assert (tmp_path / "n.txt").read_text() == "3"


def test_on_its_own_a_stage_never_replaces_a_file_of_unknown_origin(tmp_path):
    (tmp_path / "n.txt").write_text("precious")
    with pytest.raises(UsageError, match=r"n\.txt' exists and is not known to be of number GraspBall; remove it"):
        Number(name="GraspBall", out=tmp_path).run()
    Number(name="GraspBall", out=tmp_path / "a").run()
    with pytest.raises(UsageError, match=r"n\.txt' exists and is not known to be of number PickStick"):
        Number(name="PickStick", out=tmp_path / "a").run()
    assert (tmp_path / "a" / "n.txt").read_text() == "2"


@pytest.mark.parametrize(("number", "steps"), [(2, "xx"), (3, "x")])
def test_an_interrupted_stage_of_a_chain_goes_on_unless_its_settings_changed(tmp_path, number, steps):
    toy = Toy(tmp_path)
    toy.number.interrupt = True
    with pytest.raises(KeyboardInterrupt):
        toy.run()
    toy = Toy(tmp_path, number)
    toy.number.interrupt = True
    with pytest.raises(KeyboardInterrupt):
        toy.run()
    assert (tmp_path / "work" / "number-GraspBall" / "steps").read_text() == steps


def test_an_interrupted_stage_on_its_own_refuses_to_go_on_with_other_settings(tmp_path):
    stage = Number(name="GraspBall", out=tmp_path)
    stage.interrupt = True
    with pytest.raises(KeyboardInterrupt) as caught:
        stage.run()
    assert caught.value.saved_to == tmp_path
    with pytest.raises(UsageError, match=r"holds an interrupted number GraspBall whose settings.number is 2"):
        Number(name="GraspBall", out=tmp_path, settings={"number": 3}).run()
    assert Number(name="GraspBall", out=tmp_path).run() == tmp_path


def test_a_missing_input_says_what_makes_it(tmp_path):
    with pytest.raises(FileError, match=r"no number '.*nowhere'; make it with: dexcompose number"):
        Double(name="GraspBall", source=tmp_path / "nowhere", out=tmp_path).run()
