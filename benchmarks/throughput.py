"""Control steps per second, each against what it should be compared with.

    python benchmarks/throughput.py --out FILE.json              native MuJoCo: environment against bare `mj_step`
    python benchmarks/throughput.py warp --out FILE.json         a GPU: bare physics, environment, policies, PPO
    python benchmarks/throughput.py scenes --out FILE.json       native MuJoCo: every pair against the first
    python benchmarks/throughput.py robotics --out FILE.json     the CPU environment against gymnasium-robotics

The file is rewritten with every row, so a run that is cut short keeps what it has. Numbers mean something on an idle
machine only; its load is in the file.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import asdict
from typing import Annotated, Any

import throughput_cpu
import throughput_gymnasium_robotics
import throughput_scenes
import throughput_warp
import tyro
from rich.console import Console
from throughput_common import provenance
from tyro.conf import subcommand

from dexcompose_agents.runtime.provenance import write_json

MODES = {
    "cpu": throughput_cpu,
    "scenes": throughput_scenes,
    "warp": throughput_warp,
    "robotics": throughput_gymnasium_robotics,
}
Config = (
    Annotated[throughput_cpu.CpuConfig, subcommand("cpu")]
    | Annotated[throughput_scenes.ScenesConfig, subcommand("scenes")]
    | Annotated[throughput_warp.WarpConfig, subcommand("warp")]
    | Annotated[throughput_gymnasium_robotics.RoboticsConfig, subcommand("robotics")]
)


def main(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    """Measures, prints and writes; see the module's docstring.

    Args:
        arguments: Command line; None takes the program's.

    Returns:
        What the JSON file holds.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    if not words or words[0] not in {*MODES, "-h", "--help"}:
        words = ["cpu", *words]
    config: Any = tyro.cli(Config, args=words, description=__doc__)
    module: Any = MODES[words[0]]
    # Noted before the work, whose own load says nothing about the machine.
    origin = provenance(getattr(config, "device", None))
    settings = {name: value for name, value in asdict(config).items() if name != "out"}
    rows: list[dict[str, Any]] = []
    result = {"mode": words[0], "settings": settings, "rows": rows, **origin}
    for row in module.measure(config):
        rows.append(row)
        if config.out is not None:
            write_json(config.out, result)
    console = Console(width=150)
    console.print(module.table(config, rows))
    console.print(f"machine: {origin['machine']}", soft_wrap=True)
    return result


if __name__ == "__main__":
    main()
