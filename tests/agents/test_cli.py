"""The command line: help for every command, one line and exit code 2 on errors, 130 on Ctrl-C."""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import imageio.v3 as imageio
import numpy as np
import pytest
import torch
import tyro

from dexcompose_agents import cli, evaluation, sheet
from dexcompose_agents.artefacts.shipped import pretrained_folder
from dexcompose_agents.attribution.selectors import SELECTORS
from dexcompose_agents.methods.registry import method_names
from dexcompose_agents.residual.config import residual_b_preset
from dexcompose_agents.runtime.compute import PRESETS
from dexcompose_agents.runtime.interrupts import saving_to
from dexcompose_agents.stages.residuals import Residual, Stabiliser
from dexcompose_envs import pair_names, skill_names
from dexcompose_envs.held_states import HeldStateLibrary, held_states_folder
from dexcompose_envs.physics.mujoco_cpu import MujocoCPU
from dexcompose_envs.skills import make_skill

COMMANDS = ("list", "demos", "train", "release-test", "select-mask", "eval", "bench", "report", "view")
PAIR = "GraspBall-PushButton"
RESULTS = Path(__file__).parents[2] / "benchmarks" / "results" / "pairs"


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main([command, "--help"])
    assert caught.value.code == 0
    assert f"dexcompose {command}" in capsys.readouterr().out


def test_list_names_everything(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["list"]) == 0
    printed = capsys.readouterr().out
    words = [*skill_names(), *pair_names(), f"DexCompose/{PAIR}-v0", *method_names(), *SELECTORS, *PRESETS, "residual-"]
    words += [make_skill(skill).DESCRIPTION for skill in skill_names()]
    assert [word for word in words if word not in printed] == []


@pytest.mark.rendering
def test_list_draws_every_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sheet, "SIZE", (64, 48))
    monkeypatch.setattr(sheet, "STRIP_HEIGHT", 0)
    monkeypatch.setattr(sheet, "pair_names", lambda: (PAIR,))
    assert cli.main(["list", "--pictures", str(tmp_path / "sheet.png")]) == 0
    drawn = imageio.imread(tmp_path / "sheet.png")
    rows, columns = 2 + len(skill_names("retention")), len(skill_names("interaction"))
    assert drawn.shape == (rows * 48, columns * 64, 3)
    assert drawn[:48, :64].std() > 10
    assert cli.main(["list", "--pictures", str(tmp_path / "sheet.mp4")]) == cli.EXIT_ERROR
    assert sorted(path.name for path in tmp_path.iterdir()) == ["sheet.png"]


