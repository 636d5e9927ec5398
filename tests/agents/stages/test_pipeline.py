"""`train all` end to end on a tiny budget: made once, skipped, partly made again, and used by the methods."""

import json
import os
import shutil
import signal
from contextlib import contextmanager

import pytest

from dexcompose_agents import cli
from dexcompose_agents.artefacts.shipped import (
    PRETRAINED_VARIABLE,
    choose_mask,
    file_hash,
    pretrained_folder,
    trained_in,
)
from dexcompose_agents.artefacts.weights import load_weights
from dexcompose_agents.attribution.selectors.utility import UtilitySelector
from dexcompose_agents.diffusion.policy import load_policy
from dexcompose_agents.held_states import collection as held_state_collection
from dexcompose_agents.methods.registry import make_method
from dexcompose_agents.stages import base, train_all
from dexcompose_agents.stages.fingers import ReleaseTest
from dexcompose_agents.stages.residuals import Residual, Stabiliser
from dexcompose_agents.stages.train_all import TrainAll
from dexcompose_envs import pair_names
from dexcompose_envs.artefacts import ArtefactError
from dexcompose_envs.errors import FileError, UsageError
from dexcompose_envs.held_states import FOLDER_VARIABLE, HeldStateLibrary, held_states_folder

PAIR = "GraspBall-PushButton"
STAGES = (
    "demonstrations GraspBall", "demonstrations PushButton", "policy GraspBall", "policy PushButton",
    "held states GraspBall", "release test GraspBall", f"mask {PAIR} utility", f"mask {PAIR} heuristic",
    "stabiliser GraspBall", f"residual {PAIR}",
)  # fmt: skip
FILES = (
    "demos/GraspBall/DexCompose/GraspBall/expert-v0/data/main_data.hdf5",
    "demos/PushButton/DexCompose/PushButton/expert-v0/data/main_data.hdf5",
    "pretrained/GraspBall.safetensors",
    "pretrained/PushButton.safetensors",
    "held_states/GraspBall.npz",
    *(f"pretrained/release_test/GraspBall.{kind}" for kind in ("csv", "json", "png")),
    f"pretrained/masks/{PAIR}.json",
    f"pretrained/masks/{PAIR}-heuristic.json",
    "pretrained/stabiliser-GraspBall.safetensors",
    f"pretrained/residual-{PAIR}.safetensors",
    "pipeline.json",
)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The output folder of one `train all --preset test`."""
    out = tmp_path_factory.mktemp("all")
    assert cli.main(["train", "all", "--preset", "test", "--only", PAIR, "--out", str(out)]) == 0
    return out


@pytest.fixture
def folder(made, tmp_path):
    """A copy of that folder."""
    return shutil.copytree(made, tmp_path / "all")


@pytest.fixture
def again(folder, capsys):
    """Runs the chain again with some settings; gives the stages that weren't skipped."""

    def run(**settings):
        capsys.readouterr()
        TrainAll(preset="test", only=(PAIR,), out=folder, settings=settings).run()
        lines = capsys.readouterr().out.splitlines()
        return [name for name, line in zip(STAGES, lines, strict=True) if "unchanged" not in line]

    return run


def test_the_folder_is_laid_out_like_the_package(made):
    assert [name for name in FILES if not (made / name).is_file()] == []
    assert not (made / "work").exists()
    summary = json.loads((made / "pipeline.json").read_text())
    assert summary["preset"] == "test"
    assert [row["stage"] for row in summary["stages"]] == list(STAGES)
    mask = json.loads((made / "pretrained" / "masks" / f"{PAIR}.json").read_text())
    assert mask["selector"] == "utility" and mask["mask"]


def test_the_chain_runs_on_warp(folder, again, monkeypatch):
    """What the presets for a GPU do, on Warp's CPU path and with the budget of the preset `test`.

    Stages that need a hundred steps stay on the CPU; `test_both_engines.py` and `residual/test_training.py` try what
    they do on Warp.
    """
    options = {"backend": "warp", "device": "cpu"}
    for stage in (ReleaseTest, Stabiliser):
        monkeypatch.setattr(stage, "physics", options)
    monkeypatch.setattr(ReleaseTest, "num_envs", 30)
    on_warp = {"backend": "warp", "episode_steps": 10}
    ran = again(stabiliser=on_warp)
    assert ran == [name for name in STAGES if not name.startswith(("demonstrations", "policy", "held states"))]
    weights = folder / "pretrained" / "stabiliser-GraspBall.safetensors"
    assert load_weights(weights, "stabiliser")[1]["backend"] == "warp"
    settings = json.loads((folder / "pretrained" / "release_test" / "GraspBall.json").read_text())
    assert settings["backend"] == "warp"
    assert again(stabiliser=on_warp) == []


