"""PASCAL VOC 07+12 and COCO 2017 as the literature uses them.

Their archives, checksums and published counts stand in cfg/datasets. Each part is taken from where it is: an unpacked
folder, an archive, an earlier download; what is nowhere is downloaded.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import requests
from ultralytics.utils import DATASETS_DIR, LOGGER, YAML

from ..configs import CFG
from ..errors import ConfigError, did_you_mean
from .coco import Source, convert_coco
from .dataset import check_options
from .downloads import check_file, download, unpack
from .folders import PLACING, check_new, naming_disk_errors
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
    described = _load(VOC_YAML)
    dest = Path(dest).resolve()
    if (dest / "data.yaml").is_file():
        return dest / "data.yaml"
    train_2007, train_2012, test_2007 = _obtain(described["archives"], dest, root, images)
    options = {"classes": [*described["names"].values()], "boxes": "voc", "images": images, "strict": False}
    options |= {"difficult": difficult, "val_difficult": val_difficult}
    lists = {"train": [train_2007, train_2012], "val": [test_2007]}
    return convert_lists(lists, dest, options, described["expected"])


def prepare_coco(dest: str | Path, root: str | Path | None = None, images: str = "hardlink") -> Path:
    """Prepare COCO 2017, its lists and annotations so named that `yolo val` ends with COCO's own evaluation.

    The arguments are those of `prepare`.
    """
    described = _load(COCO_YAML)
    dest = Path(dest).resolve()
    if (dest / "data.yaml").is_file():
        return dest / "data.yaml"
    train, val, annotations = _obtain(described["archives"], dest, root, images)
    sources = {p.name: Source(annotations / f"instances_{p.name}.json", p) for p in (train, val)}
    files = {f"annotations/{s.annotations.name}": s.annotations for s in sources.values()}
    return convert_coco(sources, dest, images, expected=described["expected"], files=files)


def _load(data: str) -> dict[str, Any]:
    return YAML.load(CFG / "datasets" / data)


def _obtain(archives: list[dict[str, Any]], dest: Path, root: str | Path | None, images: str) -> list[Path]:
    """Return what each archive holds, after downloading and unpacking what is not there."""
    check_options(images=(images, PLACING))
    check_new(dest)
    roots = [Path(p).resolve() for p in [root or os.environ.get(ROOT_VARIABLE)] if p]
    if roots and not roots[0].is_dir():
        raise ConfigError(f"{roots[0]}, given as root= or {ROOT_VARIABLE}, is not a folder")
    store = dest.with_name(f"{dest.name}-downloads")
    packed, found = [], {}
    for a in archives:
        a["name"] = a["url"].rpartition("/")[2]
        inside = a["holds"].partition("/")[2] or a["holds"]  # of VOCdevkit
        places = [p / place for p in roots for place in (a["holds"], inside, f"images/{inside}")]
        places.append(store / Path(a["name"]).stem / a["holds"])
        found[a["name"]] = next((place for place in places if place.exists()), None)
        if not found[a["name"]]:
            packed.append(a)
    with naming_disk_errors(store):
        store.mkdir(parents=True, exist_ok=True)
        needed, free = 2 * sum(a["size"] for a in packed), shutil.disk_usage(store).free
        if free < needed:  # photographs take about as much unpacked
            raise ConfigError(f"{store}: {needed / 1e6:,.1f} MB are needed there, {free / 1e6:,.1f} MB are free")
        for i, a in enumerate(packed):
            file = next((f for p in (*roots, store) if (f := p / a["name"]).is_file()), None)
            try:
                if file:
                    check_file(file, a["size"], a["sha256"])
                else:
                    file = download(a["url"], a["size"], a["sha256"], store / a["name"])
            except requests.RequestException as e:
                wanted = "".join(f"\n  {x['url']}  {x['size']:,} bytes  SHA-256 {x['sha256']}" for x in packed[i:])
                raise ConfigError(
                    f"cannot download {a['url']} ({e}). Run this again with a connection, or put these files into "
                    f"{store}:{wanted}"
                ) from e
            found[a["name"]] = unpack(file, store / file.stem) / a["holds"]
    LOGGER.info(f"{store} may be deleted once the dataset is there, unless images=symlink")
    return [place for place in found.values() if place]
