import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["YOLO_AUTOINSTALL"], os.environ["YOLO_OFFLINE"] = "false", "true"


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def shell(tmp_path_factory):
    """Run a command line in a folder of its own, with Ultralytics settings of its own, and return what it printed."""
    home = tmp_path_factory.mktemp("home")
    environment = {
        **os.environ,
        "YOLO_CONFIG_DIR": str(home),
        "PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")]),
    }
    (home / "Ultralytics").mkdir(exist_ok=True)

    def run(*argv, cwd=home, status=0, **variables):
        done = subprocess.run(
            [str(a) for a in argv],
            cwd=cwd,
            env={**environment, **variables},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=300,
        )
        assert status in (None, done.returncode), done.stdout
        return done.stdout

    run.environment = environment
    return run


@pytest.fixture(scope="session")
def yolo(shell):
    """Run `yolo` by way of `python -m ultralytics_sgdm`."""
    return lambda *argv, **options: shell(sys.executable, "-m", "ultralytics_sgdm", *argv, **options)


@pytest.fixture
def model_yaml(tmp_path):
    """Write yolov8.yaml of a folder with one row replaced, and return the path that asks for its scale n."""
    from ultralytics_sgdm.configs import CFG

    def write(index, row, folder="mine", name="yolov8-mine.yaml"):
        spec = yaml.safe_load((CFG / "models/yolov8-sgdm.yaml").read_text())
        section, i = ("backbone", index) if index < len(spec["backbone"]) else ("head", index - len(spec["backbone"]))
        spec[section][i] = row
        file = tmp_path / folder / name
        file.parent.mkdir(exist_ok=True)
        file.write_text(yaml.safe_dump(spec))
        return file.with_name(name.replace("yolov8", "yolov8n"))

    return write
