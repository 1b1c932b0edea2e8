import atexit
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["YOLO_AUTOINSTALL"], os.environ["YOLO_OFFLINE"] = "false", "true"
os.environ["YOLO_CONFIG_DIR"] = tempfile.mkdtemp()  # the user's own settings stay as they are
atexit.register(shutil.rmtree, os.environ["YOLO_CONFIG_DIR"], ignore_errors=True)

import pytest
import torch
import yaml
from ultralytics import cfg
from ultralytics.nn.modules import Conv

from ultralytics_sgdm import cli
from ultralytics_sgdm.configs import CFG
from ultralytics_sgdm.nn import registry

HUNG = 1200  # seconds: what takes longer does not end

cfg.TESTS_RUNNING = False  # else trainings in this process are written beside the installed Ultralytics
cfg.SETTINGS["runs_dir"] = f"{os.environ['YOLO_CONFIG_DIR']}/runs"


@pytest.fixture(autouse=True)
def _state(monkeypatch):
    torch.manual_seed(0)
    monkeypatch.setattr(Conv, "default_act", Conv.default_act)  # a YAML with `activation` sets it for the process
    before = set(registry._layers)
    yield
    for name in set(registry._layers) - before:
        if not registry._layers[name].cls.__module__.startswith("ultralytics_sgdm."):
            del registry._layers[name]  # a test's own layer, which no worker of another test could import


@pytest.fixture(scope="session")
def shell(tmp_path_factory):
    """Run a command line in a folder of its own, with Ultralytics settings of its own, and return what it printed."""
    home = tmp_path_factory.mktemp("home")
    environment = {
        **{k: v for k, v in os.environ.items() if k != "PYTEST_CURRENT_TEST"},  # as cfg.TESTS_RUNNING above
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
            timeout=HUNG,
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
def command(monkeypatch, capsys):
    """Run `yolo` in this process; return exit status, what it printed, and what it wrote to standard error."""

    def run(*argv):
        argv = [*map(str, argv)]
        monkeypatch.setattr(sys, "argv", ["yolo", *argv])
        monkeypatch.setattr(cfg, "ARGV", sys.argv)
        try:
            cli.main()
            status = 0
        except SystemExit as e:
            status = e.code or 0
        return status, *capsys.readouterr()

    return run


@pytest.fixture
def mistake(command):
    """Run a command that ends with a mistake of the user's, and return its one line."""

    def run(*argv):
        status, _, error = command("sgdm", *argv)
        line = error.strip().splitlines()[-1]
        assert status == 2 and line.startswith("error: "), error
        return line.removeprefix("error: ")

    return run


@pytest.fixture
def model_yaml(tmp_path):
    """Write yolov8.yaml of a folder with one row replaced, and return the path that asks for its scale n."""

    def write(index, row, folder="mine", name="yolov8-mine.yaml"):
        spec = yaml.safe_load((CFG / "models/yolov8-sgdm.yaml").read_text())
        section, i = ("backbone", index) if index < len(spec["backbone"]) else ("head", index - len(spec["backbone"]))
        spec[section][i] = row
        file = tmp_path / folder / name
        file.parent.mkdir(exist_ok=True)
        file.write_text(yaml.safe_dump(spec))
        return file.with_name(name.replace("yolov8", "yolov8n"))

    return write
