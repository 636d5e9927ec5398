"""The held-state library: what is saved comes back, and what is wrong is refused in one line."""

from dataclasses import asdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dexcompose_envs import artefacts
from dexcompose_envs.artefacts import ArtefactError
from dexcompose_envs.errors import UsageError
from dexcompose_envs.held_states import COLUMNS, HeldStateLibrary, Manifest

MANIFEST = Manifest("GraspBall", "model", "policy", {"hold_steps": 50}, (7, 19))


def make_columns(count, seed=0, warmstart=False):
    rng = np.random.default_rng(seed)
    widths = {name: width for name, width in COLUMNS.items() if width is not None}
    if warmstart:
        widths["warmstart"] = 34
    columns = {name: rng.normal(size=(count, width)) for name, width in widths.items()}
    columns["object_qpos"][:, 3:] /= np.linalg.norm(columns["object_qpos"][:, 3:], axis=1, keepdims=True)
    return columns


@pytest.fixture
def library():
    return HeldStateLibrary.from_columns(MANIFEST, make_columns(10))


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), count=st.integers(1, 12), warmstart=st.booleans())
def test_a_file_holds_the_table_in_single_precision(tmp_path_factory, seed, count, warmstart):
    columns = make_columns(count, seed, warmstart)
    path = tmp_path_factory.mktemp("held") / "states.npz"
    HeldStateLibrary.from_columns(MANIFEST, columns).save(path)
    loaded = HeldStateLibrary.load(path, skill="GraspBall", model_hash="model")
    assert loaded.manifest == MANIFEST
    assert set(loaded.columns()) == set(columns)
    for name, column in loaded.columns().items():
        assert column.dtype == np.float64
        if name == "object_qpos":  # the quaternion is normalised again
            np.testing.assert_allclose(column, columns[name], rtol=2e-7, atol=1e-7)
        else:
            np.testing.assert_array_equal(column, columns[name].astype(np.float32))
    np.testing.assert_allclose(np.linalg.norm(loaded.object_qpos[:, 3:], axis=1), 1.0, atol=1e-12)


def test_equal_libraries_give_equal_files(library):
    assert library.to_bytes() == HeldStateLibrary.from_columns(MANIFEST, make_columns(10)).to_bytes()


def test_4096_states_fit_in_four_megabytes():
    library = HeldStateLibrary.from_columns(MANIFEST, make_columns(4096))  # noise: the worst case for compression
    assert len(library.to_bytes()) <= 4e6


def test_splits_are_three_quarters_and_one_quarter(library):
    assert library.indices("all").tolist() == list(range(10))
    assert library.indices("train").tolist() == [0, 1, 2, 3, 4, 5, 6]  # 3 * 10 // 4 = 7
    assert library.indices("test").tolist() == [7, 8, 9]
    with pytest.raises(UsageError, match=r"'val'.*all, train, test"):
        library.indices("val")


def test_sampling_is_uniform_with_replacement_within_the_split(library):
    draws = library.sample(np.random.default_rng(0), "test", size=3000)
    counts = np.bincount(draws, minlength=10)
    assert counts[:7].sum() == 0
    assert (np.abs(counts[7:] - 1000) < 130).all()  # 5 standard deviations of 26
    assert library.sample(np.random.default_rng(3)).shape == ()
    with pytest.raises(UsageError, match="empty"):
        HeldStateLibrary.from_columns(MANIFEST, make_columns(1)).indices("train")


def test_take_gives_fresh_rows_and_the_table_is_read_only(library):
    rows = library.take([2, 2])
    rows["hand_qpos"][:] = 0
    assert library.hand_qpos[2].any()
    assert library.take(3)["object_qpos"].shape == (7,)
    with pytest.raises(ValueError, match="read-only"):
        library.hand_qpos[0] = 0
    for index in (10, -1, [0, 99]):
        with pytest.raises(UsageError, match=r"outside 0\.\.9"):
            library.take(index)
    with pytest.raises(UsageError, match="integer"):
        library.take(0.5)


def test_wrong_tables_are_refused():
    good = make_columns(4)
    cases = {
        r"missing \['contact'\]": {name: value for name, value in good.items() if name != "contact"},
        r"unknown \['colour'\]": {**good, "colour": np.zeros((4, 3))},
        r"'reference' has shape \(4, 21\), expected \(count, 22\)": {**good, "reference": np.zeros((4, 21))},
        r"'contact' has 3 rows, expected 4": {**good, "contact": np.zeros((3, 5))},
        r"'control' .*isn't finite in row 0": {**good, "control": np.full((4, 28), np.nan)},
        r"quaternion with norm 0": {**good, "object_qpos": np.zeros((4, 7))},
        r"table is empty": {name: value[:0] for name, value in good.items()},
    }
    for message, columns in cases.items():
        with pytest.raises(UsageError, match=message):
            HeldStateLibrary.from_columns(MANIFEST, columns)


def test_another_skill_or_model_is_refused_from_a_file_and_in_memory(library, tmp_path):
    path = tmp_path / "states.npz"
    library.save(path)
    with pytest.raises(
        ArtefactError, match=r"states\.npz.* of GraspBall whose skill is 'GraspBall'; expected 'PickStick'"
    ):
        HeldStateLibrary.load(path, skill="PickStick")
    with pytest.raises(ArtefactError, match="model_hash is 'model'; expected 'other'"):
        HeldStateLibrary.load(path, model_hash="other")
    with pytest.raises(ArtefactError, match=r"held-state library .*skill is 'GraspBall'; expected 'PickStick'"):
        library.check(skill="PickStick")
    with pytest.raises(ArtefactError, match="model_hash is 'model'; expected 'other'"):
        library.check(skill="GraspBall", model_hash="other")
    library.check(skill="GraspBall", model_hash="model")


def test_missing_files_are_named(tmp_path):
    with pytest.raises(ArtefactError, match=r"no held states for 'GraspTeapot'; shipped: GraspBall, Pick"):
        HeldStateLibrary.load("GraspTeapot")
    with pytest.raises(ArtefactError, match=r"no held states for .*nothing\.npz"):
        HeldStateLibrary.load(tmp_path / "nothing.npz")


def test_a_folder_of_libraries_knows_each_by_its_skill(library, tmp_path, monkeypatch):
    library.save(tmp_path / "PickStick.npz")
    monkeypatch.setenv("DEXCOMPOSE_HELD_STATES", str(tmp_path))
    with pytest.raises(ArtefactError, match="skill is 'GraspBall'; expected 'PickStick'"):
        HeldStateLibrary.load("PickStick")


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"hand_qpos": np.zeros((2, 28), np.float32)}, r"holds no usable held states \(.*missing \['contact'"),
        ({**make_columns(2), "contact": np.zeros((3, 5))}, "'contact' has 3 rows, expected 2"),
    ],
)
def test_a_sound_file_with_a_wrong_table_is_refused(tmp_path, columns, message):
    path = tmp_path / "states.npz"
    artefacts.save(path, {"kind": "held_states", **asdict(MANIFEST)}, columns, "npz")
    with pytest.raises(ArtefactError, match=message) as error:
        HeldStateLibrary.load(path)
    assert str(path) in str(error.value)
