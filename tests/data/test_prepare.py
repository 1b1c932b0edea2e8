"""VOC 07+12 and COCO 2017 from small archives of the official layout, served on this machine."""

import hashlib
import os
import shutil
import tarfile

import pytest
import requests
from small_datasets import an_object, make_coco, make_voc, record, serving, tree
from ultralytics.data.utils import check_det_dataset

from ultralytics_sgdm.data import benchmarks, prepare, prepare_coco, prepare_voc
from ultralytics_sgdm.errors import ConfigError
from ultralytics_sgdm.files import sha256

VOC_FILES = ("VOCtrainval_06-Nov-2007.tar", "VOCtrainval_11-May-2012.tar", "VOCtest_06-Nov-2007.tar")
COCO_FILES = ("train2017.zip", "val2017.zip", "annotations_trainval2017.zip")
EXPECTED = {
    "VOC-sgdm.yaml": {"train": {"images": 5, "not_difficult": 10, "objects": 10}, "val": {"images": 2, "objects": 4}},
    "coco-sgdm.yaml": {"train2017": {"images": 3, "objects": 1}, "val2017": {"images": 2, "objects": 1}},
}
CONTENT = os.urandom(3_000_000)


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
        shutil.make_archive(folder / file.removesuffix(".tar"), "tar", folder / f"{file}.d")
        shutil.copytree(folder / f"{file}.d/VOCdevkit", folder / "VOCdevkit", dirs_exist_ok=True)
    coco = folder / "coco"
    make_coco(coco, "train2017", [[(1, [1, 1, 8, 8], 0)], [(3, [0, 0, 9, 9], 1)], []])
    make_coco(coco, "val2017", [[(3, [2, 2, 8, 8], 0)], []])
    for file, part in zip(COCO_FILES, ("train2017", "val2017", "annotations"), strict=True):
        shutil.make_archive(folder / file.removesuffix(".zip"), "zip", coco, part)
    return folder


@pytest.fixture
def server(originals, monkeypatch):
    """Serve the small archives in the place of the official ones, with their counts in the place of the published."""
    monkeypatch.setattr(benchmarks, "PAUSE", 0.01)
    monkeypatch.delenv(benchmarks.ROOT_VARIABLE, raising=False)
    load = benchmarks._load
    with serving({name: (originals / name).read_bytes() for name in (*VOC_FILES, *COCO_FILES)}) as state:

        def load_here(name):
            described = load(name)
            for archive in described["archives"]:
                file = archive["url"].rpartition("/")[2]
                sha256 = hashlib.sha256(state.files[file]).hexdigest()
                archive |= {"url": f"{state.url}/{file}", "size": len(state.files[file]), "sha256": sha256}
            return described | {"expected": EXPECTED[name]}

        monkeypatch.setattr(benchmarks, "_load", load_here)
        yield state


def rows(dest):
    return {str(p.relative_to(dest)): p.read_text() for p in dest.rglob("labels/*/*.txt")}


def test_the_published_values():
    """The figures of the sources named in the YAMLs, written down a second time."""
    voc, coco = (benchmarks._load(name) for name in EXPECTED)
    values = [(a["url"].rpartition("/")[2], a["size"], a["sha256"][:8]) for a in voc["archives"] + coco["archives"]]
    assert values == [
        ("VOCtrainval_06-Nov-2007.tar", 460032000, "7d8cd951"),
        ("VOCtrainval_11-May-2012.tar", 1999639040, "e14f7632"),
        ("VOCtest_06-Nov-2007.tar", 451020800, "6836888e"),
        ("train2017.zip", 19336861798, "69a8bb58"),
        ("val2017.zip", 815585330, "4f7e2ccb"),
        ("annotations_trainval2017.zip", 252907541, "113a836d"),
    ]
    assert [[*split.values()] for split in voc["expected"].values()] == [[16551, 47223, 40058], [4952, 24640 - 12608]]
    assert [[*split.values()] for split in coco["expected"].values()] == [[118287, 860001], [5000, 36781]]
    assert [len(described["names"]) for described in (voc, coco)] == [20, 80]


