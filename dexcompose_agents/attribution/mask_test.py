"""The mask test: how often a pair's composite succeeds with each plausible mask, before anything is trained for one.

The method is `constant-squeeze`: pi_B as it is, and the preserved fingers a little tighter than at the reference, which
stands in for a stabiliser A that each mask would have to be trained for. Rollout `k` has the same held state and
episode seed for every mask, of the train split and below those of evaluation; nothing depends on `num_envs`. Masks
that already lose the object in the release test aren't tried.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
from gymnasium.vector import AutoresetMode

from dexcompose_agents.attribution.mask_table import (
    SETTINGS,
    TABLE,
    MaskTestConfig,
    MaskTrial,
    read_trials,
    write_trials,
)
from dexcompose_agents.diffusion.policy import BasePolicy, load_policy
from dexcompose_agents.evaluation.protocol import method_device, outcome_of
from dexcompose_agents.evaluation.until_decided import UntilDecided
from dexcompose_agents.methods.registry import make_method
from dexcompose_agents.runtime.compute import make_numpy_vec
from dexcompose_agents.runtime.progress import Advance
from dexcompose_agents.runtime.provenance import read_json, write_json
from dexcompose_agents.runtime.threads import one_thread
from dexcompose_envs import env_id
from dexcompose_envs.artefacts import difference
from dexcompose_envs.errors import UsageError
from dexcompose_envs.files import lock_folder
from dexcompose_envs.held_states import HeldStateLibrary
from dexcompose_envs.ownership import FingerMask
from dexcompose_envs.rollouts import Episode, run_episodes
from dexcompose_envs.scene import model_hash_of
from dexcompose_envs.skills import parse_pair

METHOD = "constant-squeeze"


def run_mask_test(
    pair: str,
    masks: Sequence[FingerMask],
    config: MaskTestConfig,
    out: str | Path,
    *,
    policy: BasePolicy | None = None,
    library: HeldStateLibrary | None = None,
    num_envs: int = 64,
    progress: Advance | None = None,
    make_env: Callable[..., Any] = make_numpy_vec,
    env_kwargs: dict[str, Any] | None = None,
) -> list[MaskTrial]:
    """Runs the mask test of a pair.

    Args:
        pair: "GraspBall-PushButton".
        masks: Masks to try.
        config: Settings.
        out: Folder for `mask_test.csv` (rewritten whenever a mask is through) and `mask_test.json` (settings). Masks
            that are in the table aren't run again.
        policy: pi_B; None for the one that ships.
        library: Held states of A; None for the ones that ship.
        num_envs: Worlds stepped at once; the result doesn't depend on it.
        progress: Called with (rollouts done, rollouts in all).
        make_env: Makes a vector environment that speaks NumPy, with the arguments of `make_numpy_vec`.
        env_kwargs: Further keyword arguments of the environment, such as `num_threads`.

    Returns:
        One row per mask, in the order given.

    Raises:
        UsageError: If `out` holds a test that was made from something else.
        FileError: If a file of `out` is damaged, or there are no weights or held states.
    """
    retention, interaction = parse_pair(pair)
    policy, library = policy or load_policy(interaction), library or HeldStateLibrary.load(retention)
    seeds = np.random.default_rng(config.seed).integers(0, 2**30, config.rollouts).tolist()
    plan = [Episode(seed) for seed in seeds]
    device = method_device((env_kwargs or {}).get("backend", "mujoco"), (env_kwargs or {}).get("device"))
    settings = {
        "pair": pair,
        "method": METHOD,
        "rollouts": config.rollouts,
        "seed": config.seed,
        "base_policy": getattr(policy, "weights_hash", type(policy).__name__),
        "held_states": hashlib.sha256(library.to_bytes()).hexdigest(),
        "model_hash": model_hash_of(pair),
    }
    with lock_folder(out) as folder:
        tried = _open_folder(folder, settings)
        for count, mask in enumerate(masks, 1):
            if mask not in tried:
                method = make_method(METHOD, pair, mask=mask, base_policy=policy, device=device)
                with one_thread(), ExitStack() as stack:
                    venv = make_env(
                        env_id(pair), num_envs=min(num_envs, len(plan)), autoreset_mode=AutoresetMode.DISABLED,
                        held_split="train", held_states=library, **(env_kwargs or {}),
                    )  # fmt: skip
                    stack.callback(venv.close)
                    outcomes = [outcome_of(each) for each in run_episodes(venv, method, plan, UntilDecided())]
                tried[mask] = MaskTrial.of_outcomes(mask, outcomes)
                write_trials(folder / TABLE, [tried[m] for m in FingerMask.candidates() if m in tried])
            if progress is not None:
                progress(count * config.rollouts, len(masks) * config.rollouts)
    return [tried[mask] for mask in masks]


def _open_folder(folder: Path, settings: Mapping[str, Any]) -> dict[FingerMask, MaskTrial]:
    """Masks already tried in the folder, which must have been made from the same."""
    if not (folder / TABLE).exists():
        write_json(folder / SETTINGS, settings)
        return {}
    if other := difference(read_json(folder / SETTINGS), settings, "settings"):
        raise UsageError(f"{folder} holds a mask test whose {other}; give another folder or remove the old test")
    return {trial.mask: trial for trial in read_trials(folder / TABLE)}
