import json

import pytest
from small_sets import tree, write_image

from ultralytics_sgdm.configs import ConfigError
from ultralytics_sgdm.data import layout, update
from ultralytics_sgdm.data.files import PART
from ultralytics_sgdm.data.layout import Expected, Object, Sample, Split, claimed, write_set

OPTIONS = {"images": "hardlink"}


@pytest.fixture
def splits(tmp_path):
    def sample(name, *objects):
        image = write_image(tmp_path / f"src/{name}.jpg")
        return Sample(name, image, 40, 30, True, f"{name}.xml:", [Object("x", *o) for o in objects])

    train = Split([sample("a", (0, 0, 4, 3, False, 1), (0, 0, 4, 3, True, 2)), sample("b")], ["c.xml: gone"])
    return {"train": train, "val": Split([sample("d", (1, 1, 9, 9, False, 7))])}


def write(dest, splits, options=OPTIONS, **more):
    with claimed(dest, options):
        return write_set(dest, splits, {"train": "train", "val": "val"}, ["x"], options, {}, **more)


def test_the_validation_list_is_written_last(tmp_path, splits, monkeypatch):
    written = []
    write_file, place_file = update.write_file, update.place_file
    monkeypatch.setattr(update, "write_file", lambda path, c: (written.append(path.name), write_file(path, c)))
    monkeypatch.setattr(update, "place_file", lambda s, t, how: (written.append(t.name), place_file(s, t, how)))
    write(tmp_path / "dest", splits)
    assert written[:2] == ["conversion.json", "written.sha256"]
    assert written[-5:] == ["conversion.json", "data.yaml", "train.txt", "val.txt", "written.sha256"]
    assert sorted(written[3:-5]) == ["a.jpg", "a.txt", "b.jpg", "b.txt", "d.jpg", "d.txt"]


def test_the_report_counts_images_objects_and_classes(tmp_path, splits, caplog):
    with caplog.at_level("INFO", "ultralytics"):
        write(tmp_path / "dest", splits)
    assert caplog.messages[-1].splitlines() == [
        "images / objects             train               val",
        "x                            1 / 1             1 / 1",
        "all                          2 / 1             1 / 1",
        "background                       1                 0",
        "train: 1 difficult (COCO: crowd) objects dropped",
        "skipped: 1",
        "  train: c.xml: gone",
        f"data={tmp_path}/dest/data.yaml",
    ]
    recorded = json.loads((tmp_path / "dest/conversion.json").read_text())
    assert recorded["splits"]["train"] == {
        "images": 2,
        "backgrounds": 1,
        "objects": 1,
        "annotated": 2,
        "difficult": 1,
        "difficult_policy": "drop",
        "clipped": 0,
        "other_classes": {},
        "images_per_class": {"x": 1},
        "objects_per_class": {"x": 1},
    }


@pytest.mark.parametrize(
    ("expected", "message"),
    [
        (Expected(3), r"the split train has 2 images, 3 are published; .* incomplete or changed\n  c.xml: gone"),
        (Expected(2, 3), "2 objects, 3 are published"),
        (Expected(2, 2, 2), "1 not difficult, 2 are published"),
    ],
)
def test_unexpected_counts_are_refused_before_anything_is_written(tmp_path, splits, expected, message):
    with pytest.raises(ConfigError, match=message):
        write(tmp_path / "dest", splits, expected={"train": expected})
    assert tree(tmp_path / "dest") == {}
    write(tmp_path / "dest", splits, expected={"train": Expected(2, 2, 1), "val": Expected(1, None, 1)})


def test_copies_need_room(tmp_path, splits, monkeypatch):
    splits["train"].samples[0].image.write_bytes(bytes(5_000))

    def no_room(folder, needed):
        assert needed > 5_000
        raise ConfigError("no room")

    monkeypatch.setattr(layout, "require_space", no_room)
    with pytest.raises(ConfigError, match="no room"):
        write(tmp_path / "dest", splits, {"images": "copy"})
    assert tree(tmp_path / "dest") == {}


def test_a_record_that_is_none_is_refused(tmp_path, splits):
    (tmp_path / "dest").mkdir()
    (tmp_path / "dest/conversion.json").write_text("[]")
    with pytest.raises(ConfigError, match=r"conversion.json is no record of a conversion"):
        write(tmp_path / "dest", splits)


def test_a_part_of_the_users_is_kept_and_one_of_a_killed_run_goes(tmp_path, splits):
    dest = tmp_path / "dest"
    write(dest, splits)
    made = tree(dest, times=False)
    ours = ("data.yaml", "train.txt", "labels/train/a.txt", "images/train/a.jpg", "images/val/gone.jpg")
    for name in ours:
        (dest / name).unlink(missing_ok=True)
        (dest / f"{name}.part").write_text("the user's")
        (dest / f"{name}{PART}").write_text("left by a killed run")
    write(dest, splits)
    assert tree(dest, times=False) == made | {f"{name}.part": (b"the user's", None) for name in ours}
