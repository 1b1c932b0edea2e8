"""A new folder is there whole or not at all, whenever its writer is killed; what exists is never changed."""

import contextlib
import errno
import itertools
import multiprocessing
import os
import shutil
import signal
from pathlib import Path

import pytest
from small_datasets import an_object, make_voc, tree

from ultralytics_sgdm.data import convert_voc
from ultralytics_sgdm.data.folders import PLACING, create_folder, read_text
from ultralytics_sgdm.errors import ConfigError


@pytest.fixture
def src(tmp_path):
    return make_voc(tmp_path / "src", train={f"t{i}": [an_object()] for i in range(3)}, val={"v": [an_object()]})


def convert_until(step, *arguments, **options):
    """Convert in a process that is killed at its `step`th change of the disk; return whether it was."""

    def run():
        steps = itertools.count()

        def counted(change):
            def call(*args, **kwargs):
                if next(steps) == step:
                    os.kill(os.getpid(), signal.SIGKILL)
                return change(*args, **kwargs)

            return call

        for owner, names in ((os, ("link",)), (shutil, ("copy2",)), (Path, ("mkdir", "rename", "write_text"))):
            for name in names:
                setattr(owner, name, counted(getattr(owner, name)))
        Path.symlink_to = counted(Path.symlink_to)
        convert_voc(*arguments, **options)

    process = multiprocessing.get_context("fork").Process(target=run)
    process.start()
    process.join()
    assert process.exitcode in {0, -signal.SIGKILL}
    return process.exitcode != 0


@pytest.mark.long
@pytest.mark.parametrize("images", PLACING)
@pytest.mark.parametrize("empty", [False, True])
def test_a_conversion_may_be_killed_at_every_step(src, tmp_path, images, empty, caplog):
    whole = tree(convert_voc(src, tmp_path / "whole", images=images).parent, times=False)
    before, dest = tree(src, times=False), tmp_path / "dest"
    if empty:
        dest.mkdir()
    for step in itertools.count():
        if not convert_until(step, src, dest, images=images):
            break
        assert not dest.exists() or (empty and not any(dest.iterdir()))
    assert step > 15 and tree(dest, times=False) == whole and tree(src, times=False) == before
    left = [p.name for p in tmp_path.iterdir() if p.name not in {"src", "whole", "dest"}]
    assert all(name.startswith(".dest.part-") for name in left) and len(left) >= 10
    shutil.rmtree(dest)
    convert_voc(src, dest)
    assert "was left by a run that was killed, unless it still runs; you may delete it" in caplog.text


@pytest.mark.parametrize("kind", ["file", "folder", "link", "dataset", "current directory"])
def test_what_exists_is_left_as_it_is(src, tmp_path, monkeypatch, kind):
    dest, other = tmp_path / "dest", tmp_path / "other"
    if kind == "dataset":
        convert_voc(src, dest)
    elif kind == "file":
        dest.write_text("mine")
    else:
        (dest if kind != "link" else other).mkdir()
        if kind == "current directory":
            monkeypatch.chdir(dest)
        else:
            ((dest if kind != "link" else other) / ".hidden").write_text("mine")
    if kind == "link":
        dest.symlink_to(other)
    before = tree(tmp_path)
    with pytest.raises(
        ConfigError, match=r"(exists and is left as it is|is the current directory .*); name a new folder"
    ):
        convert_voc(src, dest)
    assert tree(tmp_path) == before


def test_of_two_runs_at_once_one_writes_the_dataset(src, tmp_path):
    whole = tree(convert_voc(src, tmp_path / "alone").parent, times=False)
    with (
        pytest.raises(ConfigError, match="dest has appeared since this run began"),
        create_folder(tmp_path / "dest") as part,
    ):
        (part / "mine").touch()
        convert_voc(src, tmp_path / "dest")
    assert tree(tmp_path / "dest", times=False) == whole
    assert sorted(p.name for p in tmp_path.iterdir()) == ["alone", "dest", "src"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError(errno.ENOSPC, "No space left on device", "x")])
def test_an_error_leaves_nothing(tmp_path, error):
    with contextlib.suppress(KeyboardInterrupt, ConfigError), create_folder(tmp_path / "deep/dest") as part:
        (part / "a").touch()
        raise error
    assert not any((tmp_path / "deep").iterdir())


@pytest.mark.parametrize("how", PLACING)
def test_images_are_placed_as_asked(src, tmp_path, how):
    image = src / "JPEGImages/t0.jpg"
    image.rename(tmp_path / "elsewhere.jpg")
    image.symlink_to("../../elsewhere.jpg")  # a link in the source is linked by what it stands for
    convert_voc(src, tmp_path / "dest", images=how)
    placed = tmp_path / "dest/images/train/t0.jpg"
    assert placed.read_bytes() == image.read_bytes()
    assert placed.is_symlink() == (how == "symlink") and placed.samefile(image) == (how != "copy")


def test_a_disk_without_links_is_named_with_the_fix(src, tmp_path, monkeypatch):
    def refuse(*args):
        raise OSError(errno.EXDEV, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", refuse)
    with pytest.raises(ConfigError, match=r"cannot hardlink .* use images=copy or images=symlink"):
        convert_voc(src, tmp_path / "dest")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["src"]
    convert_voc(src, tmp_path / "dest", images="copy")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "text: No such file"),
        ("a\nb".encode("utf-16"), "text:1: not UTF-8; save it as UTF-8"),
        ("a\n\xe9\n".encode("latin-1"), "text:2: not UTF-8"),
    ],
)
def test_a_text_is_in_utf8_or_refused(tmp_path, content, message):
    if content is not None:
        (tmp_path / "text").write_bytes(content)
    with pytest.raises(ConfigError, match=message):
        read_text(tmp_path / "text")
    (tmp_path / "text").write_text("\ufeffa\n\xe9", encoding="utf-8")
    assert read_text(tmp_path / "text") == "a\n\xe9"
