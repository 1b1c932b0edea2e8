"""A new folder is there whole or not at all, whenever its writer is killed; what exists is never changed."""

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
from ultralytics_sgdm.data.yolo import CHOICES, create_folder
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

        changes = [(Path, name) for name in ("mkdir", "rename", "symlink_to", "write_text")]
        for owner, name in (*changes, (os, "link"), (shutil, "copy2")):
            setattr(owner, name, counted(getattr(owner, name)))
        convert_voc(*arguments, **options)

    process = multiprocessing.get_context("fork").Process(target=run)
    process.start()
    process.join()
    assert process.exitcode in {0, -signal.SIGKILL}
    return process.exitcode != 0


@pytest.mark.long
@pytest.mark.parametrize("images", CHOICES["images"])
def test_a_conversion_may_be_killed_at_every_step(src, tmp_path, images):
    whole = tree(convert_voc(src, tmp_path / "whole", images=images).parent, times=False)
    before, dest = tree(src, times=False), tmp_path / "dest"
    for step in itertools.count():
        if not convert_until(step, src, dest, images=images):
            break
        assert not dest.exists()
    assert step > 15 and tree(dest, times=False) == whole and tree(src, times=False) == before
    left = [p.name for p in tmp_path.iterdir() if p.name not in {"src", "whole", "dest"}]
    assert all(name.startswith(".dest.part-") for name in left) and len(left) >= 10


@pytest.mark.parametrize("make", [Path.touch, Path.mkdir, lambda dest: dest.symlink_to("src")])
def test_what_exists_is_left_as_it_is(src, tmp_path, make):
    dest = tmp_path / "dest"
    make(dest)
    before = tree(tmp_path)
    with pytest.raises(ConfigError, match="exists and is left as it is; name a new folder"):
        convert_voc(src, dest)
    assert tree(tmp_path) == before


def test_of_two_runs_at_once_one_writes_the_dataset(src, tmp_path):
    whole = tree(convert_voc(src, tmp_path / "alone").parent, times=False)
    with pytest.raises(OSError, match="not empty"), create_folder(tmp_path / "dest") as part:
        (part / "mine").touch()
        convert_voc(src, tmp_path / "dest")
    assert tree(tmp_path / "dest", times=False) == whole
    assert sorted(p.name for p in tmp_path.iterdir()) == ["alone", "dest", "src"]


@pytest.mark.parametrize("how", CHOICES["images"])
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
