import errno
import multiprocessing
import os
import shutil
from pathlib import Path

import pytest

from ultralytics_sgdm.configs import ConfigError
from ultralytics_sgdm.data import files


def test_a_file_with_the_same_content_is_not_written_again(tmp_path):
    file = tmp_path / "a"
    files.write_file(file, b"one")
    before = file.stat()
    files.write_file(file, b"one")
    assert file.stat() == before
    files.write_file(file, b"two")
    assert file.read_bytes() == b"two" and [p.name for p in tmp_path.iterdir()] == ["a"]


@pytest.mark.parametrize("how", files.PLACING)
@pytest.mark.parametrize("before", files.PLACING)
def test_a_file_placed_otherwise_is_placed_as_asked(tmp_path, before, how):
    source, target = tmp_path / "a", tmp_path / "target"
    source.write_text("a")
    files.place_file(source, target, before)
    (tmp_path / f"target{files.PART}").write_text("left by a killed process")
    files.place_file(source, target, how)
    assert not files.needs_placing(source, target, how)
    assert target.is_symlink() == (how == "symlink") and target.samefile(source) == (how != "copy")
    assert target.read_text() == "a"
    assert before == how or not (tmp_path / f"target{files.PART}").exists()


@pytest.mark.parametrize("how", files.PLACING)
def test_a_file_with_another_content_is_never_replaced(tmp_path, how):
    (tmp_path / "a").write_text("a")
    (tmp_path / "target").write_text("the only one of its kind")
    with pytest.raises(ConfigError, match=r"target is not what .*/a is: one of them was changed; delete the first"):
        files.place_file(tmp_path / "a", tmp_path / "target", how)
    assert (tmp_path / "target").read_text() == "the only one of its kind"


def test_a_disk_without_links_is_named_with_the_fix(tmp_path, monkeypatch):
    def refuse(*args):
        raise OSError(errno.EXDEV, "Invalid cross-device link")

    (tmp_path / "a").touch()
    monkeypatch.setattr(os, "link", refuse)
    with pytest.raises(ConfigError, match=r"cannot hardlink .* use images=copy or images=symlink"):
        files.place_file(tmp_path / "a", tmp_path / "b")
    assert not (tmp_path / "b").exists()


def test_room_is_asked_for(tmp_path, monkeypatch):
    files.require_space(tmp_path, 1)
    with pytest.raises(ConfigError, match=r"1000000.00 GB are needed there, \d+.\d\d GB are free"):
        files.require_space(tmp_path, 10**15)
    usage = shutil.disk_usage(tmp_path)._replace(free=2_000_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage)
    with pytest.raises(ConfigError, match=r"12.3 MB are needed there, 2.0 MB are free"):
        files.require_space(tmp_path, 12_300_000)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "text: No such file"),
        ("a\nb".encode("utf-16"), "text is in UTF-16; save it as UTF-8"),
        ("a\nb\n".encode("utf-16-be"), "text:1: a NUL byte; save it as text in UTF-8"),
        (b"a\nb\0\n", "text:2: a NUL byte"),
        ("a\n\xe9\n".encode("latin-1"), "text:2: not UTF-8; save it as UTF-8"),
    ],
)
def test_a_text_is_in_utf8_or_refused(tmp_path, content, message):
    if content is not None:
        (tmp_path / "text").write_bytes(content)
    with pytest.raises(ConfigError, match=message):
        files.read_text(tmp_path / "text")
    (tmp_path / "text").write_text("\ufeffa\n\xe9", encoding="utf-8")
    assert files.read_text(tmp_path / "text") == "a\n\xe9"


def hold(file, log, times):
    for _ in range(times):
        with files.locked(file):
            log.write_text(log.read_text() + "(")
            log.write_text(log.read_text() + ")")


def test_a_lock_is_held_by_one_and_leaves_no_file(tmp_path):
    (tmp_path / "log").touch()
    fork = multiprocessing.get_context("fork").Process
    processes = [fork(target=hold, args=(tmp_path / ".lock", tmp_path / "log", 30)) for _ in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        assert process.exitcode == 0
    assert (tmp_path / "log").read_text() == "()" * 120
    assert not (tmp_path / ".lock").exists()


@pytest.mark.parametrize(
    ("number", "message"),
    [
        (errno.ENOSPC, "the disk is full"),
        (errno.EROFS, "cannot write"),
        (errno.ENOTDIR, "Not a directory: .*choose another folder"),
    ],
)
def test_errors_of_the_disk_say_what_to_do(tmp_path, monkeypatch, number, message):
    def fail(*args):
        raise OSError(number, os.strerror(number), str(tmp_path / "b"))

    (tmp_path / "a").touch()
    monkeypatch.setattr(shutil, "copy2", fail)
    with pytest.raises(ConfigError, match=f"^{tmp_path}: {message}"), files.naming_disk_errors(tmp_path):
        files.place_file(tmp_path / "a", tmp_path / "b", "copy")


@pytest.mark.parametrize(
    ("number", "names", "message"),
    [
        (errno.EACCES, ("src/a",), "^src/a: cannot be read .Permission denied.. Make it readable and run the same"),
        (errno.EIO, ("src/a", "set/b"), "^src/a: not copied to set .Input/output error.. Look at both disks"),
        (errno.ENOSPC, ("src/a", "set/b"), "^set: the disk is full"),
        (errno.EACCES, (".set.lock",), "^set: cannot write there .Permission denied: .*; choose another folder"),
        (errno.EIO, (), "^set: Input/output error; choose another folder"),
    ],
)
def test_an_error_names_the_place_that_it_is_of(number, names, message):
    one, other = (*names, None, None)[:2]
    with pytest.raises(ConfigError, match=message), files.naming_disk_errors(Path("set")):
        raise OSError(number, os.strerror(number), one, None, other)
