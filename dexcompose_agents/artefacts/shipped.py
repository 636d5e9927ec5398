"""Where the masks and weights that ship with the package are found, and which mask a method is to use."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from dexcompose_agents.artefacts.pretrained_files import pretrained_folder
from dexcompose_envs import parse_chain
from dexcompose_envs.ownership import FingerMask

__all__ = ["ShippedFileError", "choose_mask", "residual_path", "stabiliser_path"]

DEFAULT_SELECTOR = "utility"
GIVEN = "given"
"""Name in the ``selector`` column for a mask that was written out rather than selected."""


class ShippedFileError(ValueError):
    """A shipped file that is missing or does not say what it should; one line."""


def _read_mask(path: Path) -> tuple[FingerMask, str]:
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return FingerMask.parse(content["mask"]), str(content.get("selector", DEFAULT_SELECTOR))
    except OSError as error:
        expected = "expected a file of 'dexcompose select-mask'"
        raise ShippedFileError(f"can't read mask selection '{path}' ({error.strerror or error}); {expected}") from None
    except (UnicodeDecodeError, json.JSONDecodeError, KeyError, TypeError, AttributeError) as error:
        raise ShippedFileError(f"'{path}' is not a mask selection ({type(error).__name__}: {error})") from None


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
        ShippedFileError: If there is no such file, or it is not a mask selection.
        ValueError: If the mask is malformed.
    """
    if mask is not None:
        if isinstance(mask, Path) or (isinstance(mask, str) and mask.endswith(".json")):
            found, stored = _read_mask(Path(mask))
            return found, selector or stored
        return FingerMask.parse(mask), selector or GIVEN
    folder = pretrained_folder() / "masks"
    default = folder / f"{pair}.json"
    if default.is_file():
        found, stored = _read_mask(default)
        if selector in (None, stored):
            return found, stored
    if selector is not None and (other := folder / f"{pair}-{selector}.json").is_file():
        return _read_mask(other)[0], selector
    wanted = f"of selector '{selector}' " if selector is not None else ""
    raise ShippedFileError(
        f"no mask {wanted}ships for {pair}; make one with 'dexcompose select-mask {pair}' and pass it as the mask"
    )


def stabiliser_path(pair: str) -> Path:
    """Weights of stabiliser A: those of the pair where they exist, else those of the retention skill.

    Raises:
        ShippedFileError: If neither file exists.
    """
    names = [f"stabiliser-{pair}.safetensors", f"stabiliser-{parse_chain(pair)[0]}.safetensors"]
    return _existing(names, f"stabiliser for {pair}", pair)


def residual_path(pair: str) -> Path:
    """Weights of residual B of a pair.

    Raises:
        ShippedFileError: If the file does not exist.
    """
    return _existing([f"residual-{pair}.safetensors"], f"residual for {pair}", pair)


def _existing(names: list[str], what: str, pair: str) -> Path:
    for name in names:
        if (path := pretrained_folder() / name).is_file():
            return path
    raise ShippedFileError(
        f"no {what} in '{pretrained_folder()}' (looked for {', '.join(names)}); "
        f"make one with 'dexcompose train all --only {pair}' and use it with --pretrained"
    )
