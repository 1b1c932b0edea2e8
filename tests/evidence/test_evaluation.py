import numpy as np
import pytest
from helpers import save_detector
from ultralytics.utils.metrics import ap_per_class

from ultralytics_sgdm.evidence import evaluation
from ultralytics_sgdm.evidence.evaluation import Detections, average_precision


def some(rng, pictures=12, found=150, there=40, classes=3):
    """Random detections, of a class each, the better the surer."""
    conf = rng.random(found).astype(np.float32)
    quality = np.clip(conf + rng.normal(0, 0.4, found), 0, 1)
    tp = quality[:, None] > np.linspace(0.5, 0.95, 10)
    return Detections(
        pictures=np.array([f"{i:02d}.jpg" for i in range(pictures)]),
        picture=np.sort(rng.integers(0, pictures, found)),
        conf=conf,
        cls=rng.integers(0, classes, found),
        tp=tp,
        target_picture=np.sort(rng.integers(0, pictures, there)),
        target_cls=np.arange(there) % classes,
    )


def repeated(d, counts):
    """The same detections with each image there as often as it counts."""
    found = np.concatenate([np.repeat(np.flatnonzero(d.picture == p), n) for p, n in enumerate(counts)])
    there = np.concatenate([np.repeat(np.flatnonzero(d.target_picture == p), n) for p, n in enumerate(counts)])
    return d.tp[found], d.conf[found], d.cls[found], d.target_cls[there]


@pytest.mark.parametrize("seed", range(5))
def test_ap_of_a_weighting_is_that_of_ultralytics_with_images_repeated(seed):
    rng = np.random.default_rng(seed)
    d, counts = some(rng), np.vstack([np.ones(12, int), rng.multinomial(12, np.full(12, 1 / 12), 40)])
    ours = average_precision(d, counts)
    for ap, weights in zip(ours, counts, strict=True):
        tp, conf, cls, target = repeated(d, weights)
        theirs = ap_per_class(tp, conf, cls, target)
        np.testing.assert_allclose(ap[theirs[6].astype(int)], theirs[5], atol=1e-6)  # equal confidences in any order


def test_a_class_without_boxes_in_a_resample_does_not_count():
    d = some(np.random.default_rng(0), classes=2)
    d = d._replace(target_picture=np.where(d.target_cls == 1, 0, 1 + d.target_picture % 11))
    ap = average_precision(d, np.array([[0] + [1] * 11]))
    assert np.isnan(ap[0, 1]).all() and np.nanmean(ap) == pytest.approx(ap[0, 0].mean())


def test_folds_together_are_one_dataset():
    first, second = (some(np.random.default_rng(seed)) for seed in (3, 4))
    whole = evaluation.pool([first, second])
    assert len(whole.pictures) == 24 and len(whole.conf) == 300 and len(whole.target_cls) == 80
    apart = average_precision(whole, np.repeat(np.eye(2), 12, axis=1))
    for ap, part in zip(apart, (first, second), strict=True):
        np.testing.assert_allclose(ap, average_precision(part, np.ones((1, 12)))[0], atol=1e-6)


def test_detections_of_a_checkpoint_have_the_ap_that_the_validator_prints(make_project, tmp_path):
    make_project(tmp_path, names=list("abc"))
    for file in tmp_path.glob("shapes/labels/*/*.txt"):  # the detector of the tests knows three classes
        lines = [line.split() for line in file.read_text().splitlines()]
        file.write_text("".join(f"{int(c) % 3} {' '.join(box)}\n" for c, *box in lines))
    settings = {"data": str(tmp_path / "data.yaml"), "imgsz": 96, "workers": 0, "device": "cpu", "batch": 5}
    metrics, found = evaluation.evaluate(save_detector("yolov8n.yaml", tmp_path), settings, tmp_path)
    assert len(found.conf) > 100 and len(found.pictures) == 6
    ap = average_precision(found, np.ones((1, 6)))
    np.testing.assert_allclose(ap[0], metrics.box.all_ap, atol=1e-6)
    assert np.nanmean(ap) == pytest.approx(metrics.box.map, abs=1e-6)
