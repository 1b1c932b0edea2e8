import hashlib
import json
import shutil
import tarfile
import zipfile

import pytest
from small_sets import an_object, make_coco, make_voc, serving, tree
from ultralytics.data.utils import check_det_dataset
from ultralytics.utils import YAML

from ultralytics_sgdm.configs import ConfigError, find_yaml
from ultralytics_sgdm.data import benchmarks, prepare, prepare_coco, prepare_voc


VOC_FILES = ("VOCtrainval_06-Nov-2007.tar", "VOCtrainval_11-May-2012.tar", "VOCtest_06-Nov-2007.tar")
COCO_FILES = ("train2017.zip", "val2017.zip", "annotations_trainval2017.zip")


@pytest.fixture(scope="module")
def originals(tmp_path_factory):
    """Small archives of the layout of the official ones, and what they hold, unpacked."""
    folder = tmp_path_factory.mktemp("originals")
    names = ("aeroplane", "dog", "tvmonitor")
    for file, year, image_set, ids in (
        (VOC_FILES[0], 2007, "trainval", ("000005", "000007")),
        (VOC_FILES[1], 2012, "trainval", ("2008_000002", "2008_000003", "2011_000003")),
        (VOC_FILES[2], 2007, "test", ("000001", "000002")),
    ):
        entries = {i: [an_object(name, (2, 3, 9, 9), name == "dog") for name in names] for i in ids}
        make_voc(folder / f"{file}.d/VOCdevkit/VOC{year}", **{image_set: entries})
        (folder / f"{file}.d/VOCdevkit/VOC{year}/ImageSets/Main/dog_{image_set}.txt").write_text("000005  1\n")
        (folder / f"{file}.d/VOCdevkit/VOC{year}/SegmentationClass").mkdir()
        (folder / f"{file}.d/VOCdevkit/VOC{year}/SegmentationClass/{ids[0]}.png").write_bytes(b"png")
        with tarfile.open(folder / file, "w") as t:
            t.add(folder / f"{file}.d/VOCdevkit", "VOCdevkit")
        shutil.copytree(folder / f"{file}.d/VOCdevkit", folder / "VOCdevkit", dirs_exist_ok=True)
    coco = folder / "coco"
    make_coco(coco, "train2017", [[(1, [1, 1, 8, 8], 0)], [(3, [0, 0, 9, 9], 1)], []])
    make_coco(coco, "val2017", [[(3, [2, 2, 8, 8], 0)], []])
    for file, part in zip(COCO_FILES, ("train2017", "val2017", "annotations"), strict=True):
        with zipfile.ZipFile(folder / file, "w") as z:
            for path in sorted((coco / part).iterdir()):
                z.write(path, f"{part}/{path.name}")
    return folder


@pytest.fixture
def server(originals, monkeypatch):
    """Serve the small archives in the place of the official ones, with their counts in the place of the published."""
    with serving({name: (originals / name).read_bytes() for name in (*VOC_FILES, *COCO_FILES)}) as state:

        def here(part):
            content = state.files[part.archive.name]
            sha256 = hashlib.sha256(content).hexdigest()
            archive = benchmarks.Archive(f"{state.url}/{part.archive.name}", len(content), sha256)
            return part._replace(archive=archive)

        voc = {split: tuple(map(here, parts)) for split, parts in benchmarks.VOC_PARTS.items()}
        monkeypatch.setattr(benchmarks, "VOC_PARTS", voc)
        monkeypatch.setattr(benchmarks, "VOC_EXPECTED", {"train": Expected(5, 15, 10), "val": Expected(2, None, 4)})
        images = {split: here(part) for split, part in benchmarks.COCO_IMAGES.items()}
        monkeypatch.setattr(benchmarks, "COCO_IMAGES", images)
        monkeypatch.setattr(benchmarks, "COCO_INSTANCES", here(benchmarks.COCO_INSTANCES))
        monkeypatch.setattr(benchmarks, "COCO_EXPECTED", {"train2017": Expected(3, 2), "val2017": Expected(2, 1)})
        monkeypatch.delenv(benchmarks.ROOT_VARIABLE, raising=False)
        yield state


def counts(dest):
    splits = json.loads((dest / "conversion.json").read_text())["splits"]
    return {name: (split["images"], split["objects"]) for name, split in splits.items()}


def rows(dest):
    return {str(p.relative_to(dest)): p.read_text() for p in dest.rglob("labels/*/*.txt")}


