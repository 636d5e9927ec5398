import errno
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from dexcompose_envs import files
from dexcompose_envs.errors import DexComposeError, UsageError
from dexcompose_envs.files import OutputError, atomic_path, atomic_write, check_writable_dir, expand, lock_folder


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


@pytest.fixture
def tiny_disk(tmp_path):
    """A file system of 64 kB; skipped where nothing may be mounted."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)]
    try:
        mounted = subprocess.run(mount, capture_output=True, check=False).returncode == 0
    except OSError:
        mounted = False
    if not mounted:
        pytest.skip("no right to mount a file system")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_names_the_file_and_keeps_the_old_one(tiny_disk):
    path = tiny_disk / "weights.bin"
    atomic_write(path, b"old")
    with pytest.raises(OutputError, match=r"can't write '.*weights\.bin' \(No space left on device\)") as caught:
        atomic_write(path, bytes(1_000_000))
    assert caught.value.errno == errno.ENOSPC
    assert os.listdir(tiny_disk) == ["weights.bin"] and path.read_bytes() == b"old"


def test_a_failed_write_names_the_file_where_no_disk_can_be_mounted(tmp_path, monkeypatch):
    def full(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OutputError, match=r"can't write '.*table\.csv' \(No space left on device\)"):
        atomic_write(tmp_path / "table.csv", "a,b\n")
    assert os.listdir(tmp_path) == []


def test_a_blocked_path_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match=r"can't write '.*file/table\.csv' \((Not a directory|File exists)\)"):
        atomic_write(tmp_path / "file" / "table.csv", "")
    (tmp_path / "folder").mkdir()
    with pytest.raises(OutputError, match=r"can't write '.*folder' \(Is a directory\)"):
        atomic_write(tmp_path / "folder", "")


def test_errors_about_other_files_pass_as_they_are(tmp_path):
    with pytest.raises(FileNotFoundError) as caught, atomic_path(tmp_path / "out"):
        (tmp_path / "missing").read_bytes()
    assert not isinstance(caught.value, DexComposeError)


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="root may write anywhere")
def test_no_permission_is_named(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(OutputError, match=r"can't write '.*x' \(Permission denied\)"):
        atomic_write(tmp_path / "x", "")


def test_check_writable_dir_makes_the_folder_and_leaves_it_empty(tmp_path):
    folder = check_writable_dir(tmp_path / "a" / "b")
    assert folder == tmp_path / "a" / "b"
    assert os.listdir(folder) == []


def test_check_writable_dir_names_folder_and_reason(tmp_path):
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(OutputError, match="expected a writable folder") as error:
        check_writable_dir(tmp_path / "file" / "out")
    assert re.search(r"file/out' \(Not a directory\)", str(error.value))
    assert isinstance(error.value, DexComposeError) and isinstance(error.value, OSError)


def test_home_folders(monkeypatch):
    monkeypatch.setenv("HOME", "/home/somebody")
    assert expand("~/runs") == Path("/home/somebody/runs")
    assert expand("a/~/b") == Path("a/~/b")
    with pytest.raises(UsageError, match="'~nobody-at-all/x' names a home folder that can't be found"):
        expand("~nobody-at-all/x")


HOLD = """
import sys
from dexcompose_envs.files import lock_folder
with lock_folder(sys.argv[1]):
    print("locked", flush=True)
    sys.stdin.readline()
"""


@pytest.fixture
def holder(tmp_path):
    """Another process that holds the lock of `tmp_path`."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "locked\n"
    yield process
    process.kill()
    process.communicate()


@pytest.mark.skipif(os.name == "nt", reason="POSIX locks")
@pytest.mark.parametrize("end", ["exit", "crash"])
def test_a_second_process_is_refused_until_the_first_is_gone(tmp_path, holder, end):
    with (
        pytest.raises(UsageError, match=re.escape(f"another process is writing to '{tmp_path}'")),
        lock_folder(tmp_path),
    ):
        pass
    if end == "exit":
        holder.communicate("\n")
    else:
        holder.send_signal(signal.SIGKILL)
        holder.wait()
    with lock_folder(tmp_path) as folder:
        assert folder == tmp_path
    assert os.listdir(tmp_path) == []


def test_a_process_may_lock_a_folder_again(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with lock_folder(tmp_path / "new"), lock_folder("new"):
        assert (tmp_path / "new" / files.LOCK_FILE).exists()
    assert os.listdir(tmp_path / "new") == []


def test_without_locks_there_is_a_note(tmp_path, monkeypatch):
    fcntl = pytest.importorskip("fcntl")

    def no_locks(*_):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", no_locks)
    with pytest.warns(RuntimeWarning, match="without locks"), lock_folder(tmp_path):
        pass
    monkeypatch.undo()
    with lock_folder(tmp_path):
        pass
