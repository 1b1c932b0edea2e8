"""Which file a YAML's name means, and what is said when there is none."""

import pytest
import ultralytics.data.utils
from ultralytics import YOLO
from ultralytics.utils import checks

from ultralytics_sgdm import RDConv
from ultralytics_sgdm.configs import CFG, ConfigError


def test_shipped_names_resolve_from_any_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert YOLO("yolov8s-sgdm.yaml").model.yaml["scale"] == "s"
    assert ultralytics.data.utils.check_file("shapes.yaml") == str(CFG / "datasets/shapes.yaml")
    assert checks.check_yaml("coco8.yaml").endswith("coco8.yaml")


def test_the_scale_is_read_from_the_files_name_only(model_yaml):
    model = YOLO(model_yaml(3, [-1, 1, "RDConv", [256]], folder="user7m")).model
    assert model.yaml["scale"] == "n"
    assert model.model[3].expand.conv.out_channels == 64


def test_the_users_file_goes_before_the_shipped_one(model_yaml, monkeypatch):
    file = model_yaml(3, [-1, 1, "RDConv", [256]], name="yolov8-sgdm.yaml")
    monkeypatch.chdir(file.parent)
    assert type(YOLO("yolov8n-sgdm.yaml").model.model[3]) is RDConv


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("yolov8n-sgmd.yaml", "yolov8n-sgdm.yaml"),
        ("yolov5x-rdcon.yaml", "yolov5x-rdconv.yaml"),
        ("yolo1n.yaml", "yolo11n"),
    ],
)
def test_an_unknown_model_names_the_nearest(name, near):
    with pytest.raises(FileNotFoundError, match=rf"'{name}' does not exist; did you mean .*'{near}"):
        YOLO(name)


def test_what_is_no_data_set_is_named(tmp_path):
    (tmp_path / "file").touch()
    for given in (tmp_path, tmp_path / "file"):
        with pytest.raises(ConfigError, match=rf"data={given}: .*; name the YAML itself"):
            ultralytics.data.utils.check_det_dataset(given)
    with pytest.raises(ConfigError, match=r"data=yolov8\.yaml is a model; name the YAML of a data set"):
        ultralytics.data.utils.check_det_dataset("yolov8.yaml")


def test_a_suggestion_is_of_the_kind_that_was_asked_for():
    with pytest.raises(ConfigError, match=r"data='Shaps\.yaml' does not exist; did you mean 'shapes\.yaml'"):
        ultralytics.data.utils.check_det_dataset("Shaps.yaml")
    with pytest.raises(ConfigError, match=r"data='yolov8n-sgdn\.yaml' does not exist(?!.*'yolov8)"):
        ultralytics.data.utils.check_det_dataset("yolov8n-sgdn.yaml")
    with pytest.raises(ConfigError, match=r"model='coco9\.yaml' does not exist(?!.*'coco)"):
        YOLO("coco9.yaml")
    with pytest.raises(ConfigError, match=r"model='YOLOV8N-SGDM\.yaml' does not exist; did you mean 'yolov8n-sgdm"):
        YOLO("YOLOV8N-SGDM.yaml")
    with pytest.raises(ConfigError, match=r"data='nosuch\.yaml' does not exist$"):  # the suffix makes nothing alike
        ultralytics.data.utils.check_det_dataset("nosuch.yaml")