@pytest.mark.parametrize("name", EXPECTED)
def test_a_shipped_yaml_prepares_its_dataset_when_ultralytics_asks(server, tmp_path, monkeypatch, name):
    monkeypatch.setattr("ultralytics.data.utils.DATASETS_DIR", tmp_path)
    data = check_det_dataset(name)
    dest = tmp_path / name.removesuffix(".yaml")
    assert data["path"] == dest and record(dest)["options"]["published"] == EXPECTED[name]
    assert check_det_dataset(str(dest / "data.yaml"))["val"] == data["val"]
    asked, before = server.requests.copy(), tree(dest)
    check_det_dataset(name)
    prepare(name, dest)
    assert server.requests == asked and set(asked.values()) == {1} and tree(dest) == before
    assert sorted(p.name for p in tmp_path.iterdir()) == [dest.name, f"{dest.name}-downloads"]


def test_voc_is_taken_from_wherever_it_is(server, originals, tmp_path, monkeypatch):
    prepare_voc(tmp_path / "downloaded")
    asked, before = server.requests.copy(), tree(originals)
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
    image = tmp_path / "devkit/images/train/2008_000002.jpg"
    assert image.samefile(originals / "VOCdevkit/VOC2012/JPEGImages/2008_000002.jpg")
    part = tmp_path / "part/VOCdevkit"
    shutil.copytree(originals / "VOCdevkit", part, ignore=shutil.ignore_patterns("VOC2012"))
    prepare_voc(tmp_path / "one part is nowhere", part)
    assert server.requests[VOC_FILES[1]] == asked[VOC_FILES[1]] + 1


def test_coco_is_taken_from_wherever_it_is(server, originals, tmp_path):
    prepare_coco(tmp_path / "downloaded")
    asked = server.requests.copy()
    prepare_coco(tmp_path / "unpacked", originals / "coco")
    shutil.copytree(originals / "coco", tmp_path / "ultralytics/images")
    (tmp_path / "ultralytics/images/annotations").rename(tmp_path / "ultralytics/annotations")
    prepare_coco(tmp_path / "inside images", tmp_path / "ultralytics", images="symlink")
    assert server.requests == asked
    for name in ("unpacked", "inside images"):
        assert rows(tmp_path / name) == rows(tmp_path / "downloaded")
        annotations = tmp_path / name / "annotations/instances_val2017.json"
        assert annotations.read_bytes() == (originals / "coco/annotations/instances_val2017.json").read_bytes()


def test_an_incomplete_source_is_refused(server, originals, tmp_path):
    ignore = shutil.ignore_patterns("2008_000003.jpg")
    devkit = shutil.copytree(originals / "VOCdevkit", tmp_path / "VOCdevkit", ignore=ignore)
    message = r"(?s)train has .'images': 4,.*published are .'images': 5,.*no images JPEGImages/2008_000003\.\*"
    with pytest.raises(ConfigError, match=message):
        prepare_voc(tmp_path / "voc", devkit)
    assert not (tmp_path / "voc").exists()


@pytest.mark.skipif(not hasattr(tarfile, "data_filter"), reason="this Python's tarfile refuses nothing")
def test_a_member_that_points_outside_is_refused(tmp_path):
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        tar.add(__file__, "../outside.py")
    sizes = {"size": (tmp_path / "a.tar").stat().st_size, "sha256": sha256(tmp_path / "a.tar")}
    with pytest.raises(ConfigError, match=r"a.tar cannot be unpacked: .*outside.py"):
        benchmarks._find({"url": "http://nowhere/a.tar", "holds": "b", **sizes}, tmp_path, tmp_path / "store/in")
    assert [file.name for file in tmp_path.rglob("*.py")] == []


