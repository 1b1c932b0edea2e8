"""PASCAL VOC 07+12 and COCO 2017 as the literature uses them.

Their archives, checksums and published counts stand in cfg/datasets. Each part is taken from where it is: an unpacked
folder, an archive, an earlier download; what is nowhere is downloaded.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import requests
from ultralytics.utils import DATASETS_DIR, LOGGER, YAML

from ..configs import CFG
from ..errors import ConfigError, did_you_mean
from .coco import Source, convert_coco
from .downloads import check_file, download, unpack
from .folders import check_arguments, name_disk_errors
from .voc import convert_lists

ROOT_VARIABLE = "SGDM_DATA_ROOT"
VOC_YAML, COCO_YAML = "VOC-sgdm.yaml", "coco-sgdm.yaml"


def prepare(
    data: str, dest: str | Path | None = None, root: str | Path | None = None, images: str = "hardlink"
) -> Path:
    """Prepare VOC-sgdm.yaml or coco-sgdm.yaml ahead of training, from files in root= or by downloading them.

    A dataset that is there already is left as it is.

    Args:
        data: "VOC-sgdm.yaml" or "coco-sgdm.yaml".
        dest: New folder of the dataset; downloads go to DEST-downloads beside it. Default: where the YAML has it, in
            Ultralytics' folder of datasets.
        root: Folder with any of the official archives, or with what is in them: a `VOCdevkit`, or `annotations` with
            `train2017` and `val2017`, also inside `images`; only read. Default: the environment variable
            SGDM_DATA_ROOT.
        images: "hardlink", "copy" or "symlink" the images.

    Returns:
        The YAML of the dataset in that folder.

    Raises:
        ConfigError: If there is no such dataset, if a file is missing, damaged or not available, or if the counts are
            not the published ones; downloads go on where they stopped when this is run again.
    """
    known = {VOC_YAML: prepare_voc, COCO_YAML: prepare_coco}
    if data not in known:
        raise ConfigError(f"{data!r} is not one of {', '.join(known)}{did_you_mean(data, known)}")
    return known[data](dest or DATASETS_DIR / _load(data)["path"], root, images)


def prepare_voc(
    dest: str | Path,
    root: str | Path | None = None,
    images: str = "hardlink",
    difficult: str = "drop",
    val_difficult: str = "drop",
) -> Path:
    """Prepare VOC 07+12: trained on trainval of both years, validated on the test images of 2007.

    The arguments are those of `prepare` and `convert_voc`.
    """
    described, dest = _load(VOC_YAML), Path(dest).resolve()
    if not (dest / "data.yaml").is_file():
        train_2007, train_2012, test_2007 = _obtain(described["archives"], dest, root, images)
        options = {"classes": [*described["names"].values()], "boxes": "voc", "images": images, "strict": False}
        options |= {"difficult": difficult, "val_difficult": val_difficult}
        lists = {"train": [train_2007, train_2012], "val": [test_2007]}
        convert_lists(lists, dest, options, described["expected"])
    return dest / "data.yaml"


def prepare_coco(dest: str | Path, root: str | Path | None = None, images: str = "hardlink") -> Path:
    """Prepare COCO 2017, its lists and annotations so named that `yolo val` ends with COCO's own evaluation.

    The arguments are those of `prepare`.
    """
    described, dest = _load(COCO_YAML), Path(dest).resolve()
    if not (dest / "data.yaml").is_file():
        train, val, annotations = _obtain(described["archives"], dest, root, images)
        sources = {p.name: Source(annotations / f"instances_{p.name}.json", p) for p in (train, val)}
        files = {f"annotations/{s.annotations.name}": s.annotations for s in sources.values()}
        convert_coco(sources, dest, images, expected=described["expected"], files=files)
    return dest / "data.yaml"


def _load(data: str) -> dict[str, Any]:
    return YAML.load(CFG / "datasets" / data)


def _obtain(archives: list[dict[str, Any]], dest: Path, root: str | Path | None, images: str) -> list[Path]:
    """Return what each archive holds, after downloading and unpacking what is not there."""
    check_arguments(dest, (), images=images)
    roots = [Path(p).resolve() for p in [root or os.environ.get(ROOT_VARIABLE)] if p]
    if roots and not roots[0].is_dir():
        raise ConfigError(f"{roots[0]}, given as root= or {ROOT_VARIABLE}, is not a folder")
    store = dest.with_name(f"{dest.name}-downloads")
    found = [_find_unpacked(a, roots, store) for a in archives]
    packed = [a for a, place in zip(archives, found, strict=True) if not place]
    with name_disk_errors(store):
        store.mkdir(parents=True, exist_ok=True)
        needed, free = 2 * sum(a["size"] for a in packed), shutil.disk_usage(store).free
        if free < needed:  # photographs take about as much unpacked
            raise ConfigError(f"{store}: {needed / 1e6:,.1f} MB are needed there, {free / 1e6:,.1f} MB are free")
        try:
            places = [place or _fetch(a, roots, store) for a, place in zip(archives, found, strict=True)]
        except requests.RequestException as e:
            wanted = "".join(f"\n  {a['url']}  {a['size']:,} bytes  SHA-256 {a['sha256']}" for a in packed)
            raise ConfigError(
                f"cannot download an archive ({e}). Run this again with a connection, or put these files into "
                f"{store}:{wanted}"
            ) from e
    LOGGER.info(f"{store} may be deleted once the dataset is there, unless images=symlink")
    return places


def _find_unpacked(archive: Mapping[str, Any], roots: Sequence[Path], store: Path) -> Path | None:
    holds = archive["holds"]
    inside = holds.partition("/")[2] or holds  # of VOCdevkit
    places = [p / place for p in roots for place in (holds, inside, f"images/{inside}")]
    places.append(store / PurePosixPath(archive["url"]).stem / holds)
    return next((place for place in places if place.exists()), None)


def _fetch(archive: Mapping[str, Any], roots: Sequence[Path], store: Path) -> Path:
    """Return what an archive holds, unpacked beside the other downloads."""
    name = PurePosixPath(archive["url"]).name
    file = next((f for p in (*roots, store) if (f := p / name).is_file()), None)
    if file:
        check_file(file, archive["size"], archive["sha256"])
    else:
        file = download(archive["url"], archive["size"], archive["sha256"], store / name)
    return unpack(file, store / file.stem) / archive["holds"]
