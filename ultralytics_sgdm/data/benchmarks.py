"""PASCAL VOC 07+12 and COCO 2017 as the literature uses them.

Their archives, checksums and published counts stand in cfg/datasets. Each part is taken from where it is: an unpacked
folder, an archive, an earlier download; what is nowhere is downloaded, in as many runs as it takes (Ultralytics' own
`safe_download` resumes only within one process and checks no checksum).
"""

from __future__ import annotations

import json
import os
import shutil
import tarfile
import time
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

import requests
from ultralytics.utils import DATASETS_DIR, LOGGER, TQDM, YAML

from ..configs import CFG
from ..errors import ConfigError, did_you_mean, wrap_errors
from ..files import sha256
from .coco import convert_coco
from .voc import convert_lists
from .yolo import check_arguments, create_folder

CHUNK = 1 << 16  # bytes; a connection that breaks loses at most as much
TIMEOUT = (15, 60)  # seconds to connect, seconds without a byte
ATTEMPTS = 5  # in a row that brought nothing
PAUSE = 1.0  # seconds before the second attempt, doubled before each further one
ROOT_VARIABLE = "SGDM_DATA_ROOT"
VOC_YAML, COCO_YAML = "VOC-sgdm.yaml", "coco-sgdm.yaml"


def prepare(
    data: str, dest: str | Path | None = None, root: str | Path | None = None, images: str = "hardlink"
) -> Path:
    """Prepare VOC-sgdm.yaml or coco-sgdm.yaml ahead of training, from files in root= or by downloading them.

    A dataset that is there already is left as it is.

    Args:
        data: "VOC-sgdm.yaml" or "coco-sgdm.yaml".
        dest: New folder of the dataset; downloads go to DEST-downloads. Default: in Ultralytics' folder of datasets.
        root: Folder with any of the official archives, or with what is in them: a `VOCdevkit`, or `annotations` with
            `train2017` and `val2017`, also inside `images`; only read. Default: environment variable SGDM_DATA_ROOT.
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
    options = {"classes": [*described["names"].values()], "boxes": "voc", "published": described["expected"]}
    options |= {"difficult": difficult, "val_difficult": val_difficult, "images": images, "strict": False}
    if not _is_there(dest, described):
        check_arguments(dest, options)
        train_2007, train_2012, test_2007 = _obtain(described["archives"], dest, root)
        convert_lists({"train": [train_2007, train_2012], "val": [test_2007]}, dest, options)
    return dest / "data.yaml"


def prepare_coco(dest: str | Path, root: str | Path | None = None, images: str = "hardlink") -> Path:
    """Prepare COCO 2017, its lists and annotations so named that `yolo val` ends with COCO's own evaluation.

    The arguments are those of `prepare`.
    """
    described, dest = _load(COCO_YAML), Path(dest).resolve()
    options = {"classes": None, "share": 0, "images": images, "strict": False, "published": described["expected"]}
    if not _is_there(dest, described):
        check_arguments(dest, options)
        train, val, annotations = _obtain(described["archives"], dest, root)
        sources = {p.name: (annotations / f"instances_{p.name}.json", p) for p in (train, val)}
        files = {f"annotations/{file.name}": str(file) for file, _ in sources.values()}
        convert_coco(sources, dest, {**options, "files": files})
    return dest / "data.yaml"


def _is_there(dest: Path, described: Mapping[str, Any]) -> bool:
    """Return whether a dataset is there already, by its record or its classes; raise ConfigError if another one is."""
    file, record = dest / "data.yaml", dest / "conversion.json"
    if file.is_file():
        published = json.loads(record.read_text("utf-8"))["options"].get("published") if record.is_file() else None
        if published != described["expected"] and YAML.load(file).get("names") != described["names"]:
            raise ConfigError(f"{dest} holds another dataset; name a new folder with dest=")
        LOGGER.info(f"{file} is there already")
    return file.is_file()


def _load(data: str) -> dict[str, Any]:
    return YAML.load(CFG / "datasets" / data)


def _obtain(archives: list[dict[str, Any]], dest: Path, root: str | Path | None) -> list[Path]:
    """Return what each archive holds, after downloading and unpacking what is not there."""
    root = root or os.environ.get(ROOT_VARIABLE)
    if root and not Path(root).is_dir():
        raise ConfigError(f"{root}, given as root= or {ROOT_VARIABLE}, is not a folder")
    store = dest.with_name(f"{dest.name}-downloads")
    store.mkdir(parents=True, exist_ok=True)
    try:
        places = [_find(archive, Path(root or store).resolve(), store) for archive in archives]
    except requests.RequestException as e:
        wanted = "".join(f"\n  {a['url']}  {a['size']:,} bytes  SHA-256 {a['sha256']}" for a in archives)
        raise ConfigError(f"cannot download ({e}). Run this again, or put these files into {store}:{wanted}") from e
    LOGGER.info(f"{store} may be deleted once the dataset is there, unless images=symlink")
    return places


def _find(archive: dict[str, Any], root: Path, store: Path) -> Path:
    """Return what an archive holds, where it is unpacked already or else after downloading and unpacking it."""
    name, holds = PurePosixPath(archive["url"]).name, archive["holds"]
    inside = holds.partition("/")[2] or holds  # of VOCdevkit
    unpacked = store / PurePosixPath(name).stem
    for place in (root / holds, root / inside, root / "images" / inside, unpacked / holds):
        if place.exists():
            return place
    file = root / name if (root / name).is_file() else store / name
    if not file.is_file():
        download(archive["url"], archive["size"], file)
    LOGGER.info(f"Checking and unpacking {file}")
    if file.stat().st_size != archive["size"] or sha256(file) != archive["sha256"]:
        published = f"the published file of {archive['size']:,} bytes and SHA-256 {archive['sha256']}"
        raise ConfigError(f"{file} is not {published}; delete it and run this again")
    with create_folder(unpacked) as part, wrap_errors(f"{file} cannot be unpacked"):
        if tarfile.is_tarfile(file) and hasattr(tarfile, "data_filter"):  # from Python 3.10.12 and 3.11.4 on
            shutil.unpack_archive(file, part, filter="data")  # refuses what points outside; of a zip it is left out
        else:
            shutil.unpack_archive(file, part)
    return unpacked / holds


def download(url: str, size: int, file: Path) -> None:
    """Download a file of `size` bytes, from where an earlier run was stopped."""
    part = file.with_name(f"{file.name}.part")
    part.touch()
    failures = 0
    while (have := part.stat().st_size) < size:
        problem: requests.RequestException = requests.ConnectionError("the server has sent too little")
        try:
            _append(url, size, part, have)
        except requests.RequestException as e:
            problem = e
        if (now := part.stat().st_size) < size:
            failures = 0 if now > have else failures + 1
            if failures == ATTEMPTS:
                raise problem
            LOGGER.warning(f"{file.name}: {problem}; trying again")
            time.sleep(PAUSE * 2**failures)
    part.replace(file)


def _append(url: str, size: int, part: Path, have: int) -> None:
    """Append what a file lacks after `have` bytes; what was received is in it when the process is killed."""
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={have}-"} if have else {})
    with requests.get(url, headers=headers, stream=True, timeout=TIMEOUT) as response:
        response.raise_for_status()
        resumes = response.status_code == 206  # else the server sends everything
        expected = size - have if resumes else size
        if int(response.headers.get("Content-Length", expected)) != expected:
            raise requests.ConnectionError(f"the server does not send the file of {size:,} bytes")
        chunks = -(-expected // CHUNK)
        with part.open("ab" if resumes else "wb", buffering=0) as file:
            for chunk in TQDM(response.iter_content(CHUNK), total=chunks, desc=part.stem):
                file.write(chunk)
