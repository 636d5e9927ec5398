import numpy as np
import pytest
import torch

from dexcompose_agents.artefacts.weights import load_weights, save_weights
from dexcompose_envs.artefacts import DATA_VERSION, ArtefactError

MANIFEST = {"kind": "stabiliser", "skill": "GraspBall", "model_hash": "abc", "nested": {"widths": [1, 2]}}


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "folder" / "weights.safetensors"
    save_weights(path, {"a": torch.linspace(-2, 2, 64).reshape(8, 8), "b": torch.tensor(3.0)}, MANIFEST)
    return path


def test_round_trip_is_exact_up_to_half_precision(file):
    tensors, manifest = load_weights(file, "stabiliser", skill="GraspBall", model_hash="abc")
    assert manifest == {**MANIFEST, "data_version": DATA_VERSION}
    assert set(tensors) == {"a", "b"}
    assert tensors["a"].dtype == torch.float32
    assert torch.equal(tensors["a"], torch.linspace(-2, 2, 64).reshape(8, 8).half().float())
    assert tensors["b"].shape == ()


def test_layout_in_memory_does_not_matter(tmp_path):
    turned = torch.arange(6.0).reshape(2, 3).T
    save_weights(tmp_path / "w.safetensors", {"a": turned}, MANIFEST)
    assert torch.equal(load_weights(tmp_path / "w.safetensors", "stabiliser")[0]["a"], turned)


def test_saving_leaves_nothing_but_the_file_and_replaces_an_older_one(file):
    save_weights(file, {"c": torch.ones(1)}, {"kind": "residual_b"})
    assert [entry.name for entry in file.parent.iterdir()] == [file.name]
    assert set(load_weights(file, "residual_b")[0]) == {"c"}


@pytest.mark.parametrize("value", [1e6, float("inf"), float("nan")])
def test_numbers_that_half_precision_cannot_hold_are_refused(tmp_path, value):
    with pytest.raises(ArtefactError, match=r"'big'.*half precision"):
        save_weights(tmp_path / "w.safetensors", {"big": torch.tensor([value])}, MANIFEST)
    assert not (tmp_path / "w.safetensors").exists()


def test_other_peoples_torch_settings_do_not_matter(file):
    expected = load_weights(file, "stabiliser")[0]
    torch.set_default_dtype(torch.float64)
    try:
        with torch.device("meta"), np.errstate(all="raise"):
            found = load_weights(file, "stabiliser")[0]
    finally:
        torch.set_default_dtype(torch.float32)
    assert found["a"].dtype == torch.float32 and torch.equal(found["a"], expected["a"])
