import importlib.util
import sys
from pathlib import Path

import pytest

_spec = importlib.util.spec_from_file_location("diffusion_toy", Path(__file__).with_name("toy.py"))
toy = importlib.util.module_from_spec(_spec)
sys.modules["diffusion_toy"] = toy
_spec.loader.exec_module(toy)


@pytest.fixture(scope="session")
def trained(tmp_path_factory):
    """Weight file and manifest of the toy skill, trained for real."""
    from dexcompose_agents.diffusion.training import train
    from dexcompose_envs.scene import model_hash_of

    path = tmp_path_factory.mktemp("toy") / "PushButton.safetensors"
    manifest = train(
        toy.episodes(),
        toy.TRAINING,
        path,
        provenance={"skill": "PushButton", "model_hash": model_hash_of("PushButton")},
    )
    return path, manifest