@pytest.mark.parametrize(
    ("message", "arguments"),
    [
        ("gone, given as root= or SGDM_DATA_ROOT, is not a folder", ("VOC-sgdm.yaml", "voc", "gone")),
        ("'voc-sgdm' is not one of VOC-sgdm.yaml, coco-sgdm.yaml; did you mean", ("voc-sgdm",)),
        ("mine exists and is left as it is", ("coco-sgdm.yaml", "mine")),
        ("images=move must be one of", ("coco-sgdm.yaml", "coco", None, "move")),
    ],
)
def test_wrong_arguments_are_refused_before_a_download(server, tmp_path, monkeypatch, message, arguments):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine").mkdir()
    with pytest.raises(ConfigError, match=message):
        prepare(*arguments)
    assert not server.requests


def test_without_a_connection_the_files_to_get_are_listed(server, tmp_path):
    server.status = 503
    store = tmp_path / "voc-downloads"
    with pytest.raises(ConfigError, match=f"503 .*/{VOC_FILES[0]}(?s:.*)put these files into {store}:") as error:
        prepare("VOC-sgdm.yaml", tmp_path / "voc")
    assert all(name in str(error.value) for name in VOC_FILES)
    assert server.requests[VOC_FILES[0]] == benchmarks.ATTEMPTS
    server.requests.clear()
    for name in VOC_FILES:
        (store / name).write_bytes(server.files[name])
    (store / VOC_FILES[2]).write_bytes(b"another")
    with pytest.raises(ConfigError, match=f"{VOC_FILES[2]} is not the published file of .* bytes and SHA-256"):
        prepare("VOC-sgdm.yaml", tmp_path / "voc")
    (store / VOC_FILES[2]).write_bytes(server.files[VOC_FILES[2]])
    prepare("VOC-sgdm.yaml", tmp_path / "voc")
    assert not server.requests


def test_another_dataset_is_not_taken_for_it(server, tmp_path):
    (tmp_path / "voc").mkdir()
    (tmp_path / "voc/data.yaml").write_text("names: {0: cat}\n")
    with pytest.raises(ConfigError, match="voc holds another dataset; name a new folder with dest="):
        prepare("VOC-sgdm.yaml", tmp_path / "voc")
    assert not server.requests


@pytest.mark.parametrize("page", [b"log in", None])
def test_a_page_in_place_of_the_file_ends_and_loses_nothing(server, tmp_path, page):
    (tmp_path / "set.tar.part").write_bytes(CONTENT[:9000])
    server.files["set.tar"], server.ranges = page or CONTENT, False
    server.cuts["set.tar"] = [None if page else 0] * benchmarks.ATTEMPTS
    with pytest.raises(requests.RequestException):
        benchmarks.download(f"{server.url}/set.tar", len(CONTENT), tmp_path / "set.tar")
    assert server.requests["set.tar"] == benchmarks.ATTEMPTS
    assert (tmp_path / "set.tar.part").stat().st_size == (9000 if page else 0)


def download(server, folder):
    server.files["set.tar"] = CONTENT
    benchmarks.download(f"{server.url}/set.tar", len(CONTENT), folder / "set.tar")
    return (folder / "set.tar").read_bytes()


def test_an_interrupted_transfer_goes_on_where_it_broke_also_in_another_run(server, tmp_path):
    server.cuts["set.tar"] = [1_500_000, *[0] * benchmarks.ATTEMPTS, 1_000_000, 0, None]
    with pytest.raises(requests.RequestException):
        download(server, tmp_path)
    assert (tmp_path / "set.tar.part").stat().st_size >= 1_500_000 - benchmarks.CHUNK
    assert download(server, tmp_path) == CONTENT
    assert server.requests["set.tar"] == benchmarks.ATTEMPTS + 4
    assert server.sent["set.tar"] < len(CONTENT) + 2 * benchmarks.CHUNK
    assert [p.name for p in tmp_path.iterdir()] == ["set.tar"]


@pytest.mark.parametrize("ranges", [True, False])
@pytest.mark.parametrize("have", [CONTENT[:9000], CONTENT])
def test_what_is_there_already_is_used_if_the_server_can(server, tmp_path, ranges, have):
    (tmp_path / "set.tar.part").write_bytes(have)
    server.ranges = ranges
    assert download(server, tmp_path) == CONTENT
    assert server.sent["set.tar"] == (len(CONTENT) - len(have) if ranges or have == CONTENT else len(CONTENT))