def test_the_published_values():
    """The figures of the sources named in the module, written down a second time."""
    archives = [part.archive for parts in benchmarks.VOC_PARTS.values() for part in parts]
    assert [(a.name, a.size, a.sha256[:8]) for a in archives] == [
        ("VOCtrainval_06-Nov-2007.tar", 460032000, "7d8cd951"),
        ("VOCtrainval_11-May-2012.tar", 1999639040, "e14f7632"),
        ("VOCtest_06-Nov-2007.tar", 451020800, "6836888e"),
    ]
    parts = (*benchmarks.COCO_IMAGES.values(), benchmarks.COCO_INSTANCES)
    assert [(p.archive.name, p.archive.size, p.archive.sha256[:8]) for p in parts] == [
        ("train2017.zip", 19336861798, "69a8bb58"),
        ("val2017.zip", 815585330, "4f7e2ccb"),
        ("annotations_trainval2017.zip", 252907541, "113a836d"),
    ]
    assert all(len(a.sha256) == 64 for a in (*archives, *(p.archive for p in parts)))
    assert benchmarks.VOC_EXPECTED == {"train": (16551, 47223, 40058), "val": (4952, None, 12032)}
    assert benchmarks.COCO_EXPECTED == {"train2017": (118287, 860001, None), "val2017": (5000, 36781, None)}
    for name, classes in ((benchmarks.VOC_YAML, 20), (benchmarks.COCO_YAML, 80)):
        assert len(YAML.load(find_yaml(name))["names"]) == classes


@pytest.mark.parametrize("name", [benchmarks.VOC_YAML, benchmarks.COCO_YAML])
def test_a_shipped_yaml_prepares_its_set_when_ultralytics_asks(server, tmp_path, monkeypatch, name):
    monkeypatch.setattr("ultralytics.data.utils.DATASETS_DIR", tmp_path)
    data = check_det_dataset(name)
    dest = tmp_path / name.removesuffix(".yaml")
    assert data["path"] == dest
    voc = {"train": (5, 10), "val": (2, 4)}
    assert counts(dest) == (voc if name == benchmarks.VOC_YAML else {"train2017": (3, 1), "val2017": (2, 1)})
    assert check_det_dataset(str(dest / "data.yaml"))["val"] == data["val"]
    asked = server.requests.copy()
    check_det_dataset(name)
    assert server.requests == asked and set(asked.values()) == {1}
    assert not list(dest.rglob("*.lock")) and not list(dest.rglob("*part"))


def test_voc_is_taken_from_wherever_it_is(server, originals, tmp_path, monkeypatch):
    prepare_voc(tmp_path / "downloaded")
    asked = server.requests.copy()
    before = tree(originals)
    (tmp_path / "tars").mkdir()
    for name in VOC_FILES:
        shutil.copy(originals / name, tmp_path / "tars")
    prepare_voc(tmp_path / "archives", tmp_path / "tars")
    prepare_voc(tmp_path / "devkit", originals / "VOCdevkit")
    monkeypatch.setenv(benchmarks.ROOT_VARIABLE, str(originals))
    prepare_voc(tmp_path / "above devkit")
    assert server.requests == asked and tree(originals) == before
    for name in ("archives", "devkit", "above devkit"):
        assert rows(tmp_path / name) == rows(tmp_path / "downloaded")
    assert not (tmp_path / "devkit/unpacked").exists() and not (tmp_path / "devkit/downloads").exists()
    image = tmp_path / "devkit/images/train/2008_000002.jpg"
    assert image.samefile(originals / "VOCdevkit/VOC2012/JPEGImages/2008_000002.jpg")


def test_coco_is_taken_from_wherever_it_is(server, originals, tmp_path):
    prepare_coco(tmp_path / "downloaded")
    asked, before = server.requests.copy(), tree(originals)
    prepare_coco(tmp_path / "unpacked", originals / "coco")
    (tmp_path / "ultralytics/images").mkdir(parents=True)
    for split in ("train2017", "val2017"):
        shutil.copytree(originals / "coco" / split, tmp_path / "ultralytics/images" / split)
    shutil.copytree(originals / "coco/annotations", tmp_path / "ultralytics/annotations")
    prepare_coco(tmp_path / "images", tmp_path / "ultralytics", images="symlink")
    assert server.requests == asked and tree(originals) == before
    for name in ("unpacked", "images"):
        assert rows(tmp_path / name) == rows(tmp_path / "downloaded")
        annotations = tmp_path / name / "annotations/instances_val2017.json"
        assert annotations.read_bytes() == (originals / "coco/annotations/instances_val2017.json").read_bytes()


