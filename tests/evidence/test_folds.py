from collections import Counter
from pathlib import Path

import pytest
from ultralytics.data.build import build_yolo_dataset
from ultralytics.data.utils import check_det_dataset
from ultralytics.utils import DEFAULT_CFG

from ultralytics_sgdm.errors import ConfigError
from ultralytics_sgdm.evidence import folds

pytest.importorskip("sklearn")


def test_folds_are_even_by_the_names_alone_and_groups_stay_together():
    names = [f"{i}.jpg" for i in range(22)]
    fold = folds.assign(names, 4)
    assert sorted(Counter(fold).values()) == [5, 5, 6, 6]
    assert folds.assign(names[::-1], 4)[::-1] == fold != sorted(fold)

    names = [f"video{v}_{i}.jpg" for v in range(7) for i in range(v + 1)]
    fold = folds.assign(names, 3, r"^(video\d+)")
    assert len({(name.partition("_")[0], i) for name, i in zip(names, fold, strict=True)}) == 7
    assert max(Counter(fold).values()) - min(Counter(fold).values()) <= 2


@pytest.mark.parametrize(
    ("k", "pattern", "message"),
    [
        (1, None, "folds=1: "),
        (5, None, "folds=5: Cannot have number of splits n_splits=5 greater than"),
        (2, "(", "groups=. must be a regular expression with a bracket"),
        (2, "(z)", "groups=.z. must be a regular expression with a bracket, matching 'a1.jpg'"),
    ],
)
def test_mistakes_are_named(k, pattern, message):
    with pytest.raises(ConfigError, match=message):
        folds.assign(["a1.jpg", "a2.jpg", "b1.jpg", "b2.jpg"], k, pattern)


def test_folds_hold_all_images_with_their_labels_and_all_keys_and_leave_the_dataset_alone(make_project, tmp_path):
    keys = {"channels": 1, "kpt_shape": [17, 3], "licence": "mine"}
    make_project(tmp_path, size=64, test="images/nowhere", **keys)  # the same names in both splits
    before = sorted(tmp_path.rglob("*"))
    yamls = folds.write_folds(str(tmp_path / "data.yaml"), 3, None, tmp_path / "folds")
    evaluated, boxes = Counter(), 0
    for file in yamls:
        data = check_det_dataset(file)
        assert {key: data[key] for key in keys} == keys and not data.get("test")
        parts = {s: build_yolo_dataset(DEFAULT_CFG, data[s], 1, data, mode="val") for s in ("train", "val")}
        assert len(parts["train"]) + len(parts["val"]) == 14
        evaluated.update(Path(f).name for f in parts["val"].im_files)
        boxes += sum(len(label["cls"]) for label in parts["val"].labels)
    assert len(evaluated) == 14 and set(evaluated.values()) == {1}
    assert boxes == sum(len(f.read_text().splitlines()) for f in tmp_path.glob("shapes/labels/*/*.txt"))
    assert [f for f in sorted(tmp_path.rglob("*")) if "folds" not in f.parts] == before
    stamp = yamls[0].stat().st_mtime_ns
    assert folds.write_folds(str(tmp_path / "data.yaml"), 3, None, tmp_path / "folds") == yamls
    assert yamls[0].stat().st_mtime_ns == stamp
