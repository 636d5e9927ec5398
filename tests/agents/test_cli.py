"""The command line: help for every command, one line and exit code 2 on errors, 130 on Ctrl-C."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from dexcompose_agents import cli, evaluation
from dexcompose_agents.evaluation import EvaluationInterrupted

COMMANDS = ("list", "demos", "train", "release-test", "select-mask", "eval", "bench", "report", "view")
PAIR = "GraspBall-PushButton"


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main([command, "--help"])
    assert caught.value.code == 0
    assert f"dexcompose {command}" in capsys.readouterr().out


def test_list_names_everything(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["list"]) == 0
    printed = capsys.readouterr().out
    for word in ("GraspBall", "PushButton", f"DexCompose/{PAIR}-v0", "frozen", "zero-shot", "dexcompose", "utility"):
        assert word in printed


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
        (["eval", PAIR, "--seeds", "0"], "seeds must lie in [1, 8192], got 0"),
        (["bench", "--pairs", "GraspBall-Violin"], "unknown pair"),
        (["bench", "--methods", "magic"], "unknown method 'magic'"),
        (["demos", "Violin"], "unknown skill 'Violin'; expected one of GraspBall"),
        (["train", "policy", "Violin"], "unknown skill"),
        (["train", "residual", "GraspBall"], "unknown pair 'GraspBall'"),
        (["release-test", "Violin"], "unknown retention skill 'Violin'; expected one of GraspBall"),
        (["select-mask", "Violin"], "unknown pair"),
        (["view", "Violin"], "unknown pair"),
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


def test_unwritable_folder(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert cli.main(["bench", "--out", str(tmp_path / "file" / "out")]) == 2
    assert "cannot write to" in capsys.readouterr().err


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
        raise EvaluationInterrupted(tmp_path)

    monkeypatch.setattr(evaluation, "evaluate", interrupted)
    assert cli.main(["eval", PAIR, "--out", str(tmp_path)]) == 130
    assert f"saved to {tmp_path}" in capsys.readouterr().err


def test_a_defect_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def defect(*_: Any, **__: Any) -> None:
        raise AssertionError("a defect")

    monkeypatch.setattr(evaluation, "evaluate", defect)
    with pytest.raises(AssertionError, match="a defect"):
        cli.main(["eval", PAIR, "--out", str(tmp_path)])