def test_list_is_quick_because_torch_stays_out() -> None:
    code = (
        "import sys; from dexcompose_agents import cli; code = cli.main(['list']); "
        "sys.exit(code or ('torch' in sys.modules) or ('diffusers' in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=False).returncode == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["eval", "GraspBall-Violin"], "unknown pair 'GraspBall-Violin'; expected one of"),
        (["eval", PAIR, "--method", "magic"], "unknown method 'magic'; expected one of frozen"),
        (["eval", PAIR, "--method", "nowhere:Class"], "cannot import module 'nowhere'"),
        (["eval", PAIR, "--seeds", "0"], "seeds is 0; expected a whole number from 1 to 8192"),
        (["bench", "--pairs", "GraspBall-Violin"], "unknown pair"),
        (["bench", "--methods", "magic"], "unknown method 'magic'"),
        (["demos", "Violin"], "unknown skill 'Violin'; expected one of GraspBall"),
        (["train", "policy", "Violin"], "unknown skill"),
        (["train", "residual", "GraspBall"], "unknown pair 'GraspBall'"),
        (["release-test", "Violin"], "unknown retention skill 'Violin'; expected one of GraspBall"),
        (["select-mask", "Violin"], "unknown pair"),
        (["eval", PAIR, "--method", ":"], "cannot import module ''"),
        (["eval", PAIR, "--method", ".:Class"], "cannot import module '.'"),
        (["eval", PAIR, "--mask", "TH+XX"], "unknown finger 'XX' in mask 'TH+XX'; expected one or more of TH"),
        (["eval", PAIR, "--mask", ""], "mask preserves no finger; expected one or more of TH"),
        (["eval", PAIR, "--mask", "no.json"], "can't read 'no.json' (No such file or directory)"),
        (["eval", PAIR, "--method", "frozen", "--mask", "TH"], "method 'frozen' has no option 'mask'"),
        (["eval", PAIR, "--selector", "magic"], f"no mask of selector 'magic' ships for {PAIR}"),
        (["demos", "GraspBall", "--seed", "-1"], "seed is -1; expected a whole number from 0"),
        (["select-mask", PAIR], "no release-test table 'runs/release-test/GraspBall/release_test.csv'; make it with"),
        (["view", "Violin"], "unknown pair"),
        (["view", "PushButton", "--episodes", "0"], "episodes is 0; expected a whole number of at least 1"),
        (["view", "PushButton", "--seed", "-2"], "seed is -2; expected a whole number from 0"),
        (["report", "nowhere"], "no episodes*.csv in 'nowhere'"),
    ],
)
def test_errors_are_one_line(
    arguments: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.main(arguments) == 2
    printed = capsys.readouterr().err.strip()
    assert printed.startswith("dexcompose: error: ") and message in printed
    assert "\n" not in printed


@pytest.mark.parametrize("out", ["file", "file/out"])
@pytest.mark.parametrize(
    "arguments",
    [
        ["eval", PAIR, "--method", "frozen", "--out"],
        ["bench", "--out"],
        ["demos", "PushButton", "--out"],
        ["train", "policy", "PushButton", "--out"],
        ["train", "held-states", "GraspBall", "--out"],
        ["train", "stabiliser", "GraspBall", "--out"],
        ["train", "residual", PAIR, "--out"],
        ["train", "all", "--preset", "test", "--out"],
        ["release-test", "GraspBall", "--out"],
        ["select-mask", PAIR, "--out"],
        ["view", "PushButton", "--video"],
    ],
    ids=lambda arguments: " ".join(arguments[:2]),
)
def test_unwritable_folder(
    arguments: list[str],
    out: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Found out before anything is computed; the way is blocked by a file, which stops root as well."""
    monkeypatch.chdir(tmp_path)
    Path("file").touch()
    names_a_file = arguments[-1] == "--video" or arguments[0] == "select-mask"
    assert cli.main([*arguments, f"{out}/result.gif" if names_a_file else out]) == 2
    printed = capsys.readouterr().err.strip()
    assert re.search(r"(can't|cannot) write to .*'file.*; expected a writable folder", printed)
    assert "\n" not in printed


def test_a_window_needs_a_display(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(sys, "platform", "linux")
    assert cli.main(["view", "PushButton"]) == 2
    assert "no display for a window" in capsys.readouterr().err


METHODS = """
import numpy as np

class Zeros:
    name, width, value = "zeros", 28, 0.0
    def __init__(self, pair): pass
    def reset(self, obs, info, env_ids, seeds): pass
    def act(self, obs): return np.full((len(obs["context"]), self.width), self.value, np.float32)

class Narrow(Zeros): width = 27
class Nan(Zeros): value = np.nan
class Infinite(Zeros): value = np.inf
"""


@pytest.fixture
def methods(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder, with a module `cli_test_methods` of our own."""
    monkeypatch.chdir(tmp_path)
    Path("cli_test_methods.py").write_text(METHODS, encoding="utf-8")
    monkeypatch.delitem(sys.modules, "cli_test_methods", raising=False)
    return tmp_path


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("Narrow", "returned actions of shape (2, 27); expected (2, 28)"),
        ("Nan", "returned a NaN or infinite action in the episode with seed 1073741824; expected numbers in [-1, 1]"),
        ("Infinite", "returned a NaN or infinite action"),
    ],
)
def test_wrong_actions_are_one_line(name: str, message: str, capsys: pytest.CaptureFixture[str], methods: Path) -> None:
    arguments = ["--method", f"cli_test_methods:{name}", "--seeds", "1", "--rollouts", "2"]
    assert cli.main(["eval", PAIR, *arguments]) == 2
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert last.startswith("dexcompose: error: agent 'zeros' ") and message in last


