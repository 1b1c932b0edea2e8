import contextlib
import json
import secrets
import signal
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path

import psutil
import pytest
import torch
import yaml

from ultralytics_sgdm.data import make_shapes

pytestmark = pytest.mark.slow

pytest.importorskip("ray")
pytest.importorskip("scipy")
TIMEOUT = 300  # seconds
TINY = {
    "backbone": [*[[-1, 1, "Conv", [16, 3, 2]]] * 3, [-1, 1, "C2f", [32, True]]],
    "head": [[[3], 1, "Detect", ["nc"]]],
    "nc": 6,
}


class Runs:
    """Three runs over a Ray of this machine: one killed early, one killed late, one that cannot make its folder.

    Attributes:
        folder: Working folder. It holds the results without Ray in `alone`, with Ray in `ray`.
        status: Exit status of the command with Ray.
        survivors: Processes of this Ray that are still there half a minute after it.
    """

    def __init__(self, folder, shell, ray_folder):
        self.folder = folder
        make_shapes(folder / "shapes", train=48, val=4, size=96)
        spec = {"path": str(folder / "shapes"), "train": "images/train", "val": "images/val", "names": list("abcdef")}
        (folder / "data.yaml").write_text(yaml.safe_dump(spec))
        for name in ("tiny", "blocked"):
            (folder / f"{name}.yaml").write_text(yaml.safe_dump(TINY))
        settings = ("data=data.yaml", "epochs=3", "batch=2", "imgsz=96", "workers=0", "device=cpu", "optimizer=SGD")
        command = [sys.executable, "-m", "ultralytics_sgdm", "sgdm", "compare", "seeds=0"]
        models = ("tiny-sgdm.yaml", "tiny.yaml")
        shell(*command, "out=alone", *models, *settings, "jobs=2", cwd=folder)

        (folder / "runs/compare/ray").mkdir(parents=True)
        digest = self.scratch("tiny-0", "alone").name.removeprefix("tiny-0-")  # blocked.yaml has the same content
        (folder / f"runs/compare/ray/blocked-0-{digest}").write_text("a file where a folder should be")
        variables = {
            "RAY_TMPDIR": ray_folder,
            "RAY_AUTH_TOKEN": secrets.token_hex(32),  # else one is written to the home folder
            "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # what binds Ray to the loopback interface, on Linux too
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_worker_niceness": "0",  # else the runs wait for the tests beside this one
        }
        with (folder / "printed").open("w") as f:
            self.driver = psutil.Popen(
                [*command, "out=ray", *models, "blocked.yaml", *settings, "ray=local"],
                cwd=folder,
                env={**shell.environment, **variables},
                stdout=f,
                stderr=subprocess.STDOUT,
            )
        self.processes = set()
        try:
            self.disturb("tiny-sgdm-0", "tiny-0")
            self.wait_for(lambda: self.driver.poll() is not None)
            self.status = self.driver.returncode
            _, self.survivors = psutil.wait_procs(self.processes, timeout=30)
        finally:
            for process in (self.driver, *self.processes):
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()

    def disturb(self, early, late):
        """Kill the process of a run in its first epoch and that of another in a later one."""
        self.wait_for(lambda: "Starting training" in self.log(early))
        process, last = self.process_of(early), self.scratch(early) / "weights/last.pt"
        process.send_signal(signal.SIGSTOP)
        assert not last.exists(), "too late for this test"
        last.write_bytes(b"half a file, as if it was just being written")
        (self.folder / "tiny.yaml").unlink()  # the tasks carry their model
        process.kill()
        self.wait_for(lambda: zipfile.is_zipfile(self.scratch(late) / "weights/last.pt"))
        self.process_of(late).kill()

    def wait_for(self, condition):
        end, alive = time.monotonic() + TIMEOUT, True
        while not condition():
            assert alive and time.monotonic() < end, self.printed
            alive = self.driver.poll() is None
            if alive:
                self.processes.update(self.driver.children(recursive=True))
            time.sleep(0.05)

    def process_of(self, name):
        log = f"{self.scratch(name)}.log"
        return next(p for p in self.driver.children(recursive=True) if log in (f.path for f in p.open_files()))

    @property
    def printed(self):
        return (self.folder / "printed").read_text()

    def scratch(self, name, out="ray"):
        """Return the folder of a run, or one that is not there while the run has none."""
        found = (f for f in (self.folder / "runs/compare" / out).glob(f"{name}-*") if not f.name.endswith("-model"))
        return next((f for f in found if f.suffix != ".log"), self.folder / "not there yet")

    def log(self, name):
        log = Path(f"{self.scratch(name)}.log")
        return log.read_text() if log.exists() else ""

    def result(self, out, name):
        changing = ("minutes", "date", "command", "sha256", "machine")
        content = json.loads((self.folder / out / f"{name}.json").read_text())
        return {k: v for k, v in content.items() if k not in changing}

    def weights(self, out, name):
        file = self.scratch(name, out) / "weights/best.pt"
        return torch.load(file, weights_only=False)["model"].state_dict()


@pytest.fixture(scope="module")
def runs(shell, tmp_path_factory):
    with tempfile.TemporaryDirectory(dir="/tmp") as ray_folder:  # the paths of its sockets must be short
        return Runs(tmp_path_factory.mktemp("ray"), shell, ray_folder)


def test_a_run_killed_in_its_first_epoch_gives_the_result_of_one_without_ray(runs):
    assert runs.log("tiny-sgdm-0").count("Starting training") == 2
    assert runs.result("ray", "tiny-sgdm-0") == runs.result("alone", "tiny-sgdm-0")
    ours, alone = runs.weights("ray", "tiny-sgdm-0"), runs.weights("alone", "tiny-sgdm-0")
    assert ours.keys() == alone.keys()
    assert all(torch.equal(ours[k], alone[k]) for k in alone)


def test_a_run_killed_later_goes_on_from_its_last_epoch(runs):
    assert "Resuming training" in runs.log("tiny-0")
    result = runs.result("ray", "tiny-0")
    assert len(result["curve"]) == 3
    assert result["model"] == "tiny.yaml"


def test_a_run_that_fails_is_reported_and_the_others_go_on(runs):
    assert runs.status == 1
    assert f"blocked-0: failed, see {runs.scratch('blocked-0')}.log" in runs.printed
    assert "File exists" in runs.log("blocked-0")
    assert {file.name for file in (runs.folder / "ray").glob("*.json")} == {"tiny-0.json", "tiny-sgdm-0.json"}
    assert runs.printed.splitlines()[-1] == "error: 1 runs failed: blocked-0; mend what their logs say"


def test_no_process_of_ray_remains(runs):
    assert runs.survivors == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("ray=",), "ray= needs a value"),
        (("ray=other.yaml",), "ray=other.yaml: invalid"),
        (("ray=127.0.0.1:1",), "ray=127.0.0.1:1: [Errno"),
        (("ray=local", "device=0"), "leave device= out, or say device=cpu"),
    ],
)
def test_a_mistaken_command_is_named(arguments, message, mistake, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert message in mistake("compare", "yolov8n.yaml", "data=a.yaml", *arguments, "out=results")
    assert not list(tmp_path.iterdir())
