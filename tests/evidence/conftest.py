import subprocess

import pytest
import yaml

from ultralytics_sgdm.data import make_shapes

TINY = {
    "backbone": [*[[-1, 1, "Conv", [16, 3, 2]]] * 3, [-1, 1, "C2f", [32, True]]],
    "head": [[[3], 1, "Detect", ["nc"]]],
    "nc": 6,
}
OWN = """
from torch import nn
from ultralytics_sgdm import register_layer

@register_layer
class Mine(nn.Conv2d):
    def __init__(self, c1, c2):
        super().__init__(c1, c2, 1)
"""


@pytest.fixture(scope="session")
def make_project():
    """Write tiny.yaml, a detector, and data.yaml, images of shapes, into a folder; return the folder."""

    def make(folder, size=96, **keys):
        make_shapes(folder / "shapes", train=8, val=6, size=size)
        spec = {"path": str(folder / "shapes"), "train": "images/train", "val": "images/val", "names": list("abcdef")}
        (folder / "data.yaml").write_text(yaml.safe_dump({**spec, **keys}))
        (folder / "tiny.yaml").write_text(yaml.safe_dump(TINY))
        return folder

    return make


@pytest.fixture
def own_layers(tmp_path):
    """A Python file that registers the layer Mine, in a folder of its own; return it as seen from `tmp_path`."""
    (tmp_path / "own").mkdir()
    (tmp_path / "own/my_layers.py").write_text(OWN)
    return "own/my_layers.py"


@pytest.fixture
def commit():
    """Commit a file, in a repository of its folder."""

    def run(file):
        for given in (["init"], ["add", file.name], ["commit", "-m", "plan"]):
            who = ("-c", "user.name=a", "-c", "user.email=a@b")
            subprocess.run(["git", *who, *given], cwd=file.parent, check=True, capture_output=True)

    return run


@pytest.fixture
def project(make_project, tmp_path, monkeypatch):
    """A folder with tiny.yaml and data.yaml, in which the test runs."""
    monkeypatch.chdir(make_project(tmp_path))
    return tmp_path
