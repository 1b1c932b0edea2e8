import csv
import json
import runpy
import sys
from pathlib import Path

import pytest
import yaml

from ultralytics_sgdm.data import make_shapes

SCRIPTS = Path(__file__).parents[1] / "scripts"


def test_benchmark_compares_with_the_first_model(shell, tmp_path):
    pytest.importorskip("onnxruntime")
    out = tmp_path / "results/b.json"
    command = (sys.executable, SCRIPTS / "benchmark.py", "yolov8n.yaml", "yolov8n-sgdm.yaml", "--out", out)
    printed = shell(*command, "--imgsz", "128", "--rounds", "1", "--batch", "1", cwd=tmp_path)
    result = json.loads(out.read_text())
    stock, ours = result["rows"]
    assert ours["parameters"] - stock["parameters"] == 187_428
    for kind in ("pytorch", "onnxruntime", "training_step", "training_memory"):
        assert stock[kind]["ratio"] == 1
        assert ours[kind]["ratio"] > 0
    assert {p.name for p in tmp_path.iterdir()} == {"results"}
    assert printed.splitlines()[-1].startswith("yolov8n-sgdm.yaml")
    assert "exists; choose another file" in shell(*command, cwd=tmp_path, status=1)


def test_benchmark_times_each_row(shell, tmp_path):
    command = (
        sys.executable,
        SCRIPTS / "benchmark.py",
        "yolov8n-rdconv.yaml",
        "--rows",
        "--imgsz",
        "64",
        "--rounds",
        "1",
    )
    rows = [line.split() for line in shell(*command, cwd=tmp_path).splitlines() if line.endswith(" ms")]
    assert len(rows) == 23
    assert rows[5][:2] == ["5", "RDConv"]


def test_compare_pairs_seeds_keeps_what_is_done_and_resumes(shell, tmp_path):
    pytest.importorskip("scipy")
    make_shapes(tmp_path / "shapes", train=8, val=4, size=96)
    spec = {"path": str(tmp_path / "shapes"), "train": "images/train", "val": "images/val", "names": list("abcdef")}
    (tmp_path / "data.yaml").write_text(yaml.safe_dump(spec))
    models = ("yolov8n.yaml", "yolov8n-sgdm.yaml")
    settings = ("data=data.yaml", "epochs=2", "imgsz=64", "workers=0", "device=cpu", "--bf16", "--seeds", "0")
    command = (sys.executable, SCRIPTS / "compare.py", *models, *settings, "--out", "results", "--jobs", "2")
    printed = shell(*command, cwd=tmp_path)
    assert "yolov8n-0: done" in printed and "yolov8n-sgdm-0: done" in printed
    ours = json.loads((tmp_path / "results/yolov8n-sgdm-0.json").read_text())
    assert len(ours["curve"]) == 2
    assert ours["recipe"]["epochs"] == 2
    rows = list(csv.DictReader((tmp_path / "results/summary.csv").open()))
    assert [row["model"] for row in rows] == list(models)
    assert int(rows[1]["parameters"]) - int(rows[0]["parameters"]) == 187_428
    assert {p.name for p in (tmp_path / "results").glob("*.png")} == {"differences.png", "curves.png"}

    (tmp_path / "results/yolov8n-sgdm-0.json").unlink()  # as if killed between training and its last line
    stamp = (tmp_path / "runs/compare/results/yolov8n-sgdm-0/weights/best.pt").stat().st_mtime_ns
    assert "yolov8n-0: done" not in shell(*command, cwd=tmp_path)
    assert (tmp_path / "runs/compare/results/yolov8n-sgdm-0/weights/best.pt").stat().st_mtime_ns == stamp
    again = json.loads((tmp_path / "results/yolov8n-sgdm-0.json").read_text())
    assert {**again, "minutes": 0} == {**ours, "minutes": 0}
    assert "was made with another recipe" in shell(*command, "epochs=3", cwd=tmp_path, status=1)


def test_the_interval_of_a_paired_difference_is_students():
    pytest.importorskip("scipy")
    compare = runpy.run_path(str(SCRIPTS / "compare.py"))["paired_difference"]
    mean, half = compare({0: 3.0, 1: 5.0, 2: 4.0, 9: 0.0}, {0: 1.0, 1: 2.0, 2: 3.0})
    assert mean == 2
    assert half == pytest.approx(4.302653 * 1 / 3**0.5, rel=1e-6)
