"""The comparisons in results/, and docs/evidence.md, which holds their tables."""

import csv
import json
import re
from pathlib import Path

import pytest

from ultralytics_sgdm.evidence import plans, report, statistics

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
EVIDENCE = (ROOT / "docs/evidence.md").read_text(encoding="utf-8")
COMPARISONS = sorted(file.parent for file in ROOT.glob("results/*/summary.md"))


@pytest.mark.parametrize("folder", COMPARISONS, ids=lambda folder: folder.name)
def test_tables_are_those_of_the_runs(folder, tmp_path):
    pytest.importorskip("scipy")
    with (folder / "summary.csv").open(encoding="utf-8") as f:
        reference = next(csv.DictReader(f))["arm"]
    file = folder / report.ANALYSIS
    analysis = json.loads(file.read_text()) if file.exists() else None
    runs = report.by_arm(report.all_records(folder), reference)
    assert analysis is None or analysis["runs"] == report.fingerprint(runs)
    plan = ROOT / f"docs/plans/{folder.name}.yaml"
    planned = plans.read(plan) if plan.exists() else None
    seeds = {seed for arm in runs.values() for seed in arm}
    confidence = statistics.CONFIDENCE
    if planned:  # at the first look as long as it has no other seeds, then at the last
        confidence = planned.confidence(0 if seeds <= {*planned.looks[0]} else len(planned.looks) - 1)
    report.write_summary(tmp_path, report.summary(runs, analysis, confidence))
    for name in ("summary.csv", "summary.md"):
        assert (tmp_path / name).read_text(encoding="utf-8") == (folder / name).read_text(encoding="utf-8")
    assert (folder / "summary.md").read_text(encoding="utf-8") in EVIDENCE


@pytest.mark.parametrize("file", ["benchmark-deepest.json", "benchmark-yolov8n.json", "benchmark-opponents.json"])
def test_the_table_of_costs_is_that_of_the_benchmark(file):
    rows = json.loads((ROOT / "results" / file).read_text())["rows"]
    for row in rows:
        costs = [value for value in row.values() if isinstance(value, dict)]
        cells = [f"{cost[unit]:.0f} {unit} ({cost['ratio']:.2f})" for cost in costs for unit in cost if unit != "ratio"]
        assert f"| {Path(row['model']).name} | {' | '.join(cells)} |" in EVIDENCE


@pytest.mark.parametrize("folder", ["noise-bccd", "noise-animals"])
def test_the_table_of_noise_is_that_of_the_checkpoints(folder):
    with (ROOT / f"results/{folder}/summary.csv").open(encoding="utf-8") as f:
        rows = [row for row in csv.DictReader(f) if row["corruption"] == "highpass"]
    for strength in dict.fromkeys(row["strength"] for row in rows):
        cells = [strength]
        for row in (row for row in rows if row["strength"] == strength):
            cells.append(f"{float(row['loss']):.1f} ± {float(row['loss std']):.1f}")
            if row["model"] != rows[0]["model"]:
                cells.append(f"{float(row['difference']):+.1f} ± {float(row['difference +-']):.1f}")
        assert f"| {' | '.join(cells)} |" in EVIDENCE


def test_the_page_on_a_lower_map_has_what_was_measured():
    page = (ROOT / "docs/howto/map-fell.md").read_text(encoding="utf-8")
    with (ROOT / "results/finetune-bccd/summary.csv").open(encoding="utf-8") as f:
        rows = list(csv.DictReader(f))
    for row in rows:
        cells = [row["arm"], f"{float(row['mAP50-95']):.1f}"]
        if row["mAP50-95 difference"]:
            difference, half = (float(row[f"mAP50-95 {key}"]) for key in ("difference", "+- both"))
            cells.append(f"{difference:+.1f} ± {half:.1f}")
        assert f"| {' | '.join(cells)} |" in page
        if row["arm"] == "yolov8n-sgdm":
            assert f"it is {cells[2]}," in README


def test_readme_has_the_figure_of_natural_photographs():
    with (ROOT / "results/finetune-animals/summary.csv").open(encoding="utf-8") as f:
        row = next(row for row in csv.DictReader(f) if row["arm"] == "yolov8n-sgdm")
    difference, half = (float(row[f"mAP50-95 {key}"]) for key in ("difference", "+- both"))
    assert f"natural photographs {difference:+.1f} ± {half:.1f}." in README


def test_readme_has_the_figures_of_new_classes():
    with (ROOT / "results/finetune-fod/summary.csv").open(encoding="utf-8") as f:
        rows = {row["arm"]: row for row in csv.DictReader(f)}
    former, deepest = (
        f"{float(rows[arm]['mAP50-95 difference']):+.1f} ± {float(rows[arm]['mAP50-95 +- both']):.1f}"
        for arm in ("yolov8n-sgdm", "yolov8n-deep")
    )
    said = " ".join(README.split())
    assert f"on FOD-A, fine-tuned, it is {former}. At the deepest stage alone" in said
    assert f"where `-sgdm` puts it now, SGDM is {deepest} there" in said


def test_readme_has_the_costs_of_the_benchmark():
    rows = [line for line in README.splitlines() if re.match(r"\| yolov8n\S*\.yaml \|", line)]
    assert [row.split()[1] for row in rows][:2] == ["yolov8n.yaml", "yolov8n-sgdm.yaml"]
    assert all(row in EVIDENCE.splitlines() for row in rows)


def test_sgdm_keeps_to_the_costs_that_the_page_says_it_keeps_to():
    rows = json.loads((ROOT / "results/benchmark-deepest.json").read_text())["rows"]
    ratios = {
        row["model"]: [row[kind]["ratio"] for kind in ("onnxruntime", "pytorch", "training_step", "training_memory")]
        for row in rows
    }
    said = (
        "1.04 in ONNX Runtime ({:.3f}), 1.06 in PyTorch ({:.3f}), 1.09 for a training step ({:.3f}) and 1.10 of memory "
        "({:.3f})"
    )
    assert said.format(*ratios["yolov8n-sgdm.yaml"]) in " ".join(EVIDENCE.split())
    limits = (1.04, 1.06, 1.09, 1.10)
    assert all(ratio <= limit for ratio, limit in zip(ratios["yolov8n-sgdm.yaml"], limits, strict=True))
    assert all(ratio > limit for ratio, limit in zip(ratios["yolov8n-sgdm-p3.yaml"], limits, strict=True))
