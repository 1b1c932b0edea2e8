import pytest
from matplotlib import pyplot as plt

from ultralytics_sgdm.evidence import plots


def test_differences_say_what_their_intervals_are_and_nothing_is_cut(tmp_path, monkeypatch):
    rows = [
        {"arm": "yolov8n"},
        {"arm": "alone", "mAP50-95 difference": 0.3, "mAP50-95 +- seeds": "", "mAP50-95 +- both": ""},
        {"arm": "yolov8n-sgdm", "mAP50-95 difference": 1.0, "mAP50-95 +- seeds": 2.0, "mAP50-95 +- both": 3.0},
    ]
    monkeypatch.setattr(plt, "close", lambda figure: None)
    plots.differences(rows, {"alone": [0.3], "yolov8n-sgdm": [0.5, 1.5]}, "mAP50-95", 0.952, tmp_path / "plot.png")
    figure = plt.gcf()
    texts = [text.get_text() for text in figure.legends[0].get_texts()]
    assert sorted(texts) == ["95.2 % over seeds", "95.2 % over seeds and pictures", "a seed", "mean"]
    width = figure.bbox.width
    boxes = [figure.legends[0].get_window_extent(), figure.axes[0].xaxis.label.get_window_extent()]
    assert all(box.x0 >= 0 and box.x1 <= width + 1 for box in boxes)
    assert figure.axes[0].get_xlabel() == "mAP50-95, difference to yolov8n, points"


@pytest.fixture(autouse=True)
def _figures():
    yield
    plt.close("all")
