import json

import pytest
import torch
from safetensors.torch import save_file

from dexcompose_agents.artefacts.weights import WeightsError, load_weights, save_weights

MANIFEST = {"kind": "test", "steps": 7, "nested": {"widths": [1, 2]}}


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "folder" / "weights.safetensors"
    save_weights(path, {"a": torch.linspace(-2, 2, 64).reshape(8, 8), "b": torch.zeros(3)}, MANIFEST)
    return path


def test_round_trip_is_exact_up_to_half_precision(file):
    tensors, manifest = load_weights(file)
    assert manifest == MANIFEST
    assert set(tensors) == {"a", "b"}
    expected = torch.linspace(-2, 2, 64).reshape(8, 8).half().float()
    assert tensors["a"].dtype == torch.float32
    assert torch.equal(tensors["a"], expected)


def test_saving_leaves_nothing_but_the_file_and_replaces_an_older_one(file):
    save_weights(file, {"c": torch.ones(1)}, {})
    assert [entry.name for entry in file.parent.iterdir()] == [file.name]
    assert set(load_weights(file)[0]) == {"c"}


@pytest.mark.parametrize("keep", [0, 5, 60, -1])
def test_truncated_file_is_refused_in_one_line(file, keep):
    file.write_bytes(file.read_bytes()[:keep])
    with pytest.raises(WeightsError, match="truncated or corrupt") as error:
        load_weights(file)
    assert str(file) in str(error.value)
    assert "\n" not in str(error.value)


def test_flipped_byte_is_noticed(file):
    content = bytearray(file.read_bytes())
    content[-20] ^= 1
    file.write_bytes(content)
    with pytest.raises(WeightsError, match="checksum"):
        load_weights(file)


def test_missing_file_and_foreign_file(tmp_path):
    with pytest.raises(WeightsError, match=r"can't read .*nothing\.safetensors"):
        load_weights(tmp_path / "nothing.safetensors")
    foreign = tmp_path / "foreign.safetensors"
    save_file({"a": torch.zeros(2)}, foreign)
    with pytest.raises(WeightsError, match="no manifest"):
        load_weights(foreign)


@pytest.mark.parametrize("value", [1e6, float("inf"), float("nan")])
def test_numbers_that_half_precision_cannot_hold_are_refused(tmp_path, value):
    with pytest.raises(WeightsError, match=r"'big'.*half precision"):
        save_weights(tmp_path / "w.safetensors", {"big": torch.tensor([value])}, {})
    assert not (tmp_path / "w.safetensors").exists()


def test_manifest_stays_json(file):
    json.dumps(load_weights(file)[1])
