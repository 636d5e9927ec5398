"""Files of what was learned, chosen or collected: written in one way, and trusted only after one check.

An artefact is a manifest (JSON: its kind, what it belongs to, what made it) with named arrays, which may be none. Three
containers hold it: safetensors (weights, checkpoints), `.npz` (held states) and JSON (masks). Each carries the manifest
and a SHA-256 over manifest *and* arrays, so that a file loads as what was written or not at all. What a file is used
for is compared with what its manifest says: kind, data version, skill, mask, model hash, training, whatever the caller
names. A file is known by its content, never by its name.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from dexcompose_envs.errors import FileError
from dexcompose_envs.files import atomic_write

DATA_VERSION = 2
"""What learned and collected files are made for: the meaning of states, observations and actions. It is raised when
that changes in a way that the model's hash doesn't tell, which makes every older file invalid; a release doesn't."""

Arrays = dict[str, NDArray[Any]]
Form = Literal["safetensors", "npz", "json"]

_HEAD = "artefact"
"""Name of the manifest within a container."""
_CHECKSUM = "sha256"
_END_OF_ZIP = b"PK\x05\x06", 22
"""Signature and size of the last record of a zip archive without a comment."""


class ArtefactError(FileError):
    """A file that can't be read, is damaged, or is not what it is to be used as; one line that names it."""


class NotMadeError(ArtefactError):
    """A file that nobody has made, or put where it is looked for."""


def save(path: str | Path, manifest: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]], form: Form) -> None:
    """Writes an artefact; the file appears whole or not at all.

    Args:
        path: Where it goes.
        manifest: Anything JSON can hold, with a `kind`; the data version is added.
        arrays: Arrays of numbers by name; none for "json".
        form: The container.

    Raises:
        OSError: If it can't be written.
    """
    atomic_write(path, encode(manifest, arrays, form))


def encode(manifest: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]], form: Form) -> bytes:
    """The content of an artefact's file; see `save`."""
    about = json.loads(json.dumps({**manifest, "data_version": DATA_VERSION}))
    head = json.dumps({**about, _CHECKSUM: checksum(about, arrays)}, indent=2 if form == "json" else None)
    if form == "json":
        return head.encode() + b"\n"
    if form == "npz":
        buffer = io.BytesIO()
        np.savez_compressed(buffer, allow_pickle=False, **{_HEAD: np.frombuffer(head.encode(), np.uint8)}, **arrays)
        return buffer.getvalue()
    from safetensors.numpy import save as to_safetensors

    # Row by row in memory, which safetensors takes for granted.
    content: bytes = to_safetensors({name: np.array(value, order="C") for name, value in arrays.items()}, {_HEAD: head})
    return content


def load(path: str | Path, kind: str, **expected: Any) -> tuple[dict[str, Any], Arrays]:
    """Reads an artefact of this kind and of this data version.

    Args:
        path: The file.
        kind: Such as "diffusion_policy", "held_states", "mask", "checkpoint".
        **expected: Entries that the manifest must have, such as `skill`, `pair`, `mask`, `model_hash`; None: any.

    Returns:
        The manifest, and the arrays by name.

    Raises:
        ArtefactError: If it is missing, unreadable, truncated, altered, no artefact, or another one than expected.
    """
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise ArtefactError(
            f"can't read '{path}' ({error.strerror or error}); expected a file of kind {kind!r}"
        ) from None
    try:
        head, arrays = _decode(content)
        manifest: dict[str, Any] = json.loads(head)
        claimed = manifest.pop(_CHECKSUM)
        found = checksum(manifest, arrays)
    except Exception as error:  # zip, zlib, NumPy, safetensors and JSON raise a dozen kinds on spoilt bytes
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:120]
        what = f"a file of kind {kind!r} that this package wrote"
        raise ArtefactError(f"'{path}' is truncated, damaged or foreign ({reason}); expected {what}") from None
    if claimed != found:
        raise ArtefactError(f"'{path}' was altered or damaged: its content doesn't match its checksum")
    check(manifest, f"'{path}'", kind=kind, data_version=DATA_VERSION, **expected)
    return manifest, arrays


def check(manifest: Mapping[str, Any], where: str, **expected: Any) -> None:
    """Refuses an artefact whose manifest has other entries than expected (None: any); `where` names its file.

    Raises:
        ArtefactError: With the file, what it is, and the first entry that differs.
    """
    for key, wanted in expected.items():
        found = None if wanted is None else difference(manifest.get(key), wanted, key)
        if found is not None:
            owner = manifest.get("skill") or manifest.get("pair")
            what = f"{manifest.get('kind')}{f' of {owner}' if owner else ''}"
            raise ArtefactError(f"{where} is the wrong file: a {what} whose {found}")


def difference(found: Any, wanted: Any, name: str) -> str | None:
    """The first entry in which two values differ as JSON, in words ("steps is 3; expected 4"); None if they agree."""
    if isinstance(found, Mapping) and isinstance(wanted, Mapping):
        keys = dict.fromkeys((*wanted, *found))
        return next(filter(None, (difference(found.get(key), wanted.get(key), f"{name}.{key}") for key in keys)), None)
    if _canonical(found) == _canonical(wanted):
        return None
    return f"{name} is {found!r}; expected {wanted!r}"


def _decode(content: bytes) -> tuple[str | bytes, Arrays]:
    """The manifest's text and the arrays, from whichever container it is."""
    if content.startswith(b"{"):
        return content, {}
    if content.startswith(b"PK"):
        signature, size = _END_OF_ZIP
        if content[-size:][:4] != signature:
            raise ValueError("the archive's end is missing, or something follows it")
        with np.load(io.BytesIO(content), allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
        return arrays.pop(_HEAD).tobytes(), arrays
    from safetensors.numpy import load as from_safetensors

    arrays = from_safetensors(content)
    length = int.from_bytes(content[:8], "little")
    return json.loads(content[8 : 8 + length])["__metadata__"][_HEAD], arrays


def checksum(manifest: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> str:
    """SHA-256 of the manifest and of names, types, shapes and contents of the arrays."""
    digest = hashlib.sha256(_canonical(manifest))
    for name, array in sorted(arrays.items()):
        digest.update(_canonical([name, array.dtype.str, array.shape]))
        digest.update(array.tobytes())
    return digest.hexdigest()


def _canonical(value: Any) -> bytes:
    """One text for equal JSON values."""
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()
