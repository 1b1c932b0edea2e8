import json
import sys
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).parents[1] / "scripts"


def test_benchmark_compares_with_the_first_model(shell, tmp_path):
    pytest.importorskip("onnxruntime")
    out = tmp_path / "results/b.json"
    command = (sys.executable, SCRIPTS / "benchmark.py", "yolov8n.yaml", "yolov8n-sgdm.yaml", "--out", out)
    printed = shell(*command, "--imgsz", "128", "--rounds", "1", "--batch", "1", cwd=tmp_path)
    result = json.loads(out.read_text())
    stock, ours = result["rows"]
    assert ours["parameters"] - stock["parameters"] == 188_452
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