def test_policies_say_what_they_were_made_from(made):
    manifest = load_policy("PushButton", path=made / "pretrained" / "PushButton.safetensors").manifest
    assert manifest["skill"] == "PushButton"
    assert manifest["dataset_id"] == "DexCompose/PushButton/expert-v0"
    assert len(manifest["episode_seeds"]) == 2
    assert {"data_version", "model_hash"} <= manifest.keys()


def test_second_run_skips_everything(again):
    assert again() == []


def test_changed_settings_run_what_depends_on_them(again):
    more = {"release_test": {"rollouts": 2}}
    ran = again(**more)
    assert ran[:3] == ["release test GraspBall", f"mask {PAIR} utility", f"mask {PAIR} heuristic"]
    again(**more)  # another mask may have been chosen
    slower = more | {"residual": {"ppo": {"learning_rate": 1e-4}}}
    assert again(**slower) == [f"residual {PAIR}"]
    assert again(**slower) == []


def test_masks_are_chosen_anew_by_a_selector_that_was_changed(again, monkeypatch):
    monkeypatch.setattr(UtilitySelector, "__module__", __name__)  # as if it were written in this file
    assert again() == [f"mask {PAIR} utility"]
    assert again() == []


def test_a_removed_file_is_made_again(folder, again):
    (folder / "pretrained" / f"residual-{PAIR}.safetensors").unlink()
    assert again() == [f"residual {PAIR}"]


@pytest.mark.parametrize(
    "name",
    ["pretrained/PushButton.safetensors", "held_states/GraspBall.npz", f"pretrained/masks/{PAIR}.json", FILES[0]],
)
def test_a_damaged_file_is_named(folder, again, name):
    path = folder / name
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(FileError, match=r"was damaged or changed since stage '.*' wrote it .*; remove it") as error:
        again()
    assert path.name in str(error.value) or "demos" in str(error.value)
    assert "\n" not in str(error.value)


def test_held_states_come_from_the_policy_and_name_its_weights(made, tmp_path, monkeypatch):
    asked = {}

    def collect(skill, policy, count, *, out, policy_hash, **options):
        asked.update(skill=skill, policy=policy, count=count, policy_hash=policy_hash)
        out.touch()

    monkeypatch.setattr(held_state_collection, "collect", collect)
    monkeypatch.setenv(PRETRAINED_VARIABLE, str(made / "pretrained"))
    assert cli.main(["train", "held-states", "GraspBall", "--out", str(tmp_path)]) == 0
    assert (asked["skill"], asked["count"], asked["policy"].policy.manifest["skill"]) == (
        "GraspBall",
        2048,
        "GraspBall",
    )
    assert asked["policy_hash"] == file_hash(made / "pretrained" / "GraspBall.safetensors")


def test_a_test_folder_is_never_continued_for_real(made, capsys):
    assert cli.main(["train", "all", "--preset", "cpu", "--only", PAIR, "--out", str(made)]) == 2
    assert "was made with preset 'test', now 'cpu'" in capsys.readouterr().err


def test_methods_and_evaluation_use_it(made, tmp_path, monkeypatch, capsys):
    monkeypatch.delenv(PRETRAINED_VARIABLE, raising=False)
    monkeypatch.delenv(FOLDER_VARIABLE, raising=False)
    with trained_in(made):
        assert make_method("dexcompose", PAIR).selector == "utility"
        assert len(HeldStateLibrary.load("GraspBall")) == 8
        assert pretrained_folder() == made / "pretrained"
    assert PRETRAINED_VARIABLE not in os.environ and FOLDER_VARIABLE not in os.environ
    arguments = ["eval", PAIR, "--pretrained", str(made), "--seeds", "1", "--rollouts", "1", "--out", str(tmp_path)]
    assert cli.main(arguments) == 0
    assert "preset 'test'" in capsys.readouterr().err
    assert len((tmp_path / "episodes.csv").read_text().splitlines()) == 2