def test_a_half_prepared_set_is_completed_not_accepted(server, originals, tmp_path):
    dest = tmp_path / "voc"
    prepare_voc(dest)
    whole = tree(dest)
    for name in ("val.txt", "data.yaml", "labels/val/000001.txt", "images/train/2008_000002.jpg"):
        (dest / name).unlink()
    shutil.rmtree(dest / "unpacked/VOCtest_06-Nov-2007")
    prepare_voc(dest)
    assert {name: content for name, (content, _) in tree(dest).items()} == {k: v[0] for k, v in whole.items()}
    assert set(server.requests.values()) == {1}


def test_an_incomplete_source_is_refused(server, originals, tmp_path):
    devkit = tmp_path / "VOCdevkit"
    shutil.copytree(originals / "VOCdevkit", devkit)
    (devkit / "VOC2012/JPEGImages/2008_000003.jpg").unlink()
    with pytest.raises(ConfigError) as error:
        prepare_voc(tmp_path / "voc", devkit)
    assert "the split train has 4 images, 5 are published" in str(error.value)
    assert "no image JPEGImages/2008_000003.*" in str(error.value)
    assert not (tmp_path / "voc/val.txt").exists()
    shutil.copy(originals / "VOCdevkit/VOC2012/JPEGImages/2008_000003.jpg", devkit / "VOC2012/JPEGImages")
    prepare_voc(tmp_path / "voc", devkit)
    assert counts(tmp_path / "voc") == {"train": (5, 10), "val": (2, 4)}


def test_one_part_may_be_there_and_another_not(server, originals, tmp_path):
    shutil.copytree(originals / "VOCdevkit", tmp_path / "VOCdevkit")
    shutil.rmtree(tmp_path / "VOCdevkit/VOC2012")
    prepare_voc(tmp_path / "voc", tmp_path)
    assert server.requests == {"VOCtrainval_11-May-2012.tar": 1}
    assert counts(tmp_path / "voc") == {"train": (5, 10), "val": (2, 4)}


def test_downloads_that_break_are_continued(server, tmp_path, monkeypatch):
    monkeypatch.setattr("ultralytics_sgdm.data.downloads.PAUSE", 0.01)
    server.cuts[VOC_FILES[1]] = [9_000, None]
    prepare_voc(tmp_path / "voc")
    assert server.requests[VOC_FILES[1]] == 2
    assert counts(tmp_path / "voc") == {"train": (5, 10), "val": (2, 4)}


def test_too_little_room_is_found_before_the_first_byte(server, tmp_path, monkeypatch):
    need = sum(len(server.files[name]) for name in VOC_FILES)
    usage = shutil.disk_usage(tmp_path)._replace(free=2 * need - 1)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage)
    with pytest.raises(ConfigError, match="MB are needed there"):
        prepare_voc(tmp_path / "voc")
    assert not server.requests
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage._replace(free=2 * need))
    prepare_voc(tmp_path / "voc")


def test_what_is_not_there_is_said_at_once(server, tmp_path):
    with pytest.raises(ConfigError, match="gone, given as root= or SGDM_DATA_ROOT, is no folder"):
        prepare_voc(tmp_path / "voc", tmp_path / "gone")
    with pytest.raises(ConfigError, match=r"'voc-sgdm' is not one of VOC-sgdm.yaml, coco-sgdm.yaml; did you mean"):
        prepare("voc-sgdm")
    (tmp_path / "mine/labels").mkdir(parents=True)
    (tmp_path / "own").mkdir()
    (tmp_path / "own/val2017.txt").touch()
    for data, dest, name in (("VOC-sgdm.yaml", "mine", "labels"), ("coco-sgdm.yaml", "own", "val2017.txt")):
        with pytest.raises(ConfigError, match=f"{dest} already holds {name} of something else"):
            prepare(data, tmp_path / dest)
    assert not server.requests


def test_offline_the_user_is_told_what_to_fetch(server, tmp_path):
    server.status = 404
    with pytest.raises(ConfigError) as error:
        prepare("VOC-sgdm.yaml", tmp_path / "voc")
    assert f"put these files into {tmp_path}/voc/downloads:" in str(error.value)
    assert all(name in str(error.value) for name in VOC_FILES)
    server.status = 200
    (tmp_path / "voc/downloads").mkdir(exist_ok=True)
    for name in VOC_FILES:
        (tmp_path / "voc/downloads" / name).write_bytes(server.files[name])
    server.requests.clear()
    prepare("VOC-sgdm.yaml", tmp_path / "voc")
    assert not server.requests
