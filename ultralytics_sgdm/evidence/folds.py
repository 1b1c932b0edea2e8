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

from ..errors import ConfigError, import_extra, wrap_errors
from ..files import write_atomic
from .records import digest

SPLITS = ("train", "val", "test")


def list_images(spec: Mapping[str, Any], split: str) -> list[tuple[Path, Path]]:
    """Return the images of a split of what `check_det_dataset` returns, by name, and where their labels would be.

    There are none if `test` does not exist.
    """
    paths = [spec[split]] if isinstance(spec.get(split), str) else spec.get(split) or []
    if not paths or (split == "test" and not all(Path(path).exists() for path in paths)):
        return []
    reader = BaseDataset.__new__(BaseDataset)
    reader.prefix, reader.fraction = "", 1.0
    files = sorted(map(Path, reader.get_img_files(paths)))
    return list(zip(files, map(Path, img2label_paths(list(map(str, files)))), strict=True))


def group_of(name: str, pattern: str | None) -> str:
    """Return the group of an image: what the first bracket of `pattern` matches in its stem, or the stem itself."""
    with wrap_errors(f"groups={pattern} must be a regular expression with a bracket, matching {name!r}"):
        return re.search(pattern or "(.*)", Path(name).stem)[1]  # type: ignore[index]


def assign(names: Sequence[str], k: int, pattern: str | None = None) -> list[int]:
    """Return the fold of each image: even folds, whole groups, and by the names alone."""
    groups = [digest(group_of(name, pattern)) for name in names]  # in an order that frames of a video do not have
    with wrap_errors(f"folds={k}"):
        splitter = import_extra("sklearn.model_selection", "compare").GroupKFold(k)
        parts = [members for _, members in splitter.split(names, groups=groups)]
    return np.repeat(range(k), list(map(len, parts)))[np.argsort(np.concatenate(parts))].tolist()


def write_folds(data: str, k: int, pattern: str | None, folder: Path) -> list[Path]:
    """Write K datasets in which fold i of all images of a dataset (train, val and test) is `val`; return their YAMLs.

    Images are links, labels copies, so that nothing is written beside the dataset itself. Folds that exist are kept.
    """
    yamls = [folder / f"fold-{i}" / "data.yaml" for i in range(k)]
    if yamls[-1].exists():
        return yamls
    shutil.rmtree(folder, ignore_errors=True)  # of a stopped command
    spec = check_det_dataset(data)
    found = sorted({pair for split in SPLITS for pair in list_images(spec, split)})
    files, labels = zip(*found, strict=True)
    stems = Counter(file.stem for file in files)
    names = [file.name if stems[file.stem] == 1 else f"{file.parent.name}-{file.name}" for file in files]
    if len({Path(name).stem for name in names}) < len(names):
        raise ConfigError(f"folds= needs images of different names, which those of {data} have not")
    fold = assign(names, k, pattern)
    others = {key: value for key, value in spec.items() if key not in ("path", "minival", "yaml_file", *SPLITS)}
    for i, target in enumerate(yamls):
        for name, file, label, part in zip(names, files, labels, fold, strict=True):
            image = target.parent / "images" / ("val" if part == i else "train") / name
            copy = target.parent / "labels" / image.parent.name / f"{image.stem}.txt"
            image.parent.mkdir(parents=True, exist_ok=True)
            copy.parent.mkdir(parents=True, exist_ok=True)
            image.symlink_to(file.resolve())
            if label.exists():
                shutil.copyfile(label, copy)
        content = {"path": str(target.parent.resolve()), "train": "images/train", "val": "images/val", **others}
        write_atomic(target, yaml.safe_dump(content, sort_keys=False))
    return yamls
