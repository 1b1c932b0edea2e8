import json
import secrets
import subprocess
import sys
import tempfile

import psutil
import pytest
import yaml

from ultralytics_sgdm.data import make_shapes
from ultralytics_sgdm.evidence import compare

pytestmark = pytest.mark.slow

for module in ("ray", *compare.EXTRAS):
    pytest.importorskip(module)
TIMEOUT = 600  # seconds
TINY = {
    "backbone": [*[[-1, 1, "Conv", [16, 3, 2]]] * 3, [-1, 1, "C2f", [32, True]]],
    "head": [[[3], 1, "Detect", ["nc"]]],
    "nc": 6,
}


def read_record(file):
    changing = ("minutes", "date", "command", "machine")
    return {k: v for k, v in json.loads(file.read_text()).items() if k not in changing}


def test_results_over_ray_are_those_without_it_and_a_run_that_fails_is_reported(shell, tmp_path):
    make_shapes(tmp_path / "shapes", train=8, val=4, size=96)
    spec = {"path": str(tmp_path / "shapes"), "train": "images/train", "val": "images/val", "names": list("abcdef")}
    (tmp_path / "data.yaml").write_text(yaml.safe_dump(spec))
    for name in ("tiny", "blocked"):
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(TINY))
    settings = ("data=data.yaml", "epochs=2", "imgsz=64", "workers=0", "device=cpu", "optimizer=SGD", "seeds=0")
    command = [sys.executable, "-m", "ultralytics_sgdm", "sgdm", "compare"]
    shell(*command, "out=alone", "tiny-sgdm.yaml", "tiny.yaml", *settings, "jobs=2", cwd=tmp_path)
    (digest,) = (f.name[-10:] for f in tmp_path.glob("runs/compare/alone/tiny-0-*") if f.is_dir())
    (tmp_path / "runs/compare/ray").mkdir()  # blocked.yaml has the same content as tiny.yaml
    (tmp_path / f"runs/compare/ray/blocked-0-{digest}").write_text("a file where a folder should be")
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:  # the paths of Ray's sockets must be short
        variables = {
            "RAY_TMPDIR": folder,
            "RAY_AUTH_TOKEN": secrets.token_hex(32),  # else one is written to the home folder
            "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # what binds Ray to the loopback interface, on Linux too
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_worker_niceness": "0",  # else the runs wait for the tests beside this one
        }
        models = ("tiny-sgdm.yaml", "tiny.yaml", "blocked.yaml")
        done = subprocess.run(
            [*command, "out=ray", *models, *settings, "ray=local"],
            cwd=tmp_path,
            env={**shell.environment, **variables},
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
        )
        ours = [p for p in psutil.process_iter(["cmdline"]) if folder in " ".join(p.info["cmdline"] or ())]
        assert psutil.wait_procs(ours, timeout=30)[1] == []
    assert done.returncode == 1, done.stdout + done.stderr
    assert "blocked-0: failed" in done.stdout and "cannot be written: File exists" in done.stdout
    assert done.stderr.splitlines()[-1] == "error: 1 runs failed: blocked-0; fix what their logs say"
    names = {file.name for file in (tmp_path / "ray").glob("*-*.json")}
    assert names == {"tiny-0.json", "tiny-sgdm-0.json"}
    for name in names:
        assert read_record(tmp_path / "ray" / name) == read_record(tmp_path / "alone" / name)
