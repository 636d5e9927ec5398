"""The held-state library: what is saved comes back within the bound, and what is wrong is refused in one line."""

import json
import zipfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from dexcompose_envs.held_states import (
    COLUMNS,
    HeldStateError,
    HeldStateLibrary,
    Manifest,
    dequantise,
    quantise,
)

MANIFEST = Manifest("GraspBall", "0.1.0", "model", "policy", {"hold_steps": 50}, (7, 19))


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


finite = st.floats(-1e4, 1e4, allow_subnormal=False)
tables = hnp.arrays(np.float64, hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=6), elements=finite)


@given(tables)
def test_quantising_stays_within_half_a_step(table):
    restored = dequantise(*quantise(table))
    span = table.max(axis=0) - table.min(axis=0)
    assert (np.abs(restored - table) <= span / 131070 + 1e-11).all()
    assert (restored >= table.min(axis=0)).all() and (restored <= table.max(axis=0)).all()


@given(hnp.arrays(np.float64, (1, 4), elements=finite), st.integers(1, 5))
def test_constant_components_are_exact(row, count):
    table = np.repeat(row, count, axis=0)
    np.testing.assert_array_equal(dequantise(*quantise(table)), table)


def test_quantising_by_hand():
    # 0..65535 has a step of exactly 1: codes are the values minus 32768.
    codes, limits = quantise(np.array([[0.0], [1.0], [65535.0], [32768.4]]))
    assert codes.dtype == np.int16
    assert codes[:, 0].tolist() == [-32768, -32767, 32767, 0]
    assert limits.tolist() == [[0.0], [65535.0]]
    assert dequantise(codes, limits)[:, 0].tolist() == [0.0, 1.0, 65535.0, 32768.0]


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), count=st.integers(1, 12), warmstart=st.booleans())
def test_file_round_trip_within_the_documented_bound(tmp_path_factory, seed, count, warmstart):
    columns = make_columns(count, seed, warmstart)
    path = tmp_path_factory.mktemp("held") / "states.npz"
    HeldStateLibrary.from_columns(MANIFEST, columns).save(path)
    loaded = HeldStateLibrary.load(path, env_version="0.1.0", model_hash="model")
    assert loaded.manifest == MANIFEST
    assert set(loaded.columns()) == set(columns)
    for name, column in loaded.columns().items():
        assert column.dtype == np.float64
        assert np.abs(column - columns[name]).max() <= loaded.error_bound[name] * (1 + 1e-4) + 1e-12
    np.testing.assert_allclose(np.linalg.norm(loaded.object_qpos[:, 3:], axis=1), 1.0, atol=1e-12)


def test_equal_libraries_give_equal_files(library):
    assert library.to_bytes() == HeldStateLibrary.from_columns(MANIFEST, make_columns(10)).to_bytes()


def test_4096_states_fit_in_a_megabyte_and_a_half():
    library = HeldStateLibrary.from_columns(MANIFEST, make_columns(4096))  # noise: the worst case for compression
    assert len(library.to_bytes()) <= 1.5e6


def test_splits_are_three_quarters_and_one_quarter(library):
    assert library.indices("all").tolist() == list(range(10))
    assert library.indices("train").tolist() == [0, 1, 2, 3, 4, 5, 6]  # 3 * 10 // 4 = 7
    assert library.indices("test").tolist() == [7, 8, 9]
    with pytest.raises(HeldStateError, match=r"'val'.*all, train, test"):
        library.indices("val")


def test_sampling_is_uniform_with_replacement_within_the_split(library):
    draws = library.sample(np.random.default_rng(0), "test", size=3000)
    counts = np.bincount(draws, minlength=10)
    assert counts[:7].sum() == 0
    assert (np.abs(counts[7:] - 1000) < 130).all()  # 5 standard deviations of 26
    assert library.sample(np.random.default_rng(3)).shape == ()
    with pytest.raises(HeldStateError, match="empty"):
        HeldStateLibrary.from_columns(MANIFEST, make_columns(1)).indices("train")


