import cv2
import numpy as np
import pytest
from small_datasets import tree
from ultralytics.utils import YAML

from ultralytics_sgdm.configs import CFG
from ultralytics_sgdm.data import make_shapes, shapes
from ultralytics_sgdm.errors import ConfigError


@pytest.fixture
def small(tmp_path):
    return lambda name="set": make_shapes(tmp_path / name, train=6, val=4, size=96)


def test_layout_and_boxes(small):
    root = small()
    assert [len([*(root / "images" / split).glob("*.jpg")]) for split in ("train", "val")] == [6, 4]
    for label in root.glob("labels/*/*.txt"):
        rows = np.loadtxt(label, ndmin=2)
        assert rows.shape[0] and rows.shape[1] == 5
        assert rows[:, 0].max() < len(shapes.CLASSES)
        assert cv2.imread(str(label).replace("labels", "images").replace(".txt", ".jpg")).shape == (96, 96, 3)


def test_deterministic_and_reused(small):
    first = small("a")
    assert tree(first, times=False) == tree(small("b"), times=False)
    before = tree(first)
    small("a")
    assert tree(first) == before


def test_the_yaml_names_the_classes_by_words_that_take_an_s():
    assert tuple(YAML.load(CFG / "datasets/shapes.yaml")["names"].values()) == shapes.CLASSES
    assert not any(name.endswith(("s", "x", "z", "ch", "sh", "y", "f", "fe")) for name in shapes.CLASSES)


def test_the_classes_and_sizes_vary():
    objects = [o for i in range(40) for o in shapes.draw(np.random.default_rng(i), 160)[1]]
    counts = np.bincount([o[0] for o in objects], minlength=len(shapes.CLASSES))
    assert counts.min() > len(objects) / len(shapes.CLASSES) / 2
    sides = np.array([max(o[3:]) for o in objects])
    assert sides.min() < 0.15 and sides.max() > 0.35


@pytest.mark.parametrize("seed", range(8))
def test_each_box_is_tight_around_one_shape_that_is_seen_whole_and_apart_from_the_others(monkeypatch, seed):
    size, chance = 320, np.random.default_rng(seed)

    def texture(rng, size, contrast):  # black behind; paint is white, or too dark to be seen
        level = 0 if contrast == 60 else chance.choice([shapes.VISIBLE - 1, 255])
        return np.full((size, size, 3), float(level))

    monkeypatch.setattr(shapes, "_draw_texture", texture)
    image, objects = shapes.draw(np.random.default_rng(seed), size)
    assert shapes.OBJECTS[0] <= len(objects) <= shapes.OBJECTS[1]
    outlines, _ = cv2.findContours((image[..., 0] > 127).astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    corners = [(o[:, 0].min(0) + o[:, 0].max(0) + 1, np.ptp(o[:, 0], axis=0) + 1) for o in outlines]
    found = np.array(sorted([*(place / 2), *side] for place, side in corners)) / size
    wanted = np.array(sorted(o[1:] for o in objects))
    assert found.shape == wanted.shape
    distances = np.abs(found[:, None] - wanted).max(2)
    assert (distances.min(0) < 3 / size).all() and len(set(distances.argmin(0))) == len(wanted)
    low, high = wanted[:, :2] - wanted[:, 2:] / 2, wanted[:, :2] + wanted[:, 2:] / 2
    gaps = np.maximum(low[:, None] - high, low - high[:, None]).max(2)
    assert gaps[~np.eye(len(gaps), dtype=bool)].min() >= shapes.GAP - 1e-9
    assert low.min() >= -1e-9 and high.max() <= 1 + 1e-9


def test_an_interrupted_dataset_is_not_there_and_another_one_is_kept(small, monkeypatch, tmp_path):
    calls = iter(range(9))
    draw = shapes.draw
    monkeypatch.setattr(shapes, "draw", lambda *a: draw(*a) if next(calls, None) is not None else 1 / 0)
    with pytest.raises(ZeroDivisionError):
        small()
    assert not any(tmp_path.iterdir())
    monkeypatch.undo()
    before = tree(small())
    with pytest.raises(ConfigError, match=r"'train': 6, 'val': 4. images, not .'train': 7, 'val': 4.; name another"):
        make_shapes(tmp_path / "set", train=7, val=4, size=96)
    assert tree(tmp_path / "set") == before
