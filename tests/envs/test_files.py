import os
import re

import pytest

from dexcompose_envs.files import OutputFolderError, atomic_path, atomic_write, check_writable_dir


@pytest.mark.parametrize("content", ["two\r\nlines\n", b"\x00\xff"])
def test_atomic_write_replaces_the_whole_file(tmp_path, content):
    path = tmp_path / "new" / "file.csv"
    atomic_write(path, "older and longer content")
    atomic_write(path, content)
    assert path.read_bytes() == (content if isinstance(content, bytes) else content.encode())
    assert os.listdir(path.parent) == ["file.csv"]


def test_an_interrupted_write_keeps_the_old_file_and_leaves_nothing_else(tmp_path):
    path = tmp_path / "weights.safetensors"
    path.write_text("old")
    with pytest.raises(KeyboardInterrupt), atomic_path(path) as temporary:
        assert temporary.suffix == ".safetensors"
        temporary.write_text("half")
        raise KeyboardInterrupt
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["weights.safetensors"]


def test_check_writable_dir_makes_the_folder_and_leaves_it_empty(tmp_path):
    folder = check_writable_dir(tmp_path / "a" / "b")
    assert folder == tmp_path / "a" / "b"
    assert os.listdir(folder) == []


def test_check_writable_dir_names_folder_and_reason(tmp_path):
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(OutputFolderError, match="expected a writable folder") as error:
        check_writable_dir(tmp_path / "file" / "out")
    assert re.search(r"file/out' \(Not a directory\)", str(error.value))
