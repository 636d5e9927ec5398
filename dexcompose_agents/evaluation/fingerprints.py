"""What a run's episodes depend on, as data: physics, starts and method; resuming needs all of it to be unchanged."""

from __future__ import annotations

import hashlib
import inspect
import json
import secrets
import sys
from collections.abc import Iterable, Mapping
from importlib import metadata, resources
from pathlib import Path
from typing import Any

from dexcompose_agents.evaluation.manifest import EvaluationError
from dexcompose_agents.methods.base import CompositionMethod
from dexcompose_envs import parse_chain
from dexcompose_envs.artefacts import DATA_VERSION, checksum
from dexcompose_envs.held_states import HeldStateLibrary
from dexcompose_envs.scene import model_hash_of

_OWN_SOURCE = "dexcompose_envs.composition"
"""Others' methods may use it as well."""


def environment_fingerprint(pair: str, held_states: Any = None) -> dict[str, Any]:
    """What decides the physics and the starts of a pair: data version, hashes of the model and of the held states.

    Args:
        pair: "GraspBall-PushButton".
        held_states: The environment's option: a library or its file; None for the one that ships.
    """
    library: Any = parse_chain(pair)[0] if held_states is None else held_states
    if not isinstance(library, HeldStateLibrary):
        library = HeldStateLibrary.load(library)
    return {
        "data_version": DATA_VERSION,
        "model_hash": model_hash_of(pair),
        "held_states": checksum({"skill": library.skill}, library.columns())[:16],
    }


def run_config(
    pair: str, method: CompositionMethod, env: Mapping[str, Any], options: Mapping[str, Any]
) -> dict[str, Any]:
    """Everything that can change the outcome of an episode.

    Args:
        pair: "GraspBall-PushButton".
        method: The method; a ``describe()`` says what it was made from, else ``options`` has to. The source of its
            ``parts``, if it has such, counts as its own.
        env: Fingerprint and options of the environment.
        options: What the method was made with.

    Raises:
        EvaluationError: If ``describe()`` gives anything but a dict that JSON can hold.
    """
    describe = getattr(method, "describe", None)
    made = describe() if describe is not None else {name: repr(value) for name, value in sorted(options.items())}
    try:
        made = json.loads(json.dumps({**made}, allow_nan=False))
    except (TypeError, ValueError) as error:
        raise EvaluationError(f"describe() of method '{method.name}' gives no dict for JSON: {error}") from None
    parts = [type(part) for part in getattr(method, "parts", ())]
    own = _hash(Path(str(resources.files(_OWN_SOURCE))).glob("*.py"))
    return {
        "pair": pair,
        "env": {key: value if isinstance(value, (str, int, float)) else repr(value) for key, value in env.items()},
        "method": {**made, "name": method.name, "source": class_source(type(method), *parts), "composition": own},
        "episode_seed": "2**30 + seed * 2**17 + rollout",
        "mujoco": metadata.version("mujoco"),
    }


def class_source(*classes: type) -> str:
    """Hash of the modules that classes and their bases are written in, other than the standard library's."""
    modules = {base.__module__ for cls in classes for base in cls.__mro__}
    own = [name for name in modules if name == "__main__" or name.partition(".")[0] not in sys.stdlib_module_names]
    try:
        return _hash(Path(inspect.getsourcefile(sys.modules[name]) or "") for name in own)
    except (KeyError, TypeError, OSError):  # typed at a prompt: no two can be told to be the same
        return f"unreadable {secrets.token_hex(4)}"


def _hash(paths: Iterable[Path]) -> str:
    digest = hashlib.sha256()
    for path in sorted(paths):
        digest.update(path.name.encode() + b"\0" + b"\n".join(path.read_bytes().splitlines()) + b"\0")
    return digest.hexdigest()[:16]
