"""PASCAL VOC 07+12 and COCO 2017 as the literature uses them: where they come from, their checksums and counts.

Each part is taken from where it is: an unpacked folder, an archive, an earlier download; what is nowhere is downloaded.
Nothing but the new set's own folder is written to.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from ultralytics.utils import DATASETS_DIR, YAML

from ..configs import CFG, ConfigError, near_names
from .coco import Source, convert_coco
from .downloads import Archive, obtain, unpack
from .files import naming_disk_errors, place_file
from .layout import Expected, check_unclaimed
from .voc import convert_image_sets

ROOT_VARIABLE = "SGDM_DATA_ROOT"
VOC_YAML, COCO_YAML = "VOC-sgdm.yaml", "coco-sgdm.yaml"


class Part(NamedTuple):
    """One archive: the pattern of what is needed of it, and where that begins.

    `key` is a file or folder inside the archive, `unpacked` are the places where it stands in a folder of the user's.
    """

    archive: Archive
    wanted: str
    key: str
    unpacked: tuple[str, ...]


def _voc(year: int, image_set: str, archive: Archive) -> Part:
    image_set = f"VOC{year}/ImageSets/Main/{image_set}.txt"
    wanted = rf"VOCdevkit/(VOC{year}/Annotations/[^/]+\.xml|VOC{year}/JPEGImages/[^/]+\.jpg|{image_set})"
    return Part(archive, wanted, f"VOCdevkit/{image_set}", (image_set, f"VOCdevkit/{image_set}"))


def _coco_images(split: str, archive: Archive) -> Part:
    return Part(archive, rf"{split}/[^/]+\.jpg", split, (split, f"images/{split}"))


# VOC's URLs: torchvision 0.29, torchvision/datasets/voc.py. COCO's: https://cocodataset.org/#download.
# Bytes and SHA-256: TensorFlow Datasets, tensorflow_datasets/url_checksums/voc.txt and coco.txt.
_VOC_URL = "https://thor.robots.ox.ac.uk/pascal/VOC"
_COCO_URL = "http://images.cocodataset.org"
VOC_2007_TRAINVAL = Archive(
    f"{_VOC_URL}/voc2007/VOCtrainval_06-Nov-2007.tar",
    460_032_000,
    "7d8cd951101b0957ddfd7a530bdc8a94f06121cfc1e511bb5937e973020c7508",
)
VOC_2007_TEST = Archive(
    f"{_VOC_URL}/voc2007/VOCtest_06-Nov-2007.tar",
    451_020_800,
    "6836888e2e01dca84577a849d339fa4f73e1e4f135d312430c4856b5609b4892",
)
VOC_2012_TRAINVAL = Archive(
    f"{_VOC_URL}/voc2012/VOCtrainval_11-May-2012.tar",
    1_999_639_040,
    "e14f763270cf193d0b5f74b169f44157a4b0c6efa708f4dd0ff78ee691763bcb",
)
COCO_TRAIN = Archive(
    f"{_COCO_URL}/zips/train2017.zip",
    19_336_861_798,
    "69a8bb58ea5f8f99d24875f21416de2e9ded3178e903f1f7603e283b9e06d929",
)
COCO_VAL = Archive(
    f"{_COCO_URL}/zips/val2017.zip",
    815_585_330,
    "4f7e2ccb2866ec5041993c9cf2a952bbed69647b115d0f74da7ce8f4bef82f05",
)
COCO_ANNOTATIONS = Archive(
    f"{_COCO_URL}/annotations/annotations_trainval2017.zip",
    252_907_541,
    "113a836d90195ee1f884e704da6304dfaaecff1f023f49b6ca93c4aaae470268",
)

VOC_PARTS = {
    "train": (_voc(2007, "trainval", VOC_2007_TRAINVAL), _voc(2012, "trainval", VOC_2012_TRAINVAL)),
    "val": (_voc(2007, "test", VOC_2007_TEST),),
}
COCO_IMAGES = {"train2017": _coco_images("train2017", COCO_TRAIN), "val2017": _coco_images("val2017", COCO_VAL)}
COCO_INSTANCES = Part(COCO_ANNOTATIONS, r"annotations/instances_(train|val)2017\.json", "annotations", ("annotations",))

# Liu et al., Deep Learning for Generic Object Detection: A Survey, IJCV 128 (2020), table 3: 15,662 objects in VOC07
# trainval, 12,608 without the difficult ones; 31,561 and 27,450 in VOC12 trainval; COCO. VOC07 test: the VOC2007
# development kit, section 2.1, has 24,640 objects that are not difficult in trainval and test together.
VOC_EXPECTED = {"train": Expected(16_551, 47_223, 40_058), "val": Expected(4_952, None, 24_640 - 12_608)}
COCO_EXPECTED = {"train2017": Expected(118_287, 860_001), "val2017": Expected(5_000, 36_781)}


def prepare_voc(
    dest: str | Path,
    root: str | Path | None = None,
    images: str = "hardlink",
    difficult: str = "drop",
    val_difficult: str = "drop",
) -> Path:
    """Prepare VOC 07+12: trained on trainval of both years, validated on the test images of 2007.

    Args:
        dest: Folder of the set, see `layout`; downloads and what is unpacked stay in it too.
        root: Folder with the official tar files, or with a `VOCdevkit`, or that `VOCdevkit` itself; only read. Without
            it, the environment variable SGDM_DATA_ROOT.
        images: "hardlink", "copy" or "symlink" the images.
        difficult: "drop" or "keep" the objects marked difficult in the training images.
        val_difficult: The same for the validation images.

    Returns:
        The set's YAML.

    Raises:
        ConfigError: If a file is missing, damaged or not to be had, if the disk is too small, or if the counts are not
            the published ones; run it again when that is mended, and it goes on where it stopped.
    """
    dest = Path(dest).resolve()
    parts = [part for split in VOC_PARTS.values() for part in split]
    keys = dict(zip(parts, _locate(parts, dest, root, VOC_PARTS), strict=True))
    image_sets = {split: [keys[part] for part in parts] for split, parts in VOC_PARTS.items()}
    names = list(_shipped(VOC_YAML)["names"].values())
    return convert_image_sets(image_sets, dest, names, "voc", difficult, val_difficult, images, expected=VOC_EXPECTED)


def prepare_coco(dest: str | Path, root: str | Path | None = None, images: str = "hardlink") -> Path:
    """Prepare COCO 2017, its lists and annotations so named that `yolo val` ends with COCO's own evaluation.

    Args:
        dest: Folder of the set, as for `prepare_voc`.
        root: Folder with the official zip files, or with `annotations` and `train2017`, `val2017` or `images` of them.
        images: "hardlink", "copy" or "symlink" the images.

    Returns:
        The set's YAML.

    Raises:
        ConfigError: As `prepare_voc`.
    """
    dest = Path(dest).resolve()
    *folders, annotations = _locate([*COCO_IMAGES.values(), COCO_INSTANCES], dest, root, COCO_IMAGES)
    sources = {
        split: Source(annotations / f"instances_{split}.json", folder)
        for split, folder in zip(COCO_IMAGES, folders, strict=True)
    }
    with naming_disk_errors(dest):
        (dest / "annotations").mkdir(exist_ok=True)
        for source in sources.values():
            place_file(source.annotations, dest / "annotations" / source.annotations.name, images)
    return convert_coco(sources, dest, {"train": "train2017", "val": "val2017"}, images, expected=COCO_EXPECTED)


_PREPARE = {VOC_YAML: prepare_voc, COCO_YAML: prepare_coco}


def prepare(
    data: str, dest: str | Path | None = None, root: str | Path | None = None, images: str = "hardlink"
) -> Path:
    """Prepare VOC-sgdm.yaml or coco-sgdm.yaml ahead of training, from files in root= or by downloading them.

    Args:
        data: "VOC-sgdm.yaml" or "coco-sgdm.yaml".
        dest: Folder of the set; without it, where that YAML has it, in Ultralytics' folder of data sets.
        root: See `prepare_voc`.
        images: See `prepare_voc`.

    Returns:
        The set's YAML in that folder.

    Raises:
        ConfigError: If there is no such set, or as `prepare_voc`.
    """
    if data not in _PREPARE:
        raise ConfigError(f"{data!r} is not one of {', '.join(_PREPARE)}{near_names(data, list(_PREPARE))}")
    return _PREPARE[data](dest or DATASETS_DIR / _shipped(data)["path"], root, images)


def _shipped(name: str) -> dict:
    return YAML.load(CFG / "datasets" / name)


def _locate(parts: Sequence[Part], dest: Path, root: str | Path | None, splits: Iterable[str]) -> list[Path]:
    """Return where the key of each part stands, after downloading and unpacking what is not there."""
    check_unclaimed(dest, splits)
    root = root or os.environ.get(ROOT_VARIABLE)
    root = Path(root).resolve() if root else None
    if root and not root.is_dir():
        raise ConfigError(f"{root}, given as root= or {ROOT_VARIABLE}, is no folder")
    with naming_disk_errors(dest):
        dest.mkdir(parents=True, exist_ok=True)
    folders = {part: dest / "unpacked" / Path(part.archive.name).stem for part in parts}
    found = {part: _unpacked(part, folders[part], root) for part in parts}
    packed = [part for part in parts if found[part] is None]
    room = sum(part.archive.size or 0 for part in packed)  # about as much as it is packed: photographs hardly shrink
    files = obtain([part.archive for part in packed], dest / "downloads", root, room)
    for part, file in zip(packed, files, strict=True):
        found[part] = unpack(file, folders[part], part.wanted) / part.key
    return [place for part in parts if (place := found[part])]


def _unpacked(part: Part, folder: Path, root: Path | None) -> Path | None:
    places = [root / place for place in part.unpacked] if root else []
    return next((place for place in (*places, folder / part.key) if place.exists()), None)