@pytest.fixture
def trained(tmp_path: Path) -> Path:
    """A copy of the shipped files, laid out like the output of `train all`."""
    shipped = {"pretrained": pretrained_folder(), "held_states": held_states_folder()}
    for name, folder in shipped.items():
        (tmp_path / "trained" / name).mkdir(parents=True)
        for file in ("PushButton.safetensors", "GraspBall.npz"):
            if (folder / file).is_file():
                shutil.copy(folder / file, tmp_path / "trained" / name)
    return tmp_path / "trained"


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:100_000])


def _flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1000] ^= 1
    path.write_bytes(content)


def _of_another_model(path: Path) -> None:
    library = HeldStateLibrary.load(path)
    manifest = replace(library.manifest, model_hash="0123456789ab")
    HeldStateLibrary.from_columns(manifest, library.columns()).save(path)


@pytest.mark.parametrize(
    ("name", "spoil", "message"),
    [
        ("pretrained/PushButton.safetensors", _cut, "is truncated, damaged or foreign"),
        ("pretrained/PushButton.safetensors", _flip, "was altered or damaged"),
        ("pretrained/PushButton.safetensors", Path.unlink, "make one with: dexcompose train policy PushButton"),
        ("held_states/GraspBall.npz", _cut, "is truncated, damaged or foreign"),
        ("held_states/GraspBall.npz", _of_another_model, "model_hash is '0123456789ab'; expected '"),
        ("held_states/GraspBall.npz", Path.unlink, "no held states for 'GraspBall'"),
    ],
)
def test_spoilt_files_are_one_line(
    name: str,
    spoil: Callable[[Path], None],
    message: str,
    capsys: pytest.CaptureFixture[str],
    trained: Path,
    tmp_path: Path,
) -> None:
    spoil(trained / name)
    arguments = ["--pretrained", str(trained), "--seeds", "1", "--rollouts", "1", "--out", str(tmp_path / "out")]
    assert cli.main(["eval", PAIR, "--method", "frozen", *arguments]) == 2
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert last.startswith("dexcompose: error: ") and message in last
    assert Path(name).stem in last


