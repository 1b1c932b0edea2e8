"""The benchmark of conversions, and docs/data.md, which holds its table."""

import json
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]


@pytest.mark.long
def test_the_benchmark_runs(tmp_path, shell):
    script, out = ROOT / "scripts/benchmark_data.py", tmp_path / "scale.json"
    shell(sys.executable, script, tmp_path / "work", "--images", "40", "--out", out)
    rows = json.loads(out.read_text())["runs"]
    assert [row["form"] for row in rows] == ["voc"] * 4 + ["coco"] * 4
    measured = [row for row in rows if row["run"] != "killed"]
    assert all(row["peak_mb"] >= row["started_mb"] > 0 and row["seconds"] >= 0 for row in measured)
    assert not (tmp_path / "work").exists()


@pytest.mark.parametrize("form", ["voc", "coco"])
def test_memory_grows_no_faster_than_the_set(form):
    content = json.loads((ROOT / "results/data-scale.json").read_text())
    runs = {
        (row["images"], row["run"]): row for row in content["runs"] if row["form"] == form and row["run"] != "killed"
    }
    first = [row for (_, name), row in runs.items() if name == "first"]
    small, middle, large = sorted(first, key=lambda row: row["images"])
    assert (large["images"], large["objects"]) == (118_287, 860_001) and small["images"] == 10_000
    early, late = (
        (row["peak_mb"] - before["peak_mb"]) / (row["images"] - before["images"])
        for before, row in ((small, middle), (middle, large))  # the start has memory to spare, which the first ones use
    )
    assert late <= 1.1 * early and max(row["peak_mb"] for row in runs.values()) < 2_000
    docs = (ROOT / "docs/data.md").read_text()
    for row in first:
        others = [runs[row["images"], name]["seconds"] for name in ("again", "after the kill")]
        cells = [
            form,
            f"{row['images']:,}",
            *(f"{s:.0f} s" for s in (row["seconds"], *others)),
            f"{row['peak_mb']:,} MB",
        ]
        assert f"| {' | '.join(cells)} |" in docs