def test_folders_that_are_none(tmp_path, monkeypatch, capsys):
    assert cli.main(["eval", PAIR, "--pretrained", str(tmp_path)]) == 2
    assert "expected an output folder of 'dexcompose train all'" in capsys.readouterr().err
    monkeypatch.setenv(PRETRAINED_VARIABLE, "nowhere")
    with pytest.raises(ValueError, match="DEXCOMPOSE_PRETRAINED is 'nowhere'; expected a folder"):
        pretrained_folder()
    monkeypatch.setenv(FOLDER_VARIABLE, "nowhere")
    with pytest.raises(UsageError, match="DEXCOMPOSE_HELD_STATES is 'nowhere'; expected a folder"):
        held_states_folder()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["all", "--only", "Violin"], "unknown skill or pair 'Violin'; expected one of GraspBall"),
        (["stabiliser", "PushButton"], "unknown retention skill 'PushButton'"),
        (["stabiliser", "GraspBall", "--mask", "TH+XX"], "unknown finger"),
        (["residual", PAIR, "--ppo.learning-rate", "-1"], "learning_rate is -1.0; expected a positive number"),
        (
            ["policy", "GraspBall", "--data", "nowhere"],
            "no demonstrations 'nowhere/DexCompose/GraspBall/expert-v0'",
        ),
    ],
)
def test_wrong_requests_are_one_line(arguments, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["train", *arguments]) == 2
    printed = capsys.readouterr().err.strip()
    assert message in printed
    assert "\n" not in printed


@pytest.mark.parametrize(
    "arguments",
    [
        ["all", "GraspBall"],
        ["all", "--data", "x"],
        ["policy"],
        ["policy", "GraspBall", "--mask", "TH"],
        ["policy", "GraspBall", "--ppo.learning-rate", "1"],
        ["residual", PAIR, "--mask", "TH", "FF"],
        ["residual", PAIR, "--preset", "huge"],
    ],
)
def test_a_stage_takes_only_its_own_options(arguments, capsys):
    with pytest.raises(SystemExit) as caught:
        cli.main(["train", *arguments])
    assert caught.value.code == 2 and capsys.readouterr().err


def test_single_stages_use_the_chain_s_files(made, tmp_path, monkeypatch):
    monkeypatch.setenv(PRETRAINED_VARIABLE, str(made / "pretrained"))
    monkeypatch.setenv(FOLDER_VARIABLE, str(made / "held_states"))
    test = ["--preset", "test", "--out", str(tmp_path)]
    assert cli.main(["train", "policy", "PushButton", "--data", str(made / "demos" / "PushButton"), *test]) == 0
    assert cli.main(["train", "stabiliser", "GraspBall", *test]) == 0
    table, demos = made / "pretrained" / "release_test" / "GraspBall.csv", made / "demos" / "PushButton"
    choose = ["select-mask", PAIR, "--table", str(table), "--demos", str(demos), "--out", str(tmp_path / "mask.json")]
    assert cli.main(choose) == 0
    assert (tmp_path / "mask.json").read_bytes() == (made / "pretrained" / "masks" / f"{PAIR}.json").read_bytes()
    assert (tmp_path / "stabiliser.safetensors").is_file()


