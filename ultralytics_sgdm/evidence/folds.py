"""K folds of a data set: every picture is evaluated once, by a model that has not seen it nor any of its group."""

from __future__ import annotations

import contextlib
import logging
import re
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml
from ultralytics.data.base import BaseDataset
from ultralytics.data.utils import check_det_dataset, img2label_paths
from ultralytics.utils import LOGGER

from ..configs import ConfigError
from .records import digest

SPLITS = ("train", "val", "test")


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep what Ultralytics says while it looks through data from being printed, but for errors."""
    level = LOGGER.level
    LOGGER.setLevel(logging.ERROR)
    try:
        yield
    finally:
        LOGGER.setLevel(level)


def pictures(data: dict[str, Any], split: str) -> list[Path]:
    """Return the pictures of a split as Ultralytics finds them, by name.

    Args:
        data: What `check_det_dataset` returns.
        split: "train", "val" or "test".
    """
    where = data.get(split)
    if not where:
        return []
    reader = BaseDataset.__new__(BaseDataset)
    reader.prefix, reader.fraction = "", 1.0
    with quiet():
        return sorted(map(Path, reader.get_img_files(where)))


def group_of(name: str, pattern: str | None) -> str:
    """Return the group of a picture: what the first bracket of `pattern` matches in its stem, or the stem itself.

    Raises:
        ConfigError: If the pattern is no regular expression with a bracket, or does not match.
    """
    stem = Path(name).stem
    if pattern is None:
        return stem
    try:
        match = re.search(pattern, stem)
        if match:
            return match[1]
    except (re.error, IndexError) as e:
        raise ConfigError(
            f"groups={pattern} must be a regular expression with a bracket, such as '^(video\\d+)': {e}"
        ) from e
    raise ConfigError(f"groups={pattern} does not match {name!r}; every picture needs a group")


def assign(names: Sequence[str], k: int, pattern: str | None = None) -> list[int]:
    """Return the fold of each picture: groups in an order that depends on their names alone, each to the smallest fold.

    Raises:
        ConfigError: If there are fewer groups than folds.
    """
    groups = [group_of(name, pattern) for name in names]
    sizes = Counter(groups)
    if not 2 <= k <= len(sizes):
        raise ConfigError(f"folds={k} must be from 2 to {len(sizes)}, the number of pictures or groups of them")
    filled, fold = [0] * k, {}
    for group in sorted(sizes, key=lambda g: (-sizes[g], digest(g))):
        fold[group] = min(range(k), key=lambda i: (filled[i], i))
        filled[fold[group]] += sizes[group]
    return [fold[group] for group in groups]


def make(data: str, k: int, pattern: str | None, folder: Path) -> list[Path]:
    """Write K sets in which fold i of all pictures of a set (train, val and test) is `val`; return their YAMLs.

    Pictures are links, labels copies, so that nothing is written beside the set itself.

    Args:
        data: YAML of the set.
        k: Number of folds.
        pattern: Regular expression of the groups.
        folder: Where to write; what is there already for the same pictures is used.

    Raises:
        ConfigError: If two pictures have the same name, or `assign` refuses.
    """
    spec = check_det_dataset(data)
    files = sorted({file for split in SPLITS for file in pictures(spec, split)})
    stems = Counter(file.stem for file in files)
    names = [file.name if stems[file.stem] == 1 else f"{file.parent.name}-{file.name}" for file in files]
    if double := [name for name, n in Counter(Path(name).stem for name in names).items() if n > 1]:
        raise ConfigError(f"folds= needs pictures of different names; {data} has several {double[0]!r}")
    fold = assign(names, k, pattern)
    labels = [Path(label) for label in img2label_paths(list(map(str, files)))]
    yamls = []
    for i in range(k):
        root = folder / f"fold-{i}"
        target = root / "data.yaml"
        if not target.exists():
            if root.exists():
                shutil.rmtree(root)  # half made
            for kind in ("images", "labels"):
                for split in ("train", "val"):
                    (root / kind / split).mkdir(parents=True)
            for file, name, label, of in zip(files, names, labels, fold, strict=True):
                split = "val" if of == i else "train"
                (root / "images" / split / name).symlink_to(file.resolve())
                if label.exists():
                    shutil.copyfile(label, (root / "labels" / split / name).with_suffix(".txt"))
            content = {
                "path": str(root.resolve()),
                "train": "images/train",
                "val": "images/val",
                "names": spec["names"],
            }
            part = target.with_suffix(".part")
            part.write_text(yaml.safe_dump({**content, "names": spec["names"]}, sort_keys=False))
            part.replace(target)
        yamls.append(target)
    return yamls