@pytest.mark.parametrize(
    "arguments", [["nothing"], ["eval"], ["train", "magic", "GraspBall"], ["eval", PAIR, "--seeds", "x"]]
)
def test_wrong_arguments_exit_with_two(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main(arguments)
    assert caught.value.code == 2
    assert capsys.readouterr().err


def test_interruption_says_where_the_episodes_are(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: Any, **__: Any) -> None:
        with saving_to(tmp_path):
            raise KeyboardInterrupt

    monkeypatch.setattr(evaluation, "evaluate", interrupted)
    assert cli.main(["eval", PAIR, "--out", str(tmp_path)]) == 130
    assert f"saved to {tmp_path}" in capsys.readouterr().err


RUN = [sys.executable, "-c", "import sys; from dexcompose_agents.cli import main; sys.exit(main())"]
"""The command line in a process of its own."""


@pytest.mark.skipif(os.name == "nt", reason="POSIX signals")
@pytest.mark.parametrize(
    ("number", "code", "how"), [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "terminated")]
)
def test_a_signal_in_the_middle_of_an_evaluation(
    number: signal.Signals, code: int, how: str, methods: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A real signal to a real process: what was finished stays, and the same command goes on."""
    arguments = ["eval", PAIR, "--method", "cli_test_methods:Zeros", "--seeds", "1", "--rollouts", "12"]
    arguments += ["--num-envs", "1", "--out", "out"]
    episodes = methods / "out" / "episodes.csv"
    process = subprocess.Popen(
        [*RUN, *arguments], cwd=methods, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # not ignored, as in background jobs
    )  # fmt: skip
    deadline = time.monotonic() + 120
    while not episodes.exists() or episodes.read_bytes().count(b"\n") < 2:
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(number)
    _, printed = process.communicate(timeout=60)
    assert process.returncode == code
    assert printed.strip().splitlines()[-1] == f"dexcompose: {how}; saved to out, run the same command to go on"
    before = episodes.read_text().splitlines()
    assert 2 <= len(before) < 13
    assert (methods / "out" / "results.json").is_file()
    assert cli.main(arguments) == 0
    after = episodes.read_text().splitlines()
    assert after[: len(before)] == before and len(set(after)) == len(after) == 13


@pytest.mark.skipif(os.name == "nt", reason="POSIX pipes")
@pytest.mark.parametrize("arguments", [["list"], ["--help"]])
def test_nobody_reads_to_the_end(arguments: list[str]) -> None:
    """As in `dexcompose list | head -1`."""
    process = subprocess.Popen([*RUN, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None and process.stderr is not None
    process.stdout.close()
    assert process.stderr.read() == b""
    assert process.wait(60) == 141


@pytest.mark.parametrize(
    ("encoding", "arguments"),
    [("ascii", ["train", "residual", "--help"]), ("cp1252", ["list"]), ("ascii", ["report", "results"])],
)
def test_poor_consoles(encoding: str, arguments: list[str], tmp_path: Path) -> None:
    shutil.copytree(RESULTS, tmp_path / "results")
    environment = {**os.environ, "PYTHONIOENCODING": encoding, "FORCE_COLOR": "1"}
    done = subprocess.run([*RUN, *arguments], cwd=tmp_path, env=environment, capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.decode(encoding)


def test_progress_on_a_poor_console() -> None:
    code = "from dexcompose_agents.runtime.progress import progress_bar\nwith progress_bar('\u03b2') as f: f(1, 2)"
    environment = {**os.environ, "PYTHONIOENCODING": "cp1252:strict", "FORCE_COLOR": "1"}
    main = f"from dexcompose_agents import cli\ncli._run = lambda arguments: exec({code!r})\ncli.main()"
    done = subprocess.run([sys.executable, "-c", main], env=environment, capture_output=True, check=False)
    assert done.returncode == 0 and b"50%" in done.stderr


@pytest.mark.parametrize(
    "arguments",
    [["report", "~/x"], ["report", "results", "--out", "~/file/x.html"], ["demos", "PushButton", "--out=~/file"]],
)
def test_paths_may_begin_with_the_home_folder(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    shutil.copytree(RESULTS, "results")
    Path("file").touch()
    assert cli.main(arguments) == 2
    assert str(tmp_path) in capsys.readouterr().err


@pytest.mark.skipif(os.name == "nt", reason="POSIX locks")
@pytest.mark.parametrize(
    "arguments", [["demos", "PushButton"], ["train", "all", "--preset", "test"], ["release-test", "GraspBall"]]
)
def test_two_processes_never_write_to_one_folder(
    arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    hold = (
        "import sys; from dexcompose_envs.files import lock_folder\nwith lock_folder('.'): print(flush=True); input()"
    )
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", hold], cwd=tmp_path, **pipes) as other:  # type: ignore[call-overload]
        other.stdout.readline()
        assert cli.main([*arguments, "--out", str(tmp_path)]) == 2
        other.communicate(b"\n")
    assert f"another process is writing to '{tmp_path}'" in capsys.readouterr().err


@pytest.mark.parametrize("preset", ["cpu", "fast", "test"])
def test_an_option_overrides_its_preset_alone(preset: str) -> None:
    arguments = [PAIR, "--preset", preset, "--ppo.learning-rate", "1e-5", "--success-bonus", "7"]
    config = tyro.cli(Residual.command(), args=arguments).config
    expected = residual_b_preset(preset)
    assert config == replace(expected, success_bonus=7.0, ppo=replace(expected.ppo, learning_rate=1e-5))
    assert tyro.cli(Residual.command(), args=[*arguments, "--device", "cuda:3"]).config.ppo.device == "cuda:3"


def test_what_matters_to_a_residual_can_be_switched_off() -> None:
    off = ["--approach-scale", "0", "--dimensions", "wrist", "fingers", "--no-wrist-error", "--ppo.gamma", "0.99"]
    off += ["--tracking-scale", "0", "--no-shortcut", "--joint"]
    config = tyro.cli(Residual.command(), args=[PAIR, *off]).config
    assert (config.approach_scale, config.dimensions, config.wrist_error) == (0.0, ("wrist", "fingers"), False)
    assert (config.tracking_scale, config.shortcut, config.joint) == (0.0, False, True)
    assert config.ppo == replace(residual_b_preset("cpu").ppo, gamma=0.99)
    assert tyro.cli(Residual.command(), args=[PAIR]).config == residual_b_preset("cpu")
    stabiliser = tyro.cli(Stabiliser.command(), args=["GraspBall", "--rotation-weight", "0.5"])
    assert stabiliser.config.rotation_weight == 0.5


def test_an_unstable_world_is_named_in_table_and_files(
    methods: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Real physics that diverges: the rollout is an error, a failure, and the other one goes on."""
    step, calls = MujocoCPU.step, [0]

    def spoilt(engine: MujocoCPU, targets: Any) -> Any:
        calls[0] += 1
        if calls[0] == 1:
            state = engine.get_state()[:1]
            state[:, 1 + engine.model.nq : 1 + engine.model.nq + engine.model.nv] = 1e12  # time, qpos, qvel
            engine.set_state(state, np.array([0]))
        return step(engine, targets)

    monkeypatch.setattr(MujocoCPU, "step", spoilt)
    arguments = ["--method", "cli_test_methods:Zeros", "--seeds", "1", "--rollouts", "2", "--out", "out"]
    assert cli.main(["eval", PAIR, *arguments]) == 0
    assert "error" in capsys.readouterr().out
    with open(methods / "out" / "episodes.csv", newline="", encoding="utf-8") as file:
        rows = {int(row["episode_seed"]) - 2**30: row for row in csv.DictReader(file)}
    assert (rows[0]["outcome"], rows[0]["steps"]) == ("error", "1")
    assert rows[1]["outcome"] != "error"
    summary = json.loads((methods / "out" / "results.json").read_text())["runs"][0]
    assert summary["outcomes"]["error"] == 1 and summary["episodes"] == 2
    assert "1 rollouts ended in a numerically unstable world" in (methods / "out" / "report.html").read_text()


@pytest.mark.parametrize("kind", [AssertionError, ValueError, RuntimeError, KeyError, TypeError, ImportError])
def test_a_defect_keeps_its_traceback(kind: type[Exception], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def defect(*_: Any, **__: Any) -> None:
        raise kind("a defect")

    monkeypatch.setattr(evaluation, "evaluate", defect)
    with pytest.raises(kind, match="a defect"):
        cli.main(["eval", PAIR, "--out", str(tmp_path)])


def test_a_training_in_pieces_says_that_the_same_command_goes_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "states"
    command = ["train", "held-states", "GraspBall", "--preset", "test", "--out", str(out), "--minutes", "0.01"]
    assert cli.main(command) == 130
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert last == f"dexcompose: paused; saved to {out}, run the same command to go on"


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "stabiliser", "GraspBall", "--preset", "fast"], "torch .* finds no GPU; device='cpu' works without"),
        (["train", "held-states", "GraspBall", "--preset", "paper"], "expected one of 'cpu' .*no CUDA device"),
        (["release-test", "GraspBall", "--backend", "warp"], "torch .* finds no GPU"),
        (["eval", PAIR, "--backend", "warp", "--device", "cuda:1"], r"'cuda:1'; expected one of 'cpu'"),
        (["train", "all", "--minutes", "0"], "minutes is 0.0; expected a positive number"),
    ],
    ids=lambda value: " ".join(value[:3]) if isinstance(value, list) else "",
)
def test_a_missing_gpu_is_one_line(
    arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main([*arguments, "--out", str(tmp_path / "out")]) == 2
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert re.search(message, last), last
