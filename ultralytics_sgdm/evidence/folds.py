"""K folds of a dataset: every image is evaluated once, by a model that has seen neither it nor any of its group."""

from __future__ import annotations

import re
import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from ultralytics.data.base import BaseDataset
from ultralytics.data.utils import check_det_dataset, img2label_paths

from ..errors import ConfigError, import_extra
from ..files import write_atomic
from .records import digest

SPLITS = ("train", "val", "test")


def list_images(spec: Mapping[str, Any], split: str) -> list[Path]:
    """Return the images of a split of what `check_det_dataset` returns, by name; none if `test` is not there."""
    paths = spec.get(split) or []
    paths = [paths] if isinstance(paths, str) else paths
    if not paths or (split == "test" and not all(Path(path).exists() for path in paths)):
        return []
    reader = BaseDataset.__new__(BaseDataset)
    reader.prefix, reader.fraction = "", 1.0
    return sorted(map(Path, reader.get_img_files(paths)))


def find_labels(images: Sequence[Path]) -> list[Path]:
    """Return where the label file of each image is, if it has one."""
    return [Path(label) for label in img2label_paths(list(map(str, images)))]


def group_of(name: str, pattern: str | None) -> str:
    """Return the group of an image: what the first bracket of `pattern` matches in its stem, or the stem itself."""
    try:
        return re.search(pattern or "(.*)", Path(name).stem)[1]  # type: ignore[index]
    except (re.error, IndexError, TypeError) as e:
        must = f"must be a regular expression with a bracket, matching {name!r}"
        raise ConfigError(f"groups={pattern} {must}: {e}") from e


def assign(names: Sequence[str], k: int, pattern: str | None = None) -> list[int]:
    """Return the fold of each image: even folds, whole groups, and by the names alone."""
    groups = [digest(group_of(name, pattern)) for name in names]  # in an order that frames of a video do not have
    if not 2 <= k <= len(set(groups)):
        raise ConfigError(f"folds={k} must be from 2 to {len(set(groups))}, the number of images or groups of them")
    splitter = import_extra("sklearn.model_selection", "compare").GroupKFold(k)
    fold: np.ndarray = np.empty(len(names), int)
    for i, (_, members) in enumerate(splitter.split(names, groups=groups)):
        fold[members] = i
    return fold.tolist()


def write_folds(data: str, k: int, pattern: str | None, folder: Path) -> list[Path]:
    """Write K datasets in which fold i of all images of a dataset (train, val and test) is `val`; return their YAMLs.

    Images are links, labels copies, so that nothing is written beside the dataset itself. A fold that is there is kept.
    """
    spec = check_det_dataset(data)
    files = sorted({file for split in SPLITS for file in list_images(spec, split)})
    stems = Counter(file.stem for file in files)
    names = [file.name if stems[file.stem] == 1 else f"{file.parent.name}-{file.name}" for file in files]
    if double := [name for name, n in Counter(Path(name).stem for name in names).items() if n > 1]:
        raise ConfigError(f"folds= needs images of different names; {data} has several {double[0]!r}")
    fold, labels = assign(names, k, pattern), find_labels(files)
    others = {key: value for key, value in spec.items() if key not in ("path", "minival", "yaml_file", *SPLITS)}
    yamls = [folder / f"fold-{i}" / "data.yaml" for i in range(k)]
    for i, target in enumerate(yamls):
        if target.exists():
            continue
        root = target.parent
        shutil.rmtree(root, ignore_errors=True)  # half made
        for part in ("images/train", "images/val", "labels/train", "labels/val"):
            (root / part).mkdir(parents=True)
        for file, name, label, of in zip(files, names, labels, fold, strict=True):
            split = "val" if of == i else "train"
            (root / "images" / split / name).symlink_to(file.resolve())
            if label.exists():
                shutil.copyfile(label, (root / "labels" / split / name).with_suffix(".txt"))
        content = {"path": str(root.resolve()), "train": "images/train", "val": "images/val", **others}
        write_atomic(target, yaml.safe_dump(content, sort_keys=False))
    return yamls
