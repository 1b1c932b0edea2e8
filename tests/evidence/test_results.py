"""The comparisons in results/, and README.md, which holds their tables."""

import csv
import importlib
import json
import shutil
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
COMPARISONS = sorted({file.parent for file in ROOT.glob("results/*/*-0.json")})


@pytest.mark.parametrize("folder", COMPARISONS, ids=lambda folder: folder.name)
def test_tables_are_those_of_the_runs(folder, tmp_path, monkeypatch):
    pytest.importorskip("scipy")
    monkeypatch.syspath_prepend(ROOT / "scripts")
    for file in folder.glob("*.json"):
        shutil.copy(file, tmp_path)
    reference = (folder / "summary.csv").read_text().splitlines()[1].split(",")[0]
    importlib.import_module("compare").summarize(tmp_path, reference)
    table = (folder / "summary.md").read_text(encoding="utf-8")
    for name in ("summary.csv", "summary.md"):
        assert (tmp_path / name).read_text(encoding="utf-8") == (folder / name).read_text(encoding="utf-8")
    assert table in README


def test_the_table_of_costs_is_that_of_the_benchmark():
    rows = json.loads((ROOT / "results/benchmark-yolov8n.json").read_text())["rows"]
    for row in rows:
        costs = [value for value in row.values() if isinstance(value, dict)]
        cells = [f"{cost[unit]:.0f} {unit} ({cost['ratio']:.2f})" for cost in costs for unit in cost if unit != "ratio"]
        assert f"| {row['model']} | {' | '.join(cells)} |" in README


def test_the_table_of_noise_is_that_of_the_checkpoints():
    with (ROOT / "results/noise-bccd/summary.csv").open(encoding="utf-8") as f:
        rows = [row for row in csv.DictReader(f) if row["corruption"] == "highpass"]
    for strength in dict.fromkeys(row["strength"] for row in rows):
        cells = [strength]
        for row in (row for row in rows if row["strength"] == strength):
            cells.append(f"{float(row['loss']):.1f} ± {float(row['loss std']):.1f}")
            if row["model"] != rows[0]["model"]:
                cells.append(f"{float(row['difference']):+.1f} ± {float(row['difference +-']):.1f}")
        assert f"| {' | '.join(cells)} |" in README
