"""Conversions that are killed: at every moment a set is the old one, the new one, or visibly incomplete."""

import itertools
import multiprocessing
import os
import random
import shutil
import signal
from pathlib import Path

import pytest
import yaml
from small_sets import an_object, make_voc, tree

from ultralytics_sgdm.data import convert_voc
from ultralytics_sgdm.data.files import PART, PLACING

pytestmark = pytest.mark.slow

CALLS = [
    *((Path, name) for name in ("replace", "unlink", "mkdir", "write_bytes", "symlink_to")),
    *((os, "link"), (shutil, "copy2")),
]


def make_sources(folder):
    """Make a set, and the same after its owner has worked on it: a new class, a box moved, an image more, one less."""
    train = {f"t{i}": [an_object("dog", (5, 6, 20, 25)), an_object("cat", (1, 1, 40, 30))] for i in range(4)}
    val = {f"v{i}": [an_object("dog", (2, 2, 11, 21))] for i in range(2)}
    make_voc(folder / "old", train=train, val=val)
    shutil.copytree(folder / "old", folder / "new")
    changed = {f"t{i}": [an_object("ant", (3, 3, 9, 9)), an_object("dog", (5, 7, 20, 25))] for i in range(1, 6)}
    make_voc(folder / "new", train=changed, val=val)
    return [folder / "old", folder / "new"]


def convert_until(step, src, images):
    """Convert in another process that is killed at its `step`th change of the file system; return whether it was."""

    def convert():
        steps = itertools.count()

        def dying(call):
            def wrapped(first, *args, **kwargs):
                if next(steps) == step:
                    if call.__name__ == "write_bytes":
                        call(first, args[0][: len(args[0]) // 2])
                    if call.__name__ == "copy2":
                        Path(args[0]).write_bytes(Path(first).read_bytes()[:100])
                    os.kill(os.getpid(), signal.SIGKILL)
                return call(first, *args, **kwargs)

            return wrapped

        for owner, name in CALLS:
            setattr(owner, name, dying(getattr(owner, name)))
        os.environ["YOLO_VERBOSE"] = "false"
        convert_voc(src, src.parent / "dest", images=images)

    process = multiprocessing.get_context("fork").Process(target=convert)
    process.start()
    process.join()
    assert process.exitcode in (0, -signal.SIGKILL)
    return process.exitcode != 0


def what_is_trained_on(dest):
    """Return classes, lists and labels as Ultralytics would take them, or None where it refuses the set."""
    if not (dest / "val.txt").is_file():
        return None
    lists = {s: (dest / f"{s}.txt").read_text().splitlines() for s in ("train", "val") if (dest / f"{s}.txt").is_file()}
    files = [line[2:] for lines in lists.values() for line in lines]
    labels = {f: (dest / f.replace("images/", "labels/").replace(".jpg", ".txt")).read_text() for f in files}
    images = {f: (dest / f).read_bytes() for f in files}
    file = dest / "data.yaml"
    return (yaml.safe_load(file.read_text()) if file.is_file() else None), lists, labels, images


def is_part(state, whole):
    """Whether a state is a whole one, or one of which the YAML or a list is not there."""
    yaml_, lists, labels, images = state
    return (
        yaml_ in (None, whole[0])
        and lists.items() <= whole[1].items()
        and labels.items() <= whole[2].items()
        and images.items() <= whole[3].items()
    )


class Lab:
    """A source that its owner works on, the set made of it, and the wholes of both states of the source."""

    def __init__(self, folder, images):
        folder.mkdir()
        self.src, self.dest, self.images = folder / "src", folder / "dest", images
        self.sources = make_sources(folder)
        shutil.copytree(self.sources[0], self.src)
        self.wholes = []
        for n, source in enumerate(self.sources):
            convert_voc(source, folder / f"whole{n}", images=images)
            self.wholes.append(what_is_trained_on(folder / f"whole{n}"))

    def become(self, n):
        """Let the source be as in state n; its images stay the files that they are."""
        for file in self.sources[n].rglob("*.*"):
            target = self.src / file.relative_to(self.sources[n])
            if file.suffix != ".jpg" or not target.exists():
                shutil.copy2(file, target)

    def kill(self, step):
        """Convert until `step`, check what is left, and return whether the conversion was killed."""
        killed = convert_until(step, self.src, self.images)
        state = what_is_trained_on(self.dest)
        assert state is None or any(is_part(state, whole) for whole in self.wholes), (self.images, step)
        return killed

    def complete(self, n):
        convert_voc(self.src, self.dest, images=self.images)
        assert what_is_trained_on(self.dest) == self.wholes[n]
        assert not list(self.dest.rglob(f"*{PART}")) and not (self.dest / ".lock").exists()
        before = tree(self.dest)
        convert_voc(self.src, self.dest, images=self.images)
        assert tree(self.dest) == before

    def kill_at_random(self, rng, times, last):
        """Convert the first state, the second, the first again, each with some kills; return how many."""
        kills = 0
        for n in (0, 1, 0):
            self.become(n)
            kills += sum(self.kill(rng.randrange(last)) for _ in range(times))
            self.complete(n)
        return kills


@pytest.mark.parametrize("images", PLACING)
def test_a_killed_conversion_leaves_the_old_set_the_new_one_or_none(tmp_path, images):
    assert Lab(tmp_path / "set", images).kill_at_random(random.Random(0), 4, 24) >= 8


@pytest.mark.long
@pytest.mark.parametrize("images", PLACING)
def test_a_conversion_may_be_killed_at_every_step(tmp_path, images):
    lab = Lab(tmp_path / "each", images)
    for n in (0, 1):
        for step in itertools.count():
            shutil.rmtree(lab.dest, ignore_errors=True)
            if n:
                lab.become(0)
                lab.complete(0)
                lab.become(1)
            if not lab.kill(step):
                break
            lab.complete(n)
        assert step > 30
    labs = (Lab(tmp_path / str(seed), images).kill_at_random(random.Random(seed), 8, 30) for seed in range(20))
    assert sum(labs) > 100
