import secrets
import tempfile

import psutil
import pytest

from ultralytics_sgdm.evidence import compare, records

pytestmark = pytest.mark.slow

for module in ("ray", *compare.EXTRAS):
    pytest.importorskip(module)


@pytest.mark.long
def test_results_over_ray_are_those_without_it_and_a_run_that_fails_is_reported(yolo, project):
    (project / "blocked.yaml").write_text((project / "tiny.yaml").read_text())
    settings = ("data=data.yaml", "epochs=2", "imgsz=64", "workers=0", "device=cpu", "optimizer=SGD", "seeds=0")
    command = ["sgdm", "compare", "tiny-sgdm.yaml", "tiny.yaml", *settings]
    yolo(*command, "out=alone", "jobs=2", cwd=project)
    (digest,) = (f.name[-10:] for f in project.glob("runs/compare/alone/tiny-0-*") if f.is_dir())
    (project / "runs/compare/ray").mkdir()  # blocked.yaml has the same content as tiny.yaml
    (project / f"runs/compare/ray/blocked-0-{digest}").write_text("a file where a folder should be")
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:  # the paths of Ray's sockets must be short
        variables = {
            "RAY_TMPDIR": folder,
            "RAY_AUTH_TOKEN": secrets.token_hex(32),  # else one is written to the home folder
            "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # what binds Ray to the loopback interface, on Linux too
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_worker_niceness": "0",  # else the runs wait for the tests beside this one
        }
        done = yolo(*command, "blocked.yaml", "out=ray", "ray=local", cwd=project, status=1, **variables)
        ours = [p for p in psutil.process_iter(["cmdline"]) if folder in " ".join(p.info["cmdline"] or ())]
        assert psutil.wait_procs(ours, timeout=30)[1] == []
    assert "blocked-0: failed" in done and "error: 1 run failed: blocked-0; fix what their logs say" in done
    alone, over_ray = (records.read_runs(project / out) for out in ("alone", "ray"))
    for record in (*alone.values(), *over_ray.values()):
        for changing in ("minutes", "date", "command", "machine"):
            del record[changing]
    assert alone == over_ray and over_ray.keys() == {"tiny-0", "tiny-sgdm-0"}
