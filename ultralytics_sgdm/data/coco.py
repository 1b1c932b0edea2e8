"""COCO's annotation files (`instances_SPLIT.json`) to the layout of Ultralytics.

Ultralytics' own `convert_coco` starts a new folder each time, appends to labels, and neither checks images nor counts.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ultralytics.utils import LOGGER, TQDM

from ..configs import ConfigError
from .images import BadImageError, inspect_image
from .layout import Expected, Object, Sample, Split, check_id, claimed, write_set


class Source(NamedTuple):
    """The two halves of a split: annotations and the folder of the images that they name."""

    annotations: Path
    images: Path


def convert_coco(
    sources: Mapping[str, Source],
    dest: Path,
    roles: Mapping[str, str],
    images: str = "hardlink",
    strict: bool = False,
    expected: Mapping[str, Expected] | None = None,
) -> Path:
    """Convert COCO annotations, complete an interrupted conversion, or leave a complete one as it is.

    Classes are numbered in the order of COCO's category ids, as Ultralytics does (80 of the numbers 1 to 90). Objects
    marked `iscrowd` are left out, as Ultralytics does and as COCO's evaluation ignores them; the record counts them as
    difficult.

    Args:
        sources: Where each split comes from; only read.
        dest: Folder of the new set, see `layout`.
        roles: Split of each of Ultralytics' roles, see `layout.write_set`.
        images: "hardlink", "copy" or "symlink" the images.
        strict: Refuse the whole set if anything would be skipped.
        expected: Published counts, see `layout.write_set`.

    Returns:
        The data set's YAML.

    Raises:
        ConfigError: If a file is no COCO annotation, or as `layout.write_set`.
    """
    options = {"source": {split: [str(s) for s in source] for split, source in sources.items()}, "images": images}
    with claimed(dest, options, sources):
        found, categories = {}, {}
        for split, source in sources.items():
            found[split], names = _read_split(split, source)
            if names != categories and categories:
                raise ConfigError(f"{source.annotations}: its categories are not those of the other splits")
            categories = names
        classes = [name for _, name in sorted(categories.items())]
        return write_set(dest, found, roles, classes, options, {}, (), strict, expected)


def _read_split(split: str, source: Source) -> tuple[Split, dict[int, str]]:
    LOGGER.info(f"Reading {source.annotations}")
    try:
        with source.annotations.open(encoding="utf-8") as f:
            data = json.load(f, object_hook=_without_outlines)
        categories = {c["id"]: c["name"] for c in data["categories"]}
        annotations = defaultdict(list)
        for a in data["annotations"]:
            left, top, width, height = a["bbox"]
            annotations[a["image_id"]].append(
                Object(categories[a["category_id"]], left, top, left + width, top + height, bool(a["iscrowd"]), a["id"])
            )
        entries = [(i["id"], i["file_name"], (i["width"], i["height"])) for i in data["images"]]
    except OSError as e:
        raise ConfigError(f"{source.annotations}: {e.strerror}") from e
    except (ValueError, KeyError, TypeError) as e:
        raise ConfigError(f"{source.annotations} is no COCO instances file ({type(e).__name__}: {e})") from e
    return _with_images(split, source, entries, annotations), categories


def _without_outlines(value: dict[str, Any]) -> dict[str, Any]:
    """Drop what most of the memory would go to: the file of 2017's training split has 448 MB."""
    value.pop("segmentation", None)
    return value


def _with_images(
    split: str,
    source: Source,
    entries: Sequence[tuple[int, str, tuple[int, int]]],
    annotations: Mapping[int, list[Object]],
) -> Split:
    result = Split()
    place = f"{source.annotations.name} annotation "
    for number, file_name, size in TQDM(entries, desc=f"Reading {split}"):
        try:
            path = source.images / check_id(file_name)
            width, height, intact = inspect_image(path, size)
        except BadImageError as e:
            result.skipped.append(f"{file_name}: {e}")
            continue
        name = path.relative_to(source.images).with_suffix("").as_posix()
        result.samples.append(Sample(name, path, width, height, intact, place, annotations.get(number, [])))
    return result
