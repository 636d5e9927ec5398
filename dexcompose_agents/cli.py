"""The ``dexcompose`` command: every stage from demonstrations to the results table.

A command is a stage, another class with `run`, or a function, so its help text, its defaults and its documentation are
one thing; its module is imported only when it is asked for.
"""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

import tyro

from dexcompose_agents.runtime.interrupts import Paused, sigterm_interrupts
from dexcompose_agents.stages import STAGES
from dexcompose_envs.errors import DexComposeError
from dexcompose_envs.files import expand

COMMANDS = {
    "list": "dexcompose_agents.commands:list_all",
    **STAGES,
    "train all": "dexcompose_agents.stages.train_all:TrainAll",
    "eval": "dexcompose_agents.commands:Eval",
    "bench": "dexcompose_agents.commands:Bench",
    "report": "dexcompose_agents.commands:report",
    "view": "dexcompose_agents.commands:watch",
}
"""Every command and where it is; "train" is a group."""
EXIT_ERROR = 2
EXIT_INTERRUPTED = 130
EXIT_BROKEN_PIPE = 141
EXIT_TERMINATED = 143
TRACEBACK_VARIABLE = "DEXCOMPOSE_TRACEBACK"
"""Set to 1 to see the traceback of an error."""

_registry = tyro.constructors.ConstructorRegistry()


@_registry.primitive_rule
def _path(info: tyro.constructors.PrimitiveTypeInfo) -> tyro.constructors.PrimitiveConstructorSpec[Path] | None:
    """Every path on the command line may begin with a home folder."""
    if info.type is not Path:
        return None
    return tyro.constructors.PrimitiveConstructorSpec(
        nargs=1,
        metavar="PATH",
        instance_from_str=lambda words: expand(words[0]),
        is_instance=lambda value: isinstance(value, Path),
        str_from_instance=lambda path: [str(path)],
    )


def _parse_and_run(arguments: list[str]) -> Path | None:
    """Runs the command that the arguments begin with; returns what it wrote. Anything else is for the overview."""
    for words in (2, 1):
        if (name := " ".join(arguments[:words])) in COMMANDS:
            command: Any = resolve_name(COMMANDS[name])
            target = command.command() if hasattr(command, "command") else command
            result: Any = tyro.cli(target, prog=f"dexcompose {name}", args=arguments[words:], registry=_registry)
            return result.run() if isinstance(command, type) else result
    group = arguments[0] if any(name.startswith(f"{arguments[0]} ") for name in COMMANDS) else ""
    shown: dict[str, Callable[..., Any]] = {}
    for name, entry in COMMANDS.items():
        first, _, rest = name.partition(" ")
        if first == group:
            shown[rest] = resolve_name(entry)
        elif not group:
            shown[first] = _train if rest else resolve_name(entry)
    tyro.extras.subcommand_cli_from_dict(
        shown, prog=f"dexcompose {group}".strip(), args=arguments[1:] if group else arguments
    )
    raise AssertionError(f"{arguments} is no command, and no error either")


def _train() -> None:
    """Train one stage (policy, held-states, stabiliser, residual), or all of them from demonstrations up."""


def _is_expected(error: BaseException) -> bool:
    """Whether a user can cause and mend it; anything else is a defect and keeps its traceback."""
    if isinstance(error, ModuleNotFoundError):  # an optional package
        return not (error.name or "dexcompose").startswith("dexcompose")
    if isinstance(error, OSError) and (error.filename is not None or error.errno == errno.ENOSPC):
        return True
    gymnasium = sys.modules.get("gymnasium")
    return isinstance(error, DexComposeError) or (gymnasium is not None and isinstance(error, gymnasium.error.Error))


def _run(arguments: list[str]) -> int:
    with sigterm_interrupts() as terminated:
        try:
            saved_to = _parse_and_run(arguments)
        except KeyboardInterrupt as interrupt:
            saved_to = getattr(interrupt, "saved_to", None)
            there = saved_to is not None and Path(saved_to).exists()
            where = f"; saved to {saved_to}, run the same command to go on" if there else ""
            how = "paused" if isinstance(interrupt, Paused) else "interrupted"
            print(f"dexcompose: {'terminated' if terminated.is_set() else how}{where}", file=sys.stderr)
            return EXIT_TERMINATED if terminated.is_set() else EXIT_INTERRUPTED
        except BrokenPipeError:
            raise
        except Exception as error:
            if not _is_expected(error) or os.environ.get(TRACEBACK_VARIABLE):
                raise
            text = " ".join(str(error).split()) or type(error).__name__
            print(f"dexcompose: error: {text}", file=sys.stderr)
            return EXIT_ERROR
    if saved_to is not None:
        print(f"written to {saved_to}")
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Returns:
        The exit code: 0, 2 on an error (one line on stderr), 130 on Ctrl-C or when the time given is over, 143 on
        SIGTERM, 141 if nobody reads what is printed.
    """
    for stream in (sys.stdout, sys.stderr):  # a console may lack a letter; that is no reason to fail
        getattr(stream, "reconfigure", partial(str))(errors="replace")
    if "" not in sys.path:
        sys.path.append("")  # "module:Class" may lie in the working folder, which an installed script doesn't search
    try:
        try:
            return _run(list(sys.argv[1:] if arguments is None else arguments) or ["--help"])
        finally:
            sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the interpreter flushes once more
        return EXIT_BROKEN_PIPE


if __name__ == "__main__":
    sys.exit(main())