def test_another_mask_in_the_same_folder_never_hands_out_the_old_weights(made, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv(PRETRAINED_VARIABLE, str(made / "pretrained"))
    monkeypatch.setenv(FOLDER_VARIABLE, str(made / "held_states"))
    command = ["train", "residual", PAIR, "--preset", "test", "--out", str(tmp_path), "--mask"]
    assert cli.main([*command, "TH+FF+MF"]) == 0
    weights = (tmp_path / "residual_b.safetensors").read_bytes()
    assert cli.main([*command, "TH+RF+LF"]) == 2
    printed = capsys.readouterr().err.strip().splitlines()[-1]
    assert "whose settings.mask is 'TH+FF+MF'; expected 'TH+RF+LF'; remove it or give another --out" in printed
    assert cli.main([*command, "TH+FF+MF"]) == 0
    assert "unchanged" in capsys.readouterr().out
    assert (tmp_path / "residual_b.safetensors").read_bytes() == weights


def test_a_training_in_pieces_says_that_it_is_paused(made, tmp_path, capsys):
    demos, out = made / "demos" / "PushButton", tmp_path / "out"
    command = ["train", "policy", "PushButton", "--preset", "test", "--data", str(demos), "--out", str(out)]
    assert cli.main([*command, "--steps", "1000000", "--minutes", "0.00001"]) == 130
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert last == f"dexcompose: paused; saved to {out}, run the same command to go on"


class CtrlC:
    """Stands in for the progress bar: a real signal with its report number `at`; later reports pass."""

    def __init__(self, at):
        self.at, self.reports, self.signal = at, [], signal.SIGINT

    @contextmanager
    def __call__(self, label):
        yield self.report

    def report(self, done, total):
        self.reports.append(done)
        if len(self.reports) == self.at:
            signal.raise_signal(self.signal)


@pytest.fixture
def ctrl_c(monkeypatch):
    """Progress bars that interrupt at their second report."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where tests run in the background
    pressed = CtrlC(at=2)
    for module in (base, train_all):
        monkeypatch.setattr(module, "progress_bar", pressed)
    yield pressed
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize(
    ("number", "arguments", "result"),
    [
        ("TERM", ["demos", "PushButton", "--episodes", "2"], "DexCompose/PushButton/expert-v0/data/main_data.hdf5"),
        ("TERM", ["train", "policy", "PushButton", "--data", "{made}/demos/PushButton"], "PushButton.safetensors"),
        (
            "INT",
            ["train", "policy", "PushButton", "--data", "{made}/demos/PushButton", "--minutes", "60"],
            "PushButton.safetensors",
        ),
        ("TERM", ["train", "stabiliser", "GraspBall"], "stabiliser.safetensors"),
        ("INT", ["train", "residual", PAIR], "residual_b.safetensors"),
        ("TERM", ["release-test", "GraspBall"], "release_test.csv"),
    ],
    ids=lambda value: " ".join(value[:2]) if isinstance(value, list) else "",
)
def test_a_signal_loses_nothing(made, tmp_path, monkeypatch, capsys, ctrl_c, number, arguments, result):
    ctrl_c.signal, code = (signal.SIGTERM, 143) if number == "TERM" else (signal.SIGINT, 130)
    monkeypatch.setenv(PRETRAINED_VARIABLE, str(made / "pretrained"))
    monkeypatch.setenv(FOLDER_VARIABLE, str(made / "held_states"))
    out = tmp_path / "out"
    command = [*(word.format(made=made) for word in arguments), "--preset", "test", "--out", str(out)]
    assert cli.main(command) == code
    printed = capsys.readouterr().err.strip()
    how = "terminated" if number == "TERM" else "interrupted"
    assert printed == f"dexcompose: {how}; saved to {out}, run the same command to go on"
    assert not (out / result).exists()
    assert any(path.is_file() for path in out.rglob("*"))
    assert cli.main(command) == 0
    assert (out / result).is_file()


def test_ctrl_c_in_the_chain(folder, capsys, ctrl_c):
    stabiliser = folder / "pretrained" / "stabiliser-GraspBall.safetensors"
    stabiliser.unlink()
    command = ["train", "all", "--preset", "test", "--only", PAIR, "--out", str(folder)]
    assert cli.main(command) == 130
    assert f"interrupted; saved to {folder}, run the same command to go on" in capsys.readouterr().err
    assert list((folder / "work" / "stabiliser-GraspBall").glob("checkpoint*"))
    assert cli.main(command) == 0
    assert stabiliser.is_file()


def test_a_joint_residual_brings_the_pairs_own_stabiliser():
    alone, joint = (Residual(name=PAIR, settings={"joint": on}).writes() for on in (False, True))
    assert joint == alone | {"stabiliser.safetensors": f"pretrained/stabiliser-{PAIR}.safetensors"}


def test_a_stabiliser_is_trained_for_the_masks_that_there_are(dummy_skills, tmp_path, monkeypatch):
    trained = [pair for pair in pair_names() if pair.startswith("PickStick-") and pair != "PickStick-PressFlap"]
    shipped = [choose_mask(pair)[0] for pair in trained]
    assert Stabiliser(name="PickStick").config.masks == tuple(dict.fromkeys(map(str, shipped)))  # none for PressFlap
    monkeypatch.setenv(PRETRAINED_VARIABLE, str(tmp_path))
    with pytest.raises(ArtefactError, match="no mask ships for PickStick-"):
        _ = Stabiliser(name="PickStick").config
