"""The manifest of a results folder: what configuration its episodes come from, on which machine, with what software.

A folder may hold several runs, one per (pair, method, selector). A run may be resumed or extended by more seeds, as
long as everything that can change the outcome of an episode is unchanged; ``num_envs`` and the number of seeds and
rollouts cannot, so they are not part of the comparison.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dexcompose_agents.runtime.provenance import machine_info, read_json, software_versions, write_json
from dexcompose_envs.artefacts import checksum, difference
from dexcompose_envs.checks import real_number, whole_number
from dexcompose_envs.errors import FileError, UsageError

MANIFEST_FILE = "manifest.json"
MANIFEST_FORMAT = 1


class EvaluationError(UsageError):
    """An evaluation that cannot be run or resumed; the message is one line."""


def config_hash(config: Mapping[str, Any]) -> str:
    """First 16 hex digits of the SHA-256 of a configuration."""
    return checksum(config, {})[:16]


def _checked(key: str, entry: Any) -> dict[str, Any]:
    """A run of a manifest; raises whatever error comes of it not being one."""
    config, plan, machine = entry["config"], entry["plan"], entry["machine"]
    for name, numbers in (("seeds", plan), ("rollouts", plan), ("num_envs", plan), ("cores", machine)):
        whole_number(name, numbers[name])
    real_number("wall_time_s", entry["wall_time_s"], 0.0, math.inf)
    if not all(isinstance(text, str) for text in (machine["cpu"], machine["system"], *entry["versions"].values())):
        raise ValueError("a version, or the machine, is not text")
    if key.split("/")[:2] != [config["pair"], config["method"]["name"]] or key.count("/") != 2:
        raise ValueError("it has the configuration of another run")
    if entry["config_hash"] != config_hash(config):
        raise ValueError("its configuration does not fit its hash")
    return dict(entry)


@dataclass
class Manifest:
    """The manifest of one folder.

    Attributes:
        runs: ``{"pair/method/selector": {"config", "config_hash", "plan", "wall_time_s", "versions", "machine"}}``.
    """

    runs: dict[str, dict[str, Any]] = field(default_factory=dict)

    @classmethod
    def load(cls, folder: Path) -> Manifest:
        """Read ``folder/manifest.json``; an absent file is an empty manifest, a spoilt one a FileError."""
        path = folder / MANIFEST_FILE
        if not path.exists():
            return cls()
        content, key = read_json(path), ""
        try:
            if content["format"] != MANIFEST_FORMAT:
                raise ValueError(f"it has format {content['format']!r}, expected {MANIFEST_FORMAT}")
            return cls({(key := name): _checked(name, entry) for name, entry in content["runs"].items()})
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            what = f"{error} is missing" if isinstance(error, KeyError) else error
            raise FileError(f"'{path}' is not a manifest: {f'run {key!r}: ' if key else ''}{what}") from None

    def save(self, folder: Path) -> None:
        """Write ``folder/manifest.json``."""
        write_json(folder / MANIFEST_FILE, {"format": MANIFEST_FORMAT, "runs": self.runs})

    def register(self, key: str, config: Mapping[str, Any], plan: Mapping[str, int], folder: Path) -> None:
        """Enter a run, or check that the run already there was made with the same ``config``; its plan only grows.

        Args:
            key: "pair/method/selector".
            config: Everything that can change the outcome of an episode.
            plan: What may change between resumptions: seeds, rollouts, ``num_envs``.
            folder: Where the manifest lives, for the message.

        Raises:
            EvaluationError: If the configurations differ; the message names the first field that does.
        """
        stored = self.runs.get(key, {"config": config, "plan": plan, "wall_time_s": 0.0})
        if changed := difference(stored["config"], config, "config"):
            raise EvaluationError(
                f"'{folder}' has episodes of {key} whose {changed}; choose another folder or delete this one"
            )
        grown = {name: max(plan[name], stored["plan"][name]) for name in ("seeds", "rollouts")}
        self.runs[key] = {
            "config": dict(config),
            "config_hash": config_hash(config),
            "plan": {**plan, **grown},
            "wall_time_s": stored["wall_time_s"],
            "versions": software_versions(),
            "machine": machine_info(),
        }
