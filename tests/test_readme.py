"""What the README shows works: its code runs (with smaller numbers), its commands and files exist."""

import csv
import importlib
import json
import os
import re
import shlex
import subprocess
import sys
from functools import wraps
from pathlib import Path
from pkgutil import resolve_name

import numpy as np
import pytest
import torch
import tyro

from dexcompose_agents import cli
from dexcompose_envs import OUTCOMES, PAIRS, SKILLS, env_id

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAIR = "GraspBall-PushButton"
# A script that is installed doesn't search the working folder; neither does Python with -P.
SCRIPT = [sys.executable, "-P", "-c", "import sys; from dexcompose_agents.cli import main; sys.exit(main())"]


def blocks(language):
    """All fenced blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


def block(language, word):
    """The one block that has `word` in it."""
    found = [text for text in blocks(language) if word in text]
    assert len(found) == 1, f"{len(found)} {language} blocks of README.md have {word!r}, expected 1"
    return found[0]


def replaced(text, changes):
    """`text` with every key of `changes` replaced; each must occur exactly once."""
    for old, new in changes.items():
        assert text.count(old) == 1, f"README.md has {old!r} {text.count(old)} times, expected once, in:\n{text}"
        text = text.replace(old, new)
    return text


def commands():
    """All commands that begin with `dexcompose` or `make`, from bash blocks and inline code."""
    lines = [line for text in blocks("bash") for line in text.splitlines()]
    lines += re.findall(r"`((?:dexcompose|make) [^`]*)`", README)
    found = [shlex.split(line, comments=True) for line in lines]
    return [words for words in found if words]


@pytest.fixture
def small(tmp_path, monkeypatch):
    """A folder of its own, and one thread for torch."""
    monkeypatch.chdir(tmp_path)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield tmp_path
    torch.set_num_threads(threads)


def test_every_python_block_is_run_by_a_test_below():
    known = ("env.action_space.sample()", 'backend="warp"', "PPO(", "# my_method.py")
    assert len(blocks("python")) == len(known)
    for word in known:
        block("python", word)


def test_the_environment_in_five_lines(small):
    names = {}
    exec(block("python", "env.action_space.sample()"), names)
    assert set(names["obs"]) == {"task_a", "task_b", "context"}
    assert all(value.ndim == 1 and value.dtype == "float32" for value in names["obs"].values())
    assert isinstance(names["info"]["task_a_held"], bool)  # a random action may throw the ball away at once
    assert names["env"].reset(seed=0)[1]["task_a_held"]
    names["env"].close()


@pytest.mark.rendering
def test_the_first_example_renders_on_a_bare_machine():
    """Without a display and `MUJOCO_GL`, in a process of its own."""
    hidden = ("MUJOCO_GL", "PYOPENGL_PLATFORM", "DISPLAY", "WAYLAND_DISPLAY")
    environment = {name: value for name, value in os.environ.items() if name not in hidden}
    code = block("python", "env.action_space.sample()") + "print(env.render().std() > 10, env.render().shape)"
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("True (480, 640, 3)\n", "")


def test_the_gpu_example_on_warps_cpu_path(small):
    names = {}
    exec(replaced(block("python", 'backend="warp"'), {"num_envs=4096": "num_envs=2", "cuda:0": "cpu"}), names)
    assert all(isinstance(value, torch.Tensor) and len(value) == 2 for value in names["obs"].values())
    assert names["info"]["task_a_held"].all()
    names["venv"].close()


def test_the_reinforcement_learning_example(small):
    changes = {
        "num_envs=32": "num_envs=16",
        "n_steps=64": "n_steps=4",
        "batch_size=512": "batch_size=32, n_epochs=2",
        "verbose=1": "verbose=0",
        "model.learn(100_000)": "model.learn(64)",
    }
    names = {}
    torch.manual_seed(0)  # of the network and of its noise
    exec(replaced(block("python", "PPO("), changes), names)
    assert names["model"].num_timesteps == 64
    assert (small / "residual.zip").is_file()
    # What PPO's first policy does in whole episodes, noise included: it begins at success.
    venv, model = names["venv"], names["model"]
    obs, _ = venv.reset(seed=0)
    outcomes = np.zeros(16, int)
    for _ in range(210):
        flat = np.concatenate([obs[key] for key in sorted(obs)], axis=1)
        obs, *_, info = venv.step(model.predict(flat)[0])
        ended = info.get("_final_info", np.zeros(16, bool)) & (outcomes == 0)
        outcomes[ended] = info["final_info"]["outcome"][ended] if ended.any() else 0
        if outcomes.all():
            break
    assert (outcomes == OUTCOMES.index("success")).sum() >= 9, outcomes
    venv.close()


def test_the_method_example_is_evaluated_like_every_other(small):
    (small / "my_method.py").write_text(block("python", "# my_method.py"), encoding="utf-8")
    command = replaced(
        block("bash", "my_method:StayStill"), {"--seeds 13": "--seeds 1", "--rollouts 32": "--rollouts 2"}
    )
    program, *arguments = shlex.split(command)
    assert program == "dexcompose"
    assert arguments[:4] == ["eval", PAIR, "--method", "my_method:StayStill"]
    done = subprocess.run(
        [*SCRIPT, *arguments], cwd=small, capture_output=True, text=True, timeout=300, check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "stay-still" in done.stdout
    out = small / arguments[arguments.index("--out") + 1]
    with open(out / "episodes.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["method"] for row in rows] == 2 * ["stay-still"]
    assert "success" not in {row["outcome"] for row in rows}  # held or not, the button is not pressed
    assert json.loads((out / "results.json").read_text())["runs"][0]["method"] == "stay-still"


@pytest.mark.parametrize("words", commands(), ids=" ".join)
def test_every_command_exists(words, capsys):
    program, *arguments = words
    if program == "make":
        if not (ROOT / "Makefile").exists():
            pytest.skip("a source distribution has no Makefile")
        makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
        assert all(re.search(rf"^{name}:", makefile, re.MULTILINE) for name in arguments)
        return
    assert program in ("dexcompose", "apt-get", "pip"), f"README.md shows a command this test doesn't know: {words}"
    if program == "dexcompose":
        count = 2 if " ".join(arguments[:2]) in cli.COMMANDS else 1
        command = resolve_name(cli.COMMANDS[" ".join(arguments[:count])])
        target = getattr(command, "command", lambda: command)()
        if not isinstance(target, type):
            target = wraps(command)(lambda *_, **__: None)
        tyro.cli(target, args=arguments[count:])  # parses; runs nothing
        with pytest.raises(SystemExit) as caught:
            cli.main([*arguments, "--help"])
        assert caught.value.code == 0


def test_the_table_lists_every_skill():
    listed = set(re.findall(r"`(DexCompose/[\w-]+-v0)`", README))
    alone = {env_id(name) for name in SKILLS}
    assert alone <= listed <= alone | {env_id("-".join(pair)) for pair in PAIRS}


def test_files_that_are_named_exist():
    for path in re.findall(r"`(dexcompose_\w+/[\w/.]+)`", README):
        assert (ROOT / path).exists(), path


def test_tables_are_those_of_the_committed_results(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    for name, text in importlib.import_module("readme_table").tables().items():
        assert text in README, f"the table of {name} is outdated; see benchmarks/readme_table.py"
