"""Which file the name of a YAML means, and what is reported when there is none."""

import pytest
import ultralytics.data.utils
from ultralytics import YOLO
from ultralytics.nn.tasks import load_checkpoint
from ultralytics.utils import checks

from ultralytics_sgdm import RDConv
from ultralytics_sgdm.configs import CFG, find_yaml, with_scale, without_scale
from ultralytics_sgdm.errors import ConfigError
from ultralytics_sgdm.plugin.names import _refuse_weights


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
    [("yolov5x-rdcon.yaml", "yolov5x-rdconv.yaml"), ("yolo11n-seg-sgdmm.yaml", "yolo11n-seg-sgdm.yaml")],
)
def test_a_name_close_to_ours_names_it(name, near):
    with pytest.raises(ConfigError, match=rf"'{name}' does not exist; did you mean '{near}'\?"):
        YOLO(name)


@pytest.mark.parametrize(
    "name", ["yolo1n.yaml", "yolov8n-segg.yaml", "coco9.yaml", "mine.yaml", "YOLOV8N.yaml", "botsort-sgmd.yaml"]
)
def test_a_name_without_ours_gets_the_error_of_ultralytics(name):
    with pytest.raises(FileNotFoundError) as error:
        checks.check_file(name)
    assert type(error.value) is FileNotFoundError and str(error.value) == f"'{name}' does not exist"


@pytest.mark.parametrize("name", ["yolov10n-sgdm.pt", "folder/yolo11s-seg-sgdm.pt", "yolov5nu-rdconv.pt"])
def test_weights_that_are_not_published_name_the_way_to_train_them(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    stem, stock = name.rpartition("/")[2].removesuffix(".pt"), name.rpartition("/")[2].rpartition("-")[0]
    message = rf"no published weights of this model.*with model={stem}\.yaml pretrained={stock}\.pt"
    for load in (YOLO, load_checkpoint):
        with pytest.raises(ConfigError, match=message):
            load(name)
    with pytest.raises(FileNotFoundError, match=r"^'roads-ca.yaml' does not exist, nor does 'roads.yaml' to put Coord"):
        YOLO("roads-ca.yaml")
    assert _refuse_weights(str.upper)("roads-ca.pt") == "ROADS-CA.PT"  # Ultralytics' own: nobody looks for it published
    YOLO("yolov8n.yaml").save(tmp_path / "mine-sgdm.pt")
    assert YOLO("mine-sgdm.pt").task == "detect"


def test_a_name_with_a_folder_means_that_folder(tmp_path):
    assert find_yaml(tmp_path / "yolov8n-sgdm.yaml") is None
    assert find_yaml("yolov8n-sgdm.yaml").name == "yolov8-sgdm.yaml"


@pytest.mark.parametrize("name", ["yolov8-sgdm.yaml", "yolo11-seg-sgdm.yaml", "my-yolov5.yaml"])
def test_names_with_and_without_scale(name):
    assert without_scale(with_scale(name, "x")) == name != with_scale(name, "x")
