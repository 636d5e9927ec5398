"""A results folder in shares: one pair's episodes in a folder of their own while a process works on them."""

from __future__ import annotations

import shutil
from dataclasses import astuple
from pathlib import Path

from dexcompose_agents.evaluation.manifest import Manifest
from dexcompose_agents.evaluation.records import (
    EPISODE_COLUMNS,
    EPISODES_FILE,
    append_episode,
    as_csv,
    read_folder,
    tidy_episodes,
)
from dexcompose_agents.evaluation.results import write_results
from dexcompose_envs.files import atomic_write

SHARES = "work"


def share_of(folder: Path, pair: str) -> Path:
    """Makes a folder with all that a results folder has of a pair, and returns it; take it back with `take_back`."""
    share = folder / SHARES / pair
    records, manifest = read_folder(folder, must_exist=False)
    share.mkdir(parents=True)
    Manifest({run: entry for run, entry in manifest.runs.items() if run.split("/")[0] == pair}).save(share)
    rows = [astuple(record) for record in records if record.pair == pair]
    atomic_write(share / EPISODES_FILE, as_csv([EPISODE_COLUMNS, *rows]))
    return share


def take_back(folder: Path) -> None:
    """Enters what all shares hold, those of a process that was killed too, and removes them.

    Raises:
        FileError: If a file is damaged; nothing is removed then.
    """
    shares = sorted((folder / SHARES).glob("*/"))
    if not shares:
        return
    records, manifest = read_folder(folder, must_exist=False)
    known = {(record.run, record.episode_seed) for record in records}
    held = [read_folder(share, must_exist=False) for share in shares]
    for _, its in held:
        manifest.runs |= its.runs
    manifest.save(folder)
    tidy_episodes(folder)
    for record in (record for more, _ in held for record in more):
        if (record.run, record.episode_seed) not in known:
            append_episode(folder, record)
    tidy_episodes(folder)
    write_results(folder)
    shutil.rmtree(folder / SHARES)