def test_take_gives_fresh_rows_and_the_table_is_read_only(library):
    rows = library.take([2, 2])
    rows["hand_qpos"][:] = 0
    assert library.hand_qpos[2].any()
    assert library.take(3)["object_qpos"].shape == (7,)
    with pytest.raises(ValueError, match="read-only"):
        library.hand_qpos[0] = 0
    for index in (10, -1, [0, 99]):
        with pytest.raises(HeldStateError, match=r"outside 0\.\.9"):
            library.take(index)
    with pytest.raises(HeldStateError, match="integer"):
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
        with pytest.raises(HeldStateError, match=message):
            HeldStateLibrary.from_columns(MANIFEST, columns)


def test_other_version_model_and_skill_are_refused(library, tmp_path):
    path = tmp_path / "states.npz"
    library.save(path)
    with pytest.raises(HeldStateError, match=r"env_version '0\.1\.0', expected '0\.2\.0'"):
        HeldStateLibrary.load(path, env_version="0.2.0")
    with pytest.raises(HeldStateError, match="model_hash 'model', expected 'other'"):
        HeldStateLibrary.load(path, model_hash="other")


def test_missing_files_are_named(tmp_path):
    with pytest.raises(HeldStateError, match=r"no held states for 'GraspTeapot'"):
        HeldStateLibrary.load("GraspTeapot")
    with pytest.raises(HeldStateError, match=r"no held states for .*nothing\.npz"):
        HeldStateLibrary.load(tmp_path / "nothing.npz")
    with pytest.raises(HeldStateError, match="can't read"):
        HeldStateLibrary.load(tmp_path)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_truncated_and_corrupt_files_give_one_line_or_the_same_table(data):
    library = HeldStateLibrary.from_columns(MANIFEST, make_columns(3))
    whole = library.to_bytes()
    if data.draw(st.booleans()):
        broken = whole[: data.draw(st.integers(0, len(whole) - 1))]
    else:
        at = data.draw(st.integers(0, len(whole) - 1))
        broken = whole[:at] + bytes([whole[at] ^ data.draw(st.integers(1, 255))]) + whole[at + 1 :]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pathlib.Path.read_bytes", lambda self: broken)
        try:
            loaded = HeldStateLibrary.load("states.npz")
        except HeldStateError as error:
            assert "states.npz" in str(error) and "\n" not in str(error)
        else:  # a bit that nothing reads, such as a time stamp
            np.testing.assert_allclose(loaded.hand_qpos, library.hand_qpos, atol=1e-3)


def rewrite(path, change):
    """Applies `change` to the arrays of a saved library."""
    with np.load(path) as archive:
        arrays = {name: archive[name] for name in archive.files}
    manifest = json.loads(arrays.pop("manifest").tobytes())
    change(arrays, manifest)
    np.savez(path, manifest=np.frombuffer(json.dumps(manifest).encode(), np.uint8), **arrays)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda arrays, manifest: manifest.update(format_version=9), "version 9, expected"),
        (lambda arrays, manifest: manifest.update(count=11), "manifest says 11 states"),
        (lambda arrays, manifest: manifest.pop("skill"), "corrupt"),
        (lambda arrays, manifest: arrays.pop("contact"), r"missing \['contact'\]"),
        (lambda arrays, manifest: arrays.pop("contact.range"), "'contact' isn't an int16 table"),
        (lambda arrays, manifest: arrays.update(contact=np.zeros((10, 5))), "'contact' isn't an int16 table"),
    ],
)
def test_wrong_content_is_refused(library, tmp_path, change, message):
    path = tmp_path / "states.npz"
    library.save(path)
    rewrite(path, change)
    with pytest.raises(HeldStateError, match=message):
        HeldStateLibrary.load(path)


def test_something_else_than_a_library_is_refused(tmp_path):
    path = tmp_path / "states.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme.txt", "hello")
    with pytest.raises(HeldStateError, match="corrupt"):
        HeldStateLibrary.load(path)
