import errno
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
def test_another_file_in_the_place_is_replaced_and_its_own_content_kept(tmp_path, how):
    for name in "abc":
        (tmp_path / name).write_text(name)
    os.link(tmp_path / "b", tmp_path / "target")
    (tmp_path / "target.part").write_text("left by a killed process")
    files.place_file(tmp_path / "a", tmp_path / "target", how)
    assert (tmp_path / "target").read_text() == "a" and (tmp_path / "b").read_text() == "b"
    assert not (tmp_path / "target.part").exists()


def test_a_disk_without_links_is_named_with_the_fix(tmp_path, monkeypatch):
    def refuse(*args):
        raise OSError(errno.EXDEV, "Invalid cross-device link")

    (tmp_path / "a").touch()
    monkeypatch.setattr(os, "link", refuse)
    with pytest.raises(ConfigError, match=r"cannot hardlink .* use images=copy or images=symlink"):
        files.place_file(tmp_path / "a", tmp_path / "b")
    assert not (tmp_path / "b").exists()


def test_room_is_asked_for(tmp_path):
    files.require_space(tmp_path, 1)
    with pytest.raises(ConfigError, match=r"1000000.00 GB are needed there, \d+.\d\d GB are free"):
        files.require_space(tmp_path, 10**15)


@pytest.mark.parametrize(("number", "message"), [(errno.ENOSPC, "the disk is full"), (errno.EROFS, "cannot write")])
def test_errors_of_the_disk_say_what_to_do(tmp_path, monkeypatch, number, message):
    def fail(*args):
        raise OSError(number, os.strerror(number))

    (tmp_path / "a").touch()
    monkeypatch.setattr(shutil, "copy2", fail)
    with pytest.raises(ConfigError, match=message), files.naming_disk_errors(Path("set")):
        files.place_file(tmp_path / "a", tmp_path / "b", "copy")
