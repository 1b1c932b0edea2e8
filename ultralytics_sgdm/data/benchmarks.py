"""PASCAL VOC 07+12 and COCO 2017 as the literature uses them.

Their archives, checksums and published counts stand in cfg/datasets. Each part is taken from where it is: an unpacked
folder, an archive, an earlier download; what is nowhere is downloaded, in as many runs as it takes (Ultralytics' own
`safe_download` resumes only within one process and checks no checksum).
"""

from __future__ import annotations

import os
import shutil
import tarfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import requests
from ultralytics.utils import DATASETS_DIR, LOGGER, TQDM, YAML

from ..configs import CFG
from ..errors import ConfigError, did_you_mean
from ..files import sha256
from .coco import Source, convert_coco
from .folders import check_arguments, create_folder, name_disk_errors
from .voc import convert_lists

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
    file = next((f for p in (*roots, store) if (f := p / name).is_file()), store / name)
    if file.is_file():
        check_file(file, archive["size"], archive["sha256"])
    else:
        download(archive["url"], archive["size"], archive["sha256"], file)
    return unpack(file, store / file.stem) / archive["holds"]


def download(url: str, size: int, digest: str, file: Path) -> Path:
    """Download a file from where an earlier run was stopped, and return it once it is whole and has this SHA-256."""
    part = file.with_name(f"{file.name}.part")
    failures = 0
    while (have := part.stat().st_size if part.exists() else 0) < size:
        try:
            _append(url, size, part, have)
        except requests.RequestException as e:
            failures = 0 if part.exists() and part.stat().st_size > have else failures + 1
            is_offline = isinstance(e, requests.ConnectionError) and not part.exists()
            if failures == ATTEMPTS or is_offline or getattr(e.response, "status_code", 500) < 500:
                raise
            LOGGER.warning(f"{file.name}: {e}; trying again")
            time.sleep(PAUSE * 2**failures)
    try:
        check_file(part, size, digest)
    except ConfigError:
        part.unlink()
        raise
    return part.replace(file)


def _append(url: str, size: int, part: Path, have: int) -> None:
    """Append what a file lacks after `have` bytes; what was received is in it when the process is killed."""
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={have}-"} if have else {})
    with requests.get(url, headers=headers, stream=True, timeout=TIMEOUT) as response:
        response.raise_for_status()
        have *= response.status_code == 206  # else the server sends everything
        bar = TQDM(total=size, initial=have, desc=part.stem, unit="B", unit_scale=True)
        with part.open("ab" if have else "wb", buffering=0) as file, bar:
            for chunk in response.iter_content(CHUNK):
                file.write(chunk)
                bar.update(len(chunk))


def check_file(file: Path, size: int, digest: str) -> None:
    """Raise ConfigError unless a file has the published size and SHA-256."""
    LOGGER.info(f"Checking {file}")
    if file.stat().st_size != size or sha256(file) != digest:
        published = f"the published file of {size:,} bytes and SHA-256 {digest}"
        raise ConfigError(f"{file} is not {published}; run this again without it")


def unpack(archive: Path, folder: Path) -> Path:
    """Unpack a tar or zip file into a folder that appears when all is in it, unless it is there, and return it."""
    if not folder.is_dir():
        LOGGER.info(f"Unpacking {archive}")
        safe: Any = {"filter": "data"} if archive.suffix == ".tar" and hasattr(tarfile, "data_filter") else {}
        with create_folder(folder) as part:
            try:
                shutil.unpack_archive(archive, part, **safe)
            except (tarfile.TarError, shutil.ReadError, ValueError, EOFError) as e:
                raise ConfigError(f"{archive} cannot be unpacked ({e}); run this again without it") from e
    return folder
