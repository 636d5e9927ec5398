"""Where weights and masks are found: in the package, or in a folder that somebody trained; and what they must say."""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import resources
from pathlib import Path

from dexcompose_envs import artefacts, pair_names, parse_chain
from dexcompose_envs.artefacts import NotMadeError
from dexcompose_envs.errors import UsageError
from dexcompose_envs.held_states import FOLDER_VARIABLE as HELD_STATES_VARIABLE
from dexcompose_envs.ownership import FingerMask
from dexcompose_envs.scene import model_hash_of

SUMMARY_FILE = "pipeline.json"
"""What the stages of an output folder took, with which preset, on which machine, with which software."""
PRETRAINED_VARIABLE = "DEXCOMPOSE_PRETRAINED"
"""Environment variable: folder of weights and masks to use instead of those that ship."""
DEFAULT_SELECTOR = "utility"
"""Whose choice ships as a pair's mask."""


def pretrained_folder() -> Path:
    """Folder of weights and masks: the one in ``DEXCOMPOSE_PRETRAINED``, else the one that ships with the package.

    Raises:
        UsageError: If the variable does not name a folder.
    """
    chosen = os.environ.get(PRETRAINED_VARIABLE)
    if not chosen:
        return Path(str(resources.files("dexcompose_agents"))) / "pretrained"
    if not Path(chosen).is_dir():
        raise UsageError(f"{PRETRAINED_VARIABLE} is {chosen!r}; expected a folder with weights and masks")
    return Path(chosen)


def policy_path(skill: str) -> Path:
    """Weights of a skill's base policy; NotMadeError if there are none."""
    return _existing([skill], f"trained weights of {skill}", f"dexcompose train policy {skill}")


def stabiliser_path(pair: str) -> Path:
    """Weights of stabiliser A: those of the pair, else those of the retention skill; NotMadeError if neither exist."""
    names = [f"stabiliser-{pair}", f"stabiliser-{parse_chain(pair)[0]}"]
    return _existing(names, f"stabiliser for {pair}", f"dexcompose train all --only {pair}")


def residual_path(pair: str) -> Path:
    """Weights of residual B of a pair; NotMadeError if there are none."""
    return _existing([f"residual-{pair}"], f"residual for {pair}", f"dexcompose train all --only {pair}")


def _existing(names: list[str], what: str, command: str) -> Path:
    paths = [pretrained_folder() / f"{name}.safetensors" for name in names]
    for path in paths:
        if path.is_file():
            return path
    looked = ", ".join(path.name for path in paths)
    raise NotMadeError(f"no {what} in '{pretrained_folder()}' (looked for {looked}); make one with: {command}")


def choose_mask(
    pair: str, mask: str | FingerMask | Path | None = None, selector: str | None = None
) -> tuple[FingerMask, str]:
    """The mask to use on a pair, and the name of the selector that chose it.

    Args:
        pair: "GraspBall-PushButton".
        mask: A mask ("TH+MF+RF"), or the path of a JSON file written by ``dexcompose select-mask``; by default the
            mask that ships for the pair.
        selector: Name for the results table with a written mask; otherwise the selector whose shipped mask is
            wanted, from ``masks/<pair>.json`` or ``masks/<pair>-<selector>.json``.

    Raises:
        NotMadeError: If there is no such file.
        ArtefactError: If it is not a mask selection of this pair and its model.
        ValueError: If the mask is malformed.
    """
    if isinstance(mask, Path) or (isinstance(mask, str) and mask.endswith(".json")):
        found, stored = _read_mask(Path(mask).expanduser(), pair)
        return found, selector or stored
    if mask is not None:
        return FingerMask.parse(mask), selector or "given"
    folder = pretrained_folder() / "masks"
    default = folder / f"{pair}.json"
    if default.is_file():
        found, stored = _read_mask(default, pair)
        if selector in (None, stored):
            return found, stored
    if selector is not None and (other := folder / f"{pair}-{selector}.json").is_file():
        return _read_mask(other, pair)[0], selector
    wanted = f"no mask {f'of selector {selector!r} ' if selector is not None else ''}ships for {pair}"
    raise NotMadeError(f"{wanted}; make one with 'dexcompose select-mask {pair}' and pass it as the mask")


def masks_of(skill: str) -> tuple[FingerMask, ...]:
    """The masks that are there for a retention skill's pairs; ArtefactError if there is none, or one is damaged."""
    pairs = [pair for pair in pair_names() if parse_chain(pair)[0] == skill]
    chosen = [pair for pair in pairs if (pretrained_folder() / "masks" / f"{pair}.json").is_file()] or pairs[:1]
    return tuple(dict.fromkeys(choose_mask(pair)[0] for pair in chosen))


def _read_mask(path: Path, pair: str) -> tuple[FingerMask, str]:
    manifest, _ = artefacts.load(path, "mask", pair=pair, model_hash=model_hash_of(pair))
    return FingerMask.parse(manifest["mask"]), str(manifest["selector"])


def file_hash(path: Path) -> str:
    """SHA-256 of a file, first 16 hex digits."""
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]


@contextmanager
def trained_in(folder: Path | None) -> Iterator[None]:
    """Uses weights, masks and held states of an output folder of ``dexcompose train all`` within the block.

    Args:
        folder: Folder that holds ``pretrained`` and ``held_states``; None changes nothing.

    Raises:
        UsageError: If the folder holds no such two.
    """
    chosen: dict[str, str] = {}
    if folder is not None:
        folders = {PRETRAINED_VARIABLE: "pretrained", HELD_STATES_VARIABLE: "held_states"}
        chosen = {variable: str(folder.absolute() / name) for variable, name in folders.items()}
        missing = [path for path in chosen.values() if not Path(path).is_dir()]
        if missing:
            raise UsageError(f"no folder '{missing[0]}'; expected an output folder of 'dexcompose train all'")
        _warn_of_test_weights(folder)
    before = dict(os.environ)
    os.environ.update(chosen)
    try:
        yield
    finally:
        for name in chosen:
            del os.environ[name]
        os.environ.update({name: before[name] for name in chosen if name in before})


def _warn_of_test_weights(folder: Path) -> None:
    """Says on stderr that results mean nothing if the folder was made with the preset "test"."""
    try:
        preset = json.loads((folder / SUMMARY_FILE).read_text(encoding="utf-8"))["preset"]
    except (OSError, ValueError, KeyError, TypeError):
        return  # a folder put together by hand
    if preset == "test":
        print(f"warning: '{folder}' was made with preset 'test': its weights learned nothing", file=sys.stderr)
