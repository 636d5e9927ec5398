"""Artefacts: whatever befalls a file, it loads as what was written, or not at all, with one line that names it."""

import itertools
import os
import random

import numpy as np
import pytest

from dexcompose_envs import artefacts
from dexcompose_envs.artefacts import ArtefactError

MANIFEST = {
    "skill": "GraspBall",
    "model_hash": "885ad17812f5",
    "numbers": [0.1, 12, None, True],
    "why": 'a "word" \u03b2',
}
ARRAYS = {
    "a": np.linspace(-1, 1, 12, dtype=np.float32).reshape(3, 4),
    "b.c": np.arange(5, dtype=np.int64),
    "empty": np.zeros((0, 3), np.float16),
    "scalar": np.array(7.5),
}
KINDS = {"stabiliser": "safetensors", "held_states": "npz", "mask": "json", "checkpoint": "safetensors"}


def arrays_of(kind):
    return {} if kind == "mask" else ARRAYS


@pytest.fixture(params=KINDS)
def file(request, tmp_path):
    path = tmp_path / f"{request.param}.v2.file"
    artefacts.save(path, {"kind": request.param, **MANIFEST}, arrays_of(request.param), KINDS[request.param])
    return request.param, path


def assert_equal(found, expected):
    assert artefacts.difference(found[0], expected[0], "") is None
    assert found[1].keys() == expected[1].keys()
    for name, array in expected[1].items():
        assert found[1][name].dtype == array.dtype
        np.testing.assert_array_equal(found[1][name], array)


def refused_or_equal(path, kind, expected):
    """Whether the file is refused, in one line that names it; if it isn't, it must load as what was written."""
    try:
        found = artefacts.load(path, kind)
    except ArtefactError as error:
        assert str(path) in str(error) and "\n" not in str(error)
        return True
    assert_equal(found, expected)
    return False


def test_round_trip(file):
    kind, path = file
    manifest, arrays = artefacts.load(path, kind, skill="GraspBall", model_hash="885ad17812f5", pair=None)
    assert_equal(
        (manifest, arrays), ({"kind": kind, **MANIFEST, "data_version": artefacts.DATA_VERSION}, arrays_of(kind))
    )


def test_equal_content_gives_equal_bytes(file):
    kind, path = file
    again = artefacts.encode({"kind": kind, **MANIFEST}, arrays_of(kind), KINDS[kind])
    assert path.read_bytes() == again


def test_every_flipped_bit_of_the_header_is_noticed_or_means_nothing(file):
    """And a sample of those of the payload: 8 bits of each byte would take minutes."""
    kind, path = file
    expected, whole = artefacts.load(path, kind), path.read_bytes()
    header = range(min(len(whole), 700))
    rest = random.Random(0).sample(range(len(header), len(whole)), min(150, len(whole) - len(header)))
    refused = 0
    for at, bit in [*itertools.product(header, range(8)), *((at, at % 8) for at in rest)]:
        path.write_bytes(whole[:at] + bytes([whole[at] ^ (1 << bit)]) + whole[at + 1 :])
        refused += refused_or_equal(path, kind, expected)
    assert refused > 0.7 * 8 * len(header)  # a zip archive has times and permissions, which mean nothing


def test_truncated_and_longer_files_are_refused(file):
    kind, path = file
    whole = path.read_bytes()
    for content in (*(whole[:size] for size in range(0, len(whole) - 2, 7)), whole + b"x", b"", b"\0" * 99):
        path.write_bytes(content)
        with pytest.raises(ArtefactError, match="truncated, damaged or foreign") as error:
            artefacts.load(path, kind)
        assert str(path) in str(error.value) and "\n" not in str(error.value)


def test_swapped_arrays_and_manifests_are_noticed(tmp_path):
    """Each part is sound, but they don't belong together."""
    one, other = ({"a": np.zeros(3), "b": np.ones(3)}, {"a": np.ones(3), "b": np.zeros(3)})
    first = artefacts.encode({"kind": "held_states", "skill": "GraspBall"}, one, "safetensors")
    second = artefacts.encode({"kind": "held_states", "skill": "GraspBall"}, other, "safetensors")
    (tmp_path / "x").write_bytes(first[:-48] + second[-48:])
    with pytest.raises(ArtefactError, match="was altered or damaged: its content doesn't match its checksum"):
        artefacts.load(tmp_path / "x", "held_states")


def test_a_file_of_another_kind_is_named_for_what_it_is(file):
    kind, path = file
    for wanted in KINDS.keys() - {kind}:
        with pytest.raises(ArtefactError, match=f"a {kind} of GraspBall whose kind is '{kind}'; expected '{wanted}'"):
            artefacts.load(path, wanted)


@pytest.mark.parametrize(
    ("expected", "message"),
    [
        ({"skill": "PickStick"}, "skill is 'GraspBall'; expected 'PickStick'"),
        ({"model_hash": "0"}, "model_hash is '885ad17812f5'; expected '0'"),
        ({"mask": "TH"}, "mask is None; expected 'TH'"),
        ({"skill": "GraspBall", "numbers": [0.1, 12, None, False]}, "numbers is "),
    ],
)
def test_every_expectation_is_checked(file, expected, message):
    kind, path = file
    with pytest.raises(ArtefactError, match=message):
        artefacts.load(path, kind, **expected)


def test_another_data_version_is_refused(file, monkeypatch):
    kind, path = file
    now = artefacts.DATA_VERSION
    monkeypatch.setattr(artefacts, "DATA_VERSION", now + 1)
    with pytest.raises(ArtefactError, match=f"data_version is {now}; expected {now + 1}"):
        artefacts.load(path, kind)


def test_what_cannot_be_read_is_named(tmp_path):
    for path, reason in ((tmp_path / "none", "No such file"), (tmp_path, "Is a directory")):
        with pytest.raises(ArtefactError, match=f"can't read '{path}' .{reason}.*; expected a file of kind 'mask'"):
            artefacts.load(path, "mask")


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read everything")
def test_no_permission_is_reported(file):
    kind, path = file
    path.chmod(0)
    with pytest.raises(ArtefactError, match="Permission denied"):
        artefacts.load(path, kind)


def test_difference_says_where():
    assert artefacts.difference({"a": {"b": (1, 2)}}, {"a": {"b": [1, 2]}}, "x") is None
    assert artefacts.difference({"a": {"b": 1}}, {"a": {"b": 2}}, "x") == "x.a.b is 1; expected 2"
    assert artefacts.difference(1, 1.0, "x") == "x is 1; expected 1.0"
    assert artefacts.difference({"a": 1}, {}, "x") == "x.a is 1; expected None"
