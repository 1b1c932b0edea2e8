"""What a killed conversion has read is not read again."""

import json
import multiprocessing
import os
import shutil
import signal

import cv2
import pytest
from small_sets import an_object, make_voc, tree

from ultralytics_sgdm.configs import ConfigError
from ultralytics_sgdm.data import coco, convert_coco_json, convert_voc, voc
from ultralytics_sgdm.data.journal import Journal

IMAGES = 4


@pytest.fixture
def source(tmp_path):
    """Return a folder in VOC layout, described as COCO JSON too."""
    src = tmp_path / "src"
    make_voc(src, train={"t": []}, val={f"v{i}": [an_object("dog", (2, 2, 11, 21))] for i in range(IMAGES - 1)})
    images = sorted((src / "JPEGImages").iterdir())
    sizes = [cv2.imread(str(image)).shape[:2] for image in images]
    described = [
        {"id": i, "file_name": image.name, "width": w, "height": h}
        for i, (image, (h, w)) in enumerate(zip(images, sizes, strict=True))
    ]
    box = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 2, 3, 4]}
    content = {"images": described, "annotations": [box], "categories": [{"id": 1, "name": "dog"}]}
    (src / "src.json").write_text(json.dumps(content))
    return src


CONVERSIONS = {
    "voc": (voc, lambda src, dest: convert_voc(src, dest)),
    "coco": (coco, lambda src, dest: convert_coco_json(src / "src.json", src / "JPEGImages", dest, val="0.5")),
}


def die(*_, **__):
    os.kill(os.getpid(), signal.SIGKILL)


def convert_counting(monkeypatch, name, src, dest):
    """Convert; return the files that were read."""
    module, convert = CONVERSIONS[name]
    read = []
    for function in ("inspect_image", *(["_read_annotation"] if name == "voc" else [])):
        original = getattr(module, function)

        def told(file, *rest, original=original):
            read.append(file.name)
            return original(file, *rest)

        told.__name__ = function
        monkeypatch.setattr(module, function, told)
    convert(src, dest)
    monkeypatch.undo()
    return read


@pytest.mark.parametrize("name", CONVERSIONS)
def test_a_killed_conversion_reads_nothing_twice(source, tmp_path, monkeypatch, name):
    _, convert = CONVERSIONS[name]
    whole = convert_counting(monkeypatch, name, source, tmp_path / "whole")
    assert len(whole) == IMAGES * (2 if name == "voc" else 1)
    dest = tmp_path / "dest"

    def convert_and_die():
        monkeypatch.setattr("ultralytics_sgdm.data.layout.update_set", die)
        convert(source, dest)

    process = multiprocessing.get_context("fork").Process(target=convert_and_die)
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    with (dest / ".journal").open("a") as journal:
        journal.write("a line that was not fini")
    shutil.copytree(dest, tmp_path / "changed")
    assert convert_counting(monkeypatch, name, source, dest) == []
    assert tree(dest, times=False) == tree(tmp_path / "whole", times=False)

    os.utime(source / "JPEGImages/v1.jpg", ns=(1, 1))
    assert convert_counting(monkeypatch, name, source, tmp_path / "changed") == ["v1.jpg"]


def test_a_journal_of_other_libraries_is_not_believed(tmp_path, monkeypatch):
    file = tmp_path / "file"
    file.write_text("1")
    for version, seen in (("1", [1]), ("1", []), ("2", [1]), ("2", [])):
        monkeypatch.setattr("PIL.__version__", version)
        journal, read = Journal(tmp_path / "journal"), []

        def count(file, read=read):
            read.append(int(file.read_text()))
            return read[-1]

        assert journal(count, file) == 1
        journal.close(finished=False)
        assert read == seen


def test_a_refused_conversion_leaves_no_journal(source, tmp_path):
    with pytest.raises(ConfigError, match="no object"):
        convert_voc(source, tmp_path / "dest", classes="cat")
    assert not (tmp_path / "dest/.journal").exists()
